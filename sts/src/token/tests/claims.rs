//! What the claims of a token must say.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::session_tags::{FLAT_TAG, FLAT_TRANSITIVE, SOURCE_IDENTITY, TAGS};
use super::*;

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
