//! Tokens with every kind of fault.

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::session_tags::{FLAT_TAG, FLAT_TRANSITIVE, SOURCE_IDENTITY, TAGS};
use super::*;

const NOW: i64 = 1_800_000_000;

fn claims(changes: &Value) -> Map<String, Value> {
    let mut claims = json!({
        "iss": "https://a.test", "sub": "system:serviceaccount:shop:orders", "aud": ["sts.amazonaws.com"],
        "iat": NOW - 60, "exp": NOW + 3600, "nbf": NOW - 60,
    });
    let claims = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        claims.insert(name.clone(), value.clone());
    }
    claims.retain(|_, value| !value.is_null());
    std::mem::take(claims)
}

fn check(changes: &Value) -> Result<WebIdentity, AwsError> {
    let client_ids = ["sts.amazonaws.com".to_owned(), "party".to_owned()];
    check_claims(&claims(changes), &client_ids, now())
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn jwt(header: &Value, claims: &Map<String, Value>, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(&serde_json::to_vec(claims).unwrap())
    );
    format!("{signed}.{}", encode(&sign(signed.as_bytes())))
}

#[test]
fn every_claim_rule_has_its_code_and_text() {
    let many_tags: Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!(["v"]))).collect();
    let tags = |tags: Value| json!({ (TAGS): tags });
    for (changes, code, text) in [
        (
            json!({"sub": null}),
            "InvalidIdentityToken",
            "Missing a required claim: sub",
        ),
        (
            json!({"aud": null}),
            "InvalidIdentityToken",
            "Missing a required claim: aud",
        ),
        (
            json!({"aud": []}),
            "InvalidIdentityToken",
            "Missing a required claim: aud",
        ),
        (
            json!({"iat": null}),
            "InvalidIdentityToken",
            "Missing a required claim: iat",
        ),
        (
            json!({"exp": null}),
            "InvalidIdentityToken",
            "Missing a required claim: exp",
        ),
        (json!({"aud": 7}), "InvalidIdentityToken", "Invalid claim aud"),
        (json!({"exp": 1.8e9}), "InvalidIdentityToken", "Invalid claim exp"),
        (
            json!({"iat": "1800000000"}),
            "InvalidIdentityToken",
            "Invalid claim iat",
        ),
        (
            json!({"exp": NOW - 301}),
            "ExpiredTokenException",
            "Token expired: current date/time 1800000000 must be before the expiration date/time 1799999699",
        ),
        (
            json!({"iat": NOW + 301}),
            "InvalidIdentityToken",
            "Token was issued in the future",
        ),
        (
            json!({"nbf": NOW + 301}),
            "InvalidIdentityToken",
            "Token is not valid yet",
        ),
        (
            json!({"iat": NOW - 86_401}),
            "ExpiredTokenException",
            "Token too old: 86401",
        ),
        (json!({"iat": i64::MIN}), "ExpiredTokenException", "Token too old: "),
        (
            json!({"aud": "other"}),
            "InvalidIdentityToken",
            "Incorrect token audience",
        ),
        (
            json!({"azp": "other"}),
            "InvalidIdentityToken",
            "Incorrect token audience",
        ),
        (
            json!({"aud": ["sts.amazonaws.com", "b"]}),
            "InvalidIdentityToken",
            "Token audience contains more than one audience while authorized party is not present",
        ),
        (
            json!({"sub": "short"}),
            "InvalidIdentityToken",
            "The sub claim must have 6 to 255 characters",
        ),
        (
            json!({"sub": "s".repeat(256)}),
            "InvalidIdentityToken",
            "The sub claim must have 6 to 255 characters",
        ),
        (
            tags(json!({"principal_tags": []})),
            "InvalidIdentityToken",
            "Invalid claim https://aws.amazon.com/tags: principal_tags must be an object",
        ),
        (
            tags(json!({"principal_tags": {"a": "v"}})),
            "InvalidIdentityToken",
            "the value of a must be a list of exactly one string",
        ),
        (
            tags(json!({"principal_tags": {"a": ["v", "w"]}})),
            "InvalidIdentityToken",
            "the value of a must be a list of exactly one string",
        ),
        (
            tags(json!({"principal_tags": {"a": ["1"], "A": ["2"]}})),
            "InvalidIdentityToken",
            "Duplicate tag keys found",
        ),
        (
            tags(json!({"principal_tags": {"aws:a": ["1"]}})),
            "InvalidIdentityToken",
            "must not begin with aws:",
        ),
        (
            tags(json!({"principal_tags": {"a": ["AWS:1"]}})),
            "InvalidIdentityToken",
            "must not begin with aws:",
        ),
        (
            tags(json!({"principal_tags": {"a#": ["1"]}})),
            "InvalidIdentityToken",
            "the key `a#` must match",
        ),
        (
            tags(json!({"principal_tags": {"": ["1"]}})),
            "InvalidIdentityToken",
            "the key `` must match",
        ),
        (
            tags(json!({"principal_tags": {"a": ["v".repeat(257)]}})),
            "InvalidIdentityToken",
            "the value of a must match",
        ),
        (
            tags(json!({"principal_tags": {"k".repeat(129): ["v"]}})),
            "InvalidIdentityToken",
            "must match",
        ),
        (
            tags(json!({"principal_tags": many_tags})),
            "InvalidIdentityToken",
            "more than 50 tags",
        ),
        (
            tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": ["b"]})),
            "InvalidIdentityToken",
            "the transitive tag key b is not among the tags",
        ),
        (
            tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": "a"})),
            "InvalidIdentityToken",
            "transitive_tag_keys must be a list",
        ),
        (
            json!({ (format!("{FLAT_TAG}a")): ["1"] }),
            "InvalidIdentityToken",
            "the value of a must be a string",
        ),
        (
            json!({ (format!("{FLAT_TAG}a")): "1", (TAGS): {} }),
            "InvalidIdentityToken",
            "nested and flattened",
        ),
        (
            json!({ (SOURCE_IDENTITY): "a:b" }),
            "InvalidIdentityToken",
            "https://aws.amazon.com/source_identity: must match",
        ),
        (
            json!({ (SOURCE_IDENTITY): "x" }),
            "InvalidIdentityToken",
            "https://aws.amazon.com/source_identity: must match",
        ),
        (
            json!({ (SOURCE_IDENTITY): ["admin"] }),
            "InvalidIdentityToken",
            "must be a string",
        ),
    ] {
        let error = check(&changes).unwrap_err();
        assert_eq!((error.status, error.code), (400, code), "{changes}: {error}");
        assert!(error.message.contains(text), "{changes}: {error}");
    }
}

#[test]
fn the_edges_of_leeway_and_age_are_accepted() {
    for changes in [
        json!({"exp": NOW - 300}),
        json!({"iat": NOW + 300}),
        json!({"nbf": NOW + 300}),
        json!({"nbf": null}),
        json!({"iat": NOW - 86_400}),
        json!({"aud": "sts.amazonaws.com"}),
        json!({"sub": "sixsix"}),
    ] {
        assert!(check(&changes).is_ok(), "{changes}: {:?}", check(&changes));
    }
}

#[test]
fn the_authorized_party_is_the_audience_and_the_audiences_stay_known() {
    let identity = check(&json!({"azp": "party", "aud": ["a", "b"]})).unwrap();
    assert_eq!(identity.audience, "party");
    assert_eq!(identity.original_audiences, ["a", "b"]);
}

#[test]
fn both_forms_of_session_tags_say_the_same() {
    let nested = check(&json!({ (TAGS): {
        "principal_tags": {"Team": ["Müll abfuhr"], "Empty": [""]}, "transitive_tag_keys": ["team"]}}));
    let flat = check(&json!({
        (format!("{FLAT_TAG}Team")): "Müll abfuhr", (format!("{FLAT_TAG}Empty")): "", (FLAT_TRANSITIVE): ["team"],
        (SOURCE_IDENTITY): "shop.orders"}));
    let (nested, flat) = (nested.unwrap(), flat.unwrap());
    assert_eq!(
        nested.tags,
        BTreeMap::from([("Empty".into(), String::new()), ("Team".into(), "Müll abfuhr".into())])
    );
    assert_eq!(
        (&nested.tags, &nested.transitive_tag_keys),
        (&flat.tags, &flat.transitive_tag_keys)
    );
    assert_eq!(
        (nested.source_identity, flat.source_identity.as_deref()),
        (None, Some("shop.orders"))
    );
}

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

#[test]
fn each_algorithm_verifies_with_its_own_key_and_with_no_other() {
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

    let keys = Keys::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap();
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
    assert_eq!(Keys::parse(set("RSA", 100).as_bytes()).unwrap().0.len(), 100);
    assert!(
        Keys::parse(set("RSA", 101).as_bytes())
            .unwrap_err()
            .starts_with("101 RSA and 0 EC keys")
    );
    assert!(
        Keys::parse(set("EC", 101).as_bytes())
            .unwrap_err()
            .starts_with("0 RSA and 101 EC keys")
    );
    assert_eq!(
        Keys::parse(set("OKP", 1).as_bytes()).unwrap_err(),
        "no RSA and no EC key"
    );
    assert!(Keys::parse(b"[]").unwrap_err().starts_with("not a JWKS"));
    let unusable = json!({"keys": [{"kty": "RSA", "kid": "k", "use": "enc", "n": "AQAB", "e": "AQAB"}]});
    assert!(
        Keys::parse(unusable.to_string().as_bytes())
            .unwrap()
            .find("k")
            .is_none()
    );
}
