//! What tokens say, as another implementation reads it, and how long.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;

use std::collections::BTreeMap;

use fixtures::{NOW, grant};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use tokenscope_core::{Algorithm, FilledClaims};
use tokenscope_issuer::claims::{self, Issuance};
use tokenscope_issuer::grant::TokenGrant;
use tokenscope_issuer::issuer_url::IssuerUrl;
use tokenscope_issuer::keys::{self, SigningKey};

fn payload(grant: &TokenGrant) -> Value {
    let issuer: IssuerUrl = "https://issuer.example.com/a".parse().unwrap();
    let issuance = Issuance {
        issuer: &issuer,
        id: "the-id",
        issued_at: NOW,
        lifetime: 3600,
    };
    serde_json::from_str(&claims::payload(grant, issuance)).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<Box<str>, Box<str>> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

#[test]
fn a_token_says_exactly_what_was_granted() {
    let full = TokenGrant {
        claims: FilledClaims {
            principal_tags: pairs(&[("Team", "Müll abfuhr"), ("Empty", "")]),
            transitive_tag_keys: vec!["Team".into()],
            source_identity: Some("shop.orders".into()),
            context: pairs(&[("tokenscope_team", "a")]),
        },
        ..grant()
    };
    let expected = json!({
        "iss": "https://issuer.example.com/a", "sub": "system:serviceaccount:shop:orders", "aud": "sts.amazonaws.com",
        "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "jti": "the-id",
        "https://aws.amazon.com/tags": {
            "principal_tags": {"Team": ["Müll abfuhr"], "Empty": [""]}, "transitive_tag_keys": ["Team"]},
        "https://aws.amazon.com/source_identity": "shop.orders",
        "tokenscope_team": "a",
        "tokenscope.io/policy": {"kind": "TokenScopePolicy", "namespace": "shop", "name": "orders",
            "uid": "c0ffee00-2c9f-4f57-8d1c-63c4c2f8f8d1"},
    });
    assert_eq!(payload(&full), expected);
    let plain = payload(&grant());
    assert!(
        plain.get("https://aws.amazon.com/tags").is_none(),
        "tags make roles without sts:TagSession fail"
    );
    assert!(plain["exp"].is_i64() && plain["aud"].is_string());
}

#[test]
fn a_value_with_quotes_stays_a_value() {
    let grant = TokenGrant {
        claims: FilledClaims {
            context: pairs(&[("tokenscope_team", r#"","sub":"admin","x":"\"#)]),
            ..FilledClaims::default()
        },
        ..grant()
    };
    let claims = payload(&grant);
    assert_eq!(claims["sub"], "system:serviceaccount:shop:orders");
    assert_eq!(claims["tokenscope_team"], r#"","sub":"admin","x":"\"#);
}

#[test]
fn a_token_never_outlives_its_subject_nor_what_is_granted_and_asked_for() {
    for (granted, requested, most, left, lifetime) in [
        (3600, None, 3600, 7200, 3600),
        (86_400, None, 3600, 86_400, 3600),
        (3600, Some(600), 3600, 7200, 600),
        (600, Some(3600), 3600, 7200, 600),
        (3600, None, 3600, 1000, 1000),
        (3600, None, 3600, 60, 60),
    ] {
        assert_eq!(claims::lifetime(granted, requested, most, left), Ok(lifetime));
    }
    let short = claims::lifetime(3600, None, 3600, 59).unwrap_err();
    assert!(short.to_string().contains("ends in 59 s"), "{short}");
    let asked = claims::lifetime(3600, Some(0), 3600, 3600).unwrap_err();
    assert!(asked.to_string().contains("expires_in is 0 s"), "{asked}");
}

#[test]
fn another_implementation_verifies_our_tokens_with_what_we_publish() {
    let signers = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let published: JwkSet = serde_json::from_str(&keys::document(signers.iter().map(SigningKey::public))).unwrap();
    let value: Value = serde_json::from_str(&keys::document([signers[0].public()])).unwrap();
    assert_eq!(
        (&value["keys"][0]["use"], &value["keys"][0]["alg"]),
        (&json!("sig"), &json!("RS256"))
    );
    for signer in &signers {
        let token = signer.token(&payload(&grant()).to_string()).unwrap();
        let header = decode_header(&token).unwrap();
        let jwk = published.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&["sts.amazonaws.com"]);
        validation.set_issuer(&["https://issuer.example.com/a"]);
        validation.validate_exp = false;
        let read = decode::<Value>(&token, &DecodingKey::try_from(jwk).unwrap(), &validation).unwrap();
        assert_eq!(read.claims["jti"], "the-id");
        assert_eq!(format!("{:?}", header.alg), keys::algorithm_name(signer.algorithm()));
    }
}
