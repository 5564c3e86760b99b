//! Claims that try to become other tags, other identities, or more of them than AWS takes.

use serde_json::json;

use super::*;

fn tags_of(claims: &Value) -> Result<SessionTags, String> {
    session_tags(claims.as_object().unwrap()).map_err(|error| {
        assert_eq!((error.status, error.code), (400, "InvalidIdentityToken"), "{claims}");
        error.message
    })
}

fn nested(tags: &Value) -> Value {
    json!({ (TAGS): {"principal_tags": tags} })
}

fn refusal(claims: &Value) -> String {
    tags_of(claims).unwrap_err()
}

#[test]
fn fifty_tags_of_the_longest_keys_and_values_are_taken_and_one_more_is_not() {
    let tags = |count: usize| {
        let tags = (0..count).map(|n| (format!("{n:0>128}"), json!(["v".repeat(256)])));
        nested(&Value::Object(tags.collect()))
    };
    assert_eq!(tags_of(&tags(50)).unwrap().tags.len(), 50);
    assert!(refusal(&tags(51)).ends_with("more than 50 tags"));
    let flat = (0..51).map(|n| (format!("{FLAT_TAG}k{n}"), json!("v")));
    assert!(refusal(&Value::Object(flat.collect())).ends_with("more than 50 tags"));
}

#[test]
fn a_value_is_one_string_in_a_list_and_nothing_else() {
    for value in [
        json!(7),
        json!([7]),
        json!("v"),
        json!([]),
        json!(["a", "b"]),
        json!([["a"]]),
        json!(null),
        json!({}),
    ] {
        let error = refusal(&nested(&json!({"team": value})));
        assert!(
            error.ends_with("the value of team must be a list of exactly one string"),
            "{value}: {error}"
        );
    }
    for value in [json!(7), json!(["v"]), json!(null), json!(true), json!({})] {
        let error = refusal(&json!({ (format!("{FLAT_TAG}team")): value }));
        assert!(
            error.ends_with("the value of team must be a string"),
            "{value}: {error}"
        );
    }
}

#[test]
fn a_claim_that_is_no_object_or_has_other_members_never_passes_as_no_tags() {
    for (claim, rule) in [
        (json!(null), "must be an object"),
        (json!("team=blue"), "must be an object"),
        (json!([{"principal_tags": {"team": ["blue"]}}]), "must be an object"),
        (json!({"principal_tags": null}), "principal_tags must be an object"),
        (
            json!({"principalTags": {"team": ["blue"]}}),
            "principalTags is no member that AWS documents",
        ),
        (
            json!({"principal_tags": {}, "x": 1}),
            "x is no member that AWS documents",
        ),
        (
            json!({"principal_tags": {"a": ["b"]}, "transitive_tag_keys": null}),
            "transitive_tag_keys must be a list",
        ),
        (
            json!({"principal_tags": {"a": ["b"]}, "transitive_tag_keys": [1]}),
            "transitive_tag_keys must be strings",
        ),
    ] {
        let error = refusal(&json!({ (TAGS): claim }));
        assert_eq!(error, format!("Invalid claim {TAGS}: {rule}"), "{claim}");
    }
    for claim in [
        "https://aws.amazon.com/tags/principal_tags",
        "https://aws.amazon.com/tags/",
        "https://aws.amazon.com/Tags",
        "https://aws.amazon.com/sourceIdentity",
    ] {
        let error = refusal(&json!({ (claim): {"team": "blue"} }));
        assert_eq!(error, format!("Invalid claim {claim}: is no claim that AWS documents"));
    }
}

#[test]
fn keys_that_differ_in_case_only_are_one_key_in_every_script() {
    for tags in [
        json!({"team": ["a"], "Team": ["b"]}),
        json!({"TEAM": ["a"], "team": ["a"]}),
        json!({"équipe": ["a"], "Équipe": ["b"]}),
    ] {
        let error = refusal(&nested(&tags));
        assert!(
            error.ends_with("Duplicate tag keys found. Please note that Tag keys are case insensitive."),
            "{tags}: {error}"
        );
    }
    let flat = json!({ (format!("{FLAT_TAG}team")): "a", (format!("{FLAT_TAG}TEAM")): "b" });
    assert!(refusal(&flat).contains("Duplicate tag keys found"));
}

#[test]
fn only_letters_numbers_separators_and_eight_signs_are_taken() {
    for text in ["a b", "Müll", "日本", "½", "Ⅷ", "a_.:/=+-@", "\u{a0}x", "\u{2028}", "0"] {
        assert!(
            tags_of(&nested(&json!({"k": [text], (format!("x{text}")): ["v"]}))).is_ok(),
            "{text:?}"
        );
    }
    // Control characters, quotes, wildcards, marks (\p{M}), circled letters (\p{So}), joiners, private use, emoji.
    for text in [
        "\n", "\0", "\"", "'", "*", "?", "${x}", "a\\b", "<", "&", ";", "a,b", "#", "e\u{301}", "का", "Ⓐ", "\u{200d}",
        "\u{e000}", "😀", "\u{85}", "\u{feff}",
    ] {
        let error = refusal(&nested(&json!({"k": [text]})));
        assert!(error.contains("the value of k must match"), "{text:?}: {error}");
        let error = refusal(&nested(&json!({ (text): ["v"] })));
        assert!(error.contains("must match"), "{text:?}: {error}");
    }
}

#[test]
fn the_prefix_of_aws_is_reserved_in_every_case() {
    for tags in [
        json!({"aws:team": ["a"]}),
        json!({"AWS:team": ["a"]}),
        json!({"Aws:": ["a"]}),
        json!({"team": ["aWs:x"]}),
    ] {
        assert!(
            refusal(&nested(&tags)).ends_with("keys and values must not begin with aws:"),
            "{tags}"
        );
    }
    assert!(tags_of(&nested(&json!({"aws": ["aws"], "x-aws:y": ["xaws:"]}))).is_ok());
}

#[test]
fn transitive_keys_are_tags_of_the_token_each_once() {
    let with = |keys: &Value| json!({ (TAGS): {"principal_tags": {"Team": ["a"], "Env": ["b"]}, "transitive_tag_keys": keys} });
    assert_eq!(
        tags_of(&with(&json!(["Team", "env"]))).unwrap().transitive,
        ["Team", "env"]
    );
    for (keys, rule) in [
        (json!(["Other"]), "the transitive tag key Other is not among the tags"),
        (json!(["*"]), "the transitive tag key * is not among the tags"),
        (json!(["Team", "team"]), "the transitive tag key team stands twice"),
        (json!(vec!["Team"; 51]), "more than 50 transitive_tag_keys"),
    ] {
        assert!(refusal(&with(&keys)).ends_with(rule), "{keys}");
    }
    let no_tags = json!({ (FLAT_TRANSITIVE): ["Team"] });
    assert!(refusal(&no_tags).ends_with("the transitive tag key Team is not among the tags"));
}

#[test]
fn a_source_identity_has_2_to_64_characters_of_a_session_name() {
    let of = |value: &Value| source_identity(json!({ (SOURCE_IDENTITY): value }).as_object().unwrap());
    for text in ["ab", "shop.orders", "shop+orders,x=1@y-z_", &"x".repeat(64)] {
        assert_eq!(of(&json!(text)).unwrap().as_deref(), Some(text));
    }
    for wrong in [
        json!("x"),
        json!(""),
        json!("x".repeat(65)),
        json!("system:serviceaccount:shop:orders"),
        json!("aws:x"),
        json!("shop/orders"),
        json!("shop orders"),
        json!("é.orders"),
        json!("shop\norders"),
        json!(["shop.orders"]),
        json!(null),
        json!(7),
        json!({}),
    ] {
        let error = of(&wrong).unwrap_err();
        assert_eq!((error.status, error.code), (400, "InvalidIdentityToken"), "{wrong}");
        assert!(
            error
                .message
                .starts_with("Invalid claim https://aws.amazon.com/source_identity: must"),
            "{error}"
        );
    }
    assert_eq!(source_identity(&Map::new()), Ok(None));
}
