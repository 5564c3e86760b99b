//! Keys as published files, and what is said of a key that is published no more.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;

use serde_json::Value;
use tokenscope_core::Algorithm;
use tokenscope_issuer::commands::revoked;
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::publish::{Publication, PublishError};

#[test]
fn what_is_published_as_files_is_what_is_served() {
    let folder = std::env::temp_dir().join(format!("tokenscope-publish-{}", std::process::id()));
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    for _ in 0..2 {
        let publication = Publication::of("https://issuer.example.com/a", &[key.public().clone()]).unwrap();
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
        Publication::of("https://a.example", &[]),
        Err(PublishError::NoKeys)
    ));
    std::fs::write(&folder, "a file where the folder should be").unwrap();
    let publication = Publication::of("https://a.example", &[key.public().clone()]).unwrap();
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
}
