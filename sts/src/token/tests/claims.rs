//! The rules about the claims of a token.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::session_tags::{FLAT_TAG, FLAT_TRANSITIVE, SOURCE_IDENTITY, TAGS};
use super::*;

#[test]
fn every_claim_rule_has_its_code_and_text() {
    let invalid = invalid_claims().into_iter();
    let invalid = invalid.chain(invalid_session_claims()).chain(invalid_flat_claims());
    let invalid = invalid.map(|(changes, text)| (changes, "InvalidIdentityToken", text));
    let expired = expired_claims().into_iter();
    let expired = expired.map(|(changes, text)| (changes, "ExpiredTokenException", text));
    for (changes, code, text) in invalid.chain(expired) {
        let error = check(&changes).unwrap_err();
        assert_eq!((error.status, error.code), (400, code), "{changes}: {error}");
        assert!(error.message.contains(text), "{changes}: {error}");
    }
}

/// Changes of the claims that every token has.
fn invalid_claims() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"sub": null}), "Missing a required claim: sub"),
        (json!({"aud": null}), "Missing a required claim: aud"),
        (json!({"aud": []}), "Missing a required claim: aud"),
        (json!({"iat": null}), "Missing a required claim: iat"),
        (json!({"exp": null}), "Missing a required claim: exp"),
        (json!({"aud": 7}), "Invalid claim aud"),
        (json!({"exp": 1.8e9}), "Invalid claim exp"),
        (json!({"iat": "1800000000"}), "Invalid claim iat"),
        (json!({"iat": NOW + 301}), "Token was issued in the future"),
        (json!({"nbf": NOW + 301}), "Token is not valid yet"),
        (json!({"aud": "other"}), "Incorrect token audience"),
        (json!({"azp": "other"}), "Incorrect token audience"),
        (
            json!({"aud": ["sts.amazonaws.com", "b"]}),
            "Token audience contains more than one audience while authorized party is not present",
        ),
        (json!({"sub": "short"}), "The sub claim must have 6 to 255 characters"),
        (
            json!({"sub": "s".repeat(256)}),
            "The sub claim must have 6 to 255 characters",
        ),
    ]
}

/// Changes of tags.
fn invalid_session_claims() -> Vec<(Value, &'static str)> {
    let many_tags: Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!(["v"]))).collect();
    let tags = |tags: Value| json!({ (TAGS): tags });
    vec![
        (
            tags(json!({"principal_tags": []})),
            "Invalid claim https://aws.amazon.com/tags: principal_tags must be an object",
        ),
        (
            tags(json!({"principal_tags": {"a": "v"}})),
            "the value of a must be a list of exactly one string",
        ),
        (
            tags(json!({"principal_tags": {"a": ["v", "w"]}})),
            "the value of a must be a list of exactly one string",
        ),
        (
            tags(json!({"principal_tags": {"a": ["1"], "A": ["2"]}})),
            "Duplicate tag keys found",
        ),
        (
            tags(json!({"principal_tags": {"aws:a": ["1"]}})),
            "must not begin with aws:",
        ),
        (
            tags(json!({"principal_tags": {"a": ["AWS:1"]}})),
            "must not begin with aws:",
        ),
        (
            tags(json!({"principal_tags": {"a#": ["1"]}})),
            "the key `a#` must match",
        ),
        (tags(json!({"principal_tags": {"": ["1"]}})), "the key `` must match"),
        (
            tags(json!({"principal_tags": {"a": ["v".repeat(257)]}})),
            "the value of a must match",
        ),
        (tags(json!({"principal_tags": {"k".repeat(129): ["v"]}})), "must match"),
        (tags(json!({"principal_tags": many_tags})), "more than 50 tags"),
        (
            tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": ["b"]})),
            "the transitive tag key b is not among the tags",
        ),
        (
            tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": "a"})),
            "transitive_tag_keys must be a list",
        ),
    ]
}

/// Changes of flattened tags and of the source identity.
fn invalid_flat_claims() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({ (format!("{FLAT_TAG}a")): ["1"] }),
            "the value of a must be a string",
        ),
        (
            json!({ (format!("{FLAT_TAG}a")): "1", (TAGS): {} }),
            "nested and flattened",
        ),
        (
            json!({ (SOURCE_IDENTITY): "a:b" }),
            "https://aws.amazon.com/source_identity: must match",
        ),
        (
            json!({ (SOURCE_IDENTITY): "x" }),
            "https://aws.amazon.com/source_identity: must match",
        ),
        (json!({ (SOURCE_IDENTITY): ["admin"] }), "must be a string"),
    ]
}

fn expired_claims() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"exp": NOW - 301}),
            "Token expired: current date/time 1800000000 must be before the expiration date/time 1799999699",
        ),
        (json!({"iat": NOW - 86_401}), "Token too old: 86401"),
        (json!({"iat": i64::MIN}), "Token too old: "),
    ]
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
