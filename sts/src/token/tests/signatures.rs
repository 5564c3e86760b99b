//! Algorithms, signatures and key sets.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;

#[test]
fn only_the_six_algorithms_of_aws_are_jwts_and_a_kid_is_needed() {
    let signature = |_: &[u8]| b"x".to_vec();
    let header = |algorithm: &str| json!({"alg": algorithm, "kid": "k"});
    for algorithm in ["none", "HS256", "PS256", "EdDSA", "rs256"] {
        let error = parse(&jwt(&header(algorithm), &claims(&json!({})), signature))
            .err()
            .unwrap();
        assert!(
            error.message.starts_with("The ID Token provided is not a valid JWT."),
            "{algorithm}: {error}"
        );
    }
    for text in ["nonsense", "a.b", "a.b.c", "....", "e30.e30.e30.e30"] {
        assert!(
            parse(text)
                .err()
                .unwrap()
                .message
                .starts_with("The ID Token provided is not a valid JWT.")
        );
    }
    let critical = json!({"alg": "RS256", "kid": "k", "crit": ["exp"]});
    assert!(parse(&jwt(&critical, &claims(&json!({})), signature)).is_err());
    let no_key = parse(&jwt(&json!({"alg": "RS256"}), &claims(&json!({})), signature))
        .err()
        .unwrap();
    assert_eq!(no_key, no_verification_key());
    let no_issuer = parse(&jwt(&header("RS256"), &claims(&json!({"iss": null})), signature))
        .err()
        .unwrap();
    assert_eq!(no_issuer.message, "Missing a required claim: iss");
}

/// A key set with a key for each algorithm, and a token of each.
fn keys_and_tokens() -> (Value, Vec<String>) {
    let random = SystemRandom::new();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwks = Vec::new();
    let mut tokens = Vec::new();

    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
    jwks.push(
        json!({"kty": "RSA", "kid": "rsa", "use": "sig", "n": text(n.big_endian_without_leading_zero()),
        "e": text(e.big_endian_without_leading_zero())}),
    );
    let encodings: [(&str, &'static dyn RsaEncoding); 3] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
    ];
    for (algorithm, encoding) in encodings {
        tokens.push(jwt(
            &json!({"alg": algorithm, "kid": "rsa"}),
            &claims(&json!({})),
            |message| {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            },
        ));
    }
    let curves: [(&str, &str, &'static EcdsaSigningAlgorithm); 3] = [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    for (algorithm, curve, signing) in curves {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        jwks.push(json!({"kty": "EC", "kid": curve, "crv": curve, "x": text(x), "y": text(y), "alg": algorithm}));
        tokens.push(jwt(
            &json!({"alg": algorithm, "kid": curve}),
            &claims(&json!({})),
            |message| pair.sign(&random, message).unwrap().as_ref().to_vec(),
        ));
    }
    (json!({ "keys": jwks }), tokens)
}

#[test]
fn each_algorithm_verifies_with_its_own_key_and_with_no_other() {
    let (jwks, tokens) = keys_and_tokens();
    let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    let client_ids = ["sts.amazonaws.com".to_owned()];
    for token in &tokens {
        let unverified = parse(token).unwrap();
        for (key_id, key) in &keys.0 {
            let verified = verify(&unverified, key, &client_ids, now());
            assert_eq!(
                verified.is_ok(),
                *key_id == unverified.key_id,
                "{key_id}: {:?}",
                unverified.algorithm
            );
        }
        let (head, _) = token.rsplit_once('.').unwrap();
        let (other, _) = tokens
            .iter()
            .find(|other| *other != token)
            .unwrap()
            .rsplit_once('.')
            .unwrap();
        let swapped = token.replace(head, other);
        let unverified = Unverified {
            signed: other,
            ..parse(&swapped).unwrap()
        };
        let error = verify(&unverified, keys.find(&unverified.key_id).unwrap(), &client_ids, now()).unwrap_err();
        assert_eq!(error.message, "Invalid token signature");
    }
}

#[test]
fn a_key_set_has_at_most_a_hundred_keys_of_a_kind_and_at_least_one() {
    let set = |kind: &str, count: usize| {
        let keys: Vec<_> = (0..count)
            .map(|n| json!({"kty": kind, "kid": n.to_string(), "n": "AQAB", "e": "AQAB"}))
            .collect();
        json!({ "keys": keys }).to_string()
    };
    assert_eq!(KeySet::parse(set("RSA", 100).as_bytes()).unwrap().0.len(), 100);
    assert!(
        KeySet::parse(set("RSA", 101).as_bytes())
            .unwrap_err()
            .starts_with("101 RSA and 0 EC keys")
    );
    assert!(
        KeySet::parse(set("EC", 101).as_bytes())
            .unwrap_err()
            .starts_with("0 RSA and 101 EC keys")
    );
    assert_eq!(
        KeySet::parse(set("OKP", 1).as_bytes()).unwrap_err(),
        "no RSA and no EC key"
    );
    assert!(KeySet::parse(b"[]").unwrap_err().starts_with("not a JWKS"));
    let unusable = json!({"keys": [{"kty": "RSA", "kid": "k", "use": "enc", "n": "AQAB", "e": "AQAB"}]});
    assert!(
        KeySet::parse(unusable.to_string().as_bytes())
            .unwrap()
            .find("k")
            .is_none()
    );
}
