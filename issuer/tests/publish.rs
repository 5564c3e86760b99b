//! Keys as published files, what is said of a key that is published no more, and when another may be forced.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use tokenscope_core::Algorithm;
use tokenscope_issuer::commands::{may_rotate, revoked};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::publish::{Publication, PublishError};
use tokenscope_issuer::rotation::KeyRing;

#[test]
fn each_file_takes_the_place_of_the_one_before_at_once_and_none_is_written_without_keys() {
    let folder = std::env::temp_dir().join(format!("tokenscope-publish-{}", std::process::id()));
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    for _ in 0..2 {
        let publication = Publication::of_another("https://issuer.example.com/a", &[key.public().clone()]).unwrap();
        publication.write(&folder).unwrap();
    }
    let read = |path: &str| serde_json::from_slice::<Value>(&std::fs::read(folder.join(path)).unwrap()).unwrap();
    assert_eq!(read("keys")["keys"][0]["kid"], key.kid());
    let discovery = read(".well-known/openid-configuration");
    assert_eq!(discovery["jwks_uri"], "https://issuer.example.com/a/keys");
    let names: BTreeSet<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        names,
        [".well-known".into(), "keys".into()].into(),
        "no half file stays behind"
    );
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(
        Publication::of_another("https://a.example", &[]),
        Err(PublishError::NoKeys)
    ));
    std::fs::write(&folder, "a file where the folder should be").unwrap();
    let publication = Publication::of_another("https://a.example", &[key.public().clone()]).unwrap();
    assert!(matches!(publication.write(&folder), Err(PublishError::Write(..))));
    std::fs::remove_file(folder).unwrap();
}

#[test]
fn whoever_removes_a_leaked_key_reads_what_aws_may_still_believe() {
    let text = revoked("the-kid", "2026-11-29T00:00:00Z".parse().unwrap());
    assert!(
        text.contains("Key the-kid is removed") && text.contains("for an unknown time"),
        "{text}"
    );
    let from = text.find('{').unwrap();
    let policy: Value = serde_json::from_str(&text[from..]).unwrap();
    let condition = &policy["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"];
    assert_eq!(condition, "2026-11-29T00:00:00Z");
    let text = revoked("the-kid", "2026-11-29T00:00:00.000000001Z".parse().unwrap());
    assert!(
        text.contains("\"aws:TokenIssueTime\": \"2026-11-29T00:00:01Z\"") && !text.contains("00:00:00"),
        "{text}"
    );
}

#[test]
fn a_key_is_forced_only_where_one_of_its_algorithm_signs_and_none_waits() {
    let at: Timestamp = "2026-11-29T00:00:00Z".parse().unwrap();
    let key = |algorithm| SigningKey::generate(algorithm).unwrap();
    let ring = KeyRing::of_signing_keys([key(Algorithm::ES256)], at).unwrap();
    may_rotate(&ring, Algorithm::ES256).unwrap();
    let error = may_rotate(&ring, Algorithm::ES384).unwrap_err().to_string();
    assert!(
        error.contains("no key of ES384 signs") && error.contains("issuer.keys.algorithms"),
        "{error}"
    );
    let waiting = ring.with_published(key(Algorithm::ES256), at).unwrap();
    let error = may_rotate(&waiting, Algorithm::ES256).unwrap_err().to_string();
    assert!(error.contains("waits until it signs"), "{error}");
}
