//! Certificates beside the published keys, for those who read nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokenscope_core::Algorithm;
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::signers::Signers;
use tokenscope_platform::certificate::Certificate;

fn ring() -> KeyRing {
    let keys = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    KeyRing::of_signing_keys(keys, Timestamp::UNIX_EPOCH).unwrap()
}

fn published(signers: &Signers) -> Vec<Value> {
    let set: Value = serde_json::from_slice(&signers.keys.text).unwrap();
    set["keys"].as_array().unwrap().clone()
}

fn certificate(jwk: &Value) -> Certificate {
    let [text] = jwk["x5c"].as_array().unwrap().as_slice() else {
        panic!("one certificate: {jwk}")
    };
    let der = STANDARD.decode(text.as_str().unwrap()).unwrap();
    Certificate::from_der(CertificateDer::from(der)).unwrap()
}

#[test]
fn each_key_has_a_certificate_of_itself_that_names_nobody_and_does_not_end_before_it() {
    let signers = Signers::certified(ring(), &"https://issuer.example.com".parse().unwrap()).unwrap();
    for jwk in published(&signers) {
        let certificate = certificate(&jwk);
        let member = if jwk["kty"] == "RSA" { "n" } else { "x" };
        let number = URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap();
        let mut windows = certificate.der().windows(number.len());
        assert!(windows.any(|window| window == number), "it is the key's own: {jwk}");
        assert!(certificate.names().is_empty() && !certificate.is_authority);
        let year = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(certificate.validity.covers(year("2026-11-29T00:00:00Z")));
        assert!(certificate.validity.covers(year("2099-01-01T00:00:00Z")));
    }
}

#[test]
fn without_the_flag_no_key_has_one_and_with_it_nothing_else_is_different() {
    let (ring, issuer) = (ring(), "https://issuer.example.com".parse().unwrap());
    let plain = Signers::new(ring.clone(), &issuer);
    let certified = Signers::certified(ring, &issuer).unwrap();
    assert_eq!(plain.discovery.text, certified.discovery.text);
    let without: Vec<Value> = published(&certified)
        .into_iter()
        .map(|mut jwk| {
            jwk.as_object_mut().unwrap().remove("x5c");
            jwk
        })
        .collect();
    assert_eq!(published(&plain), without);
}

#[test]
fn replicas_publish_the_same_certificate_of_an_rsa_key() {
    let key = SigningKey::generate(Algorithm::RS256).unwrap();
    assert_eq!(key.certified().unwrap(), key.certified().unwrap());
}
