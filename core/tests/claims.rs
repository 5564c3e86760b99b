//! What tokens of tokenscope's issuer say: templates filled with a workload's facts, under AWS's rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokenscope_core::*;
use tokenscope_fixtures::policy;

fn templates(pairs: &[(&str, &str)]) -> BTreeMap<Box<str>, Template> {
    let parsed = pairs.iter().map(|(key, text)| ((*key).into(), text.parse().unwrap()));
    parsed.collect()
}

fn tags(pairs: &[(&str, &str)]) -> Claims {
    Claims {
        principal_tags: templates(pairs),
        ..Claims::default()
    }
}

fn labels(pairs: &[(&str, &str)]) -> Pairs<String> {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn fill(claims: &Claims, pod_labels: &[(&str, &str)]) -> Result<FilledClaims, ClaimsError> {
    claims.fill(&WorkloadFacts {
        namespace: "shop",
        namespace_labels: &labels(&[("cost-center", "42")]),
        service_account: "orders",
        pod_name: "orders-0",
        pod_uid: "6f1f2f0e",
        pod_labels: &labels(pod_labels),
    })
}

fn refused(claims: &Claims, pod_labels: &[(&str, &str)]) -> String {
    fill(claims, pod_labels).unwrap_err().to_string()
}

#[test]
fn every_claim_has_the_workloads_facts() {
    let claims = Claims {
        principal_tags: templates(&[("Team", "${pod.labels['team']}"), ("Where", "${namespace}/${pod.name}")]),
        transitive_tag_keys: vec!["Team".into()],
        source_identity: Some("${namespace}.${serviceAccount}".parse().unwrap()),
        context: templates(&[("cost", "${namespace.labels['cost-center']}"), ("pod", "${pod.uid}")]),
    };

    let filled = fill(&claims, &[("team", "core")]).unwrap();

    let pairs = |map: &BTreeMap<Box<str>, Box<str>>| -> Vec<String> {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect()
    };
    assert_eq!(pairs(&filled.principal_tags), ["Team=core", "Where=shop/orders-0"]);
    assert_eq!(*filled.transitive_tag_keys, ["Team".into()]);
    assert_eq!(filled.source_identity.as_deref(), Some("shop.orders"));
    assert_eq!(
        pairs(&filled.context),
        ["tokenscope_cost=42", "tokenscope_pod=6f1f2f0e"]
    );
}

#[test]
fn a_label_that_the_pod_does_not_have_refuses_the_token_and_is_named() {
    assert_eq!(
        refused(&tags(&[("Team", "x${pod.labels['team']}")]), &[]),
        "spec.claims.principalTags[Team] needs ${pod.labels['team']}, which this pod does not have: set it, or change the policy"
    );
    assert_eq!(
        refused(&tags(&[("Team", "${namespace.labels['team']}")]), &[("team", "core")]),
        "spec.claims.principalTags[Team] needs ${namespace.labels['team']}, which the namespace of this pod does not have: set it, or change the policy"
    );
}

#[test]
fn a_label_that_breaks_a_rule_of_aws_refuses_the_token_and_is_named() {
    assert_eq!(
        refused(&tags(&[("Team", "${pod.labels['team']}")]), &[("team", "a;b")]),
        "spec.claims.principalTags[Team] would be \"a;b\" by ${pod.labels['team']}: it should have only letters, digits, spaces and _.:/=+-@"
    );
    assert_eq!(
        refused(&tags(&[("Team", "${pod.labels['a']}:x")]), &[("a", "AWS")]),
        "spec.claims.principalTags[Team] would be \"AWS:x\" by ${pod.labels['a']}: it should not start with aws:, which AWS keeps to itself"
    );
    let identity = Claims {
        source_identity: Some("${pod.labels['team']}".parse().unwrap()),
        ..Claims::default()
    };
    assert_eq!(
        refused(&identity, &[("team", "a")]),
        "spec.claims.sourceIdentity would be \"a\" by ${pod.labels['team']}: it should have 2 to 64 letters, digits and _+=,.@-"
    );
    let context = Claims {
        context: templates(&[("team", "${pod.labels['team']}")]),
        ..Claims::default()
    };
    assert_eq!(
        refused(&context, &[("team", "")]),
        "spec.claims.context[team] would be \"\" by ${pod.labels['team']}: it should have 1 to 128 characters"
    );
}

#[test]
fn a_value_that_is_too_long_is_refused_and_not_cut() {
    let label = "v".repeat(63);
    let often = |times| "${pod.labels['team']}".repeat(times);
    let filled = |claims: &Claims| fill(claims, &[("team", &label)]);

    assert!(filled(&tags(&[("Team", &often(4))])).is_ok());
    let error = filled(&tags(&[("Team", &often(5))])).unwrap_err().to_string();
    assert!(error.ends_with("it should have at most 256 characters"), "{error}");
    let long = fill(
        &tags(&[("Team", "${pod.labels['team']}")]),
        &[("team", &"v".repeat(257))],
    );
    assert!(matches!(long, Err(ClaimsError::ValueTooLong { .. })), "{long:?}");
}

#[test]
fn keys_are_checked_too_since_a_policy_may_be_older_than_the_schema() {
    assert_eq!(
        refused(&tags(&[("Team", "a"), ("team", "b")]), &[]),
        "spec.claims.principalTags has the key \"team\": it should differ from the others by more than upper and lower case"
    );
    // Each pair has one upper case or one lower case.
    for (one, other) in [
        ("é", "É"),
        ("s", "ſ"),
        ("k", "\u{212a}"),
        ("i", "ı"),
        ("ς", "σ"),
        ("ß", "ẞ"),
        ("ǆ", "ǅ"),
    ] {
        let error = refused(&tags(&[(one, "a"), (other, "b")]), &[]);
        assert!(
            error.ends_with("by more than upper and lower case"),
            "{one} {other}: {error}"
        );
    }
    assert!(
        fill(
            &tags(&[("Team", "a"), ("Teams", "b"), ("ТЕАМ", "c"), ("e", "d"), ("é", "e")]),
            &[]
        )
        .is_ok()
    );
    for key in ["", "a*", "aws:x", &"k".repeat(129)] {
        assert!(
            matches!(fill(&tags(&[(key, "a")]), &[]), Err(ClaimsError::Key { .. })),
            "{key}"
        );
    }
    let many: Vec<String> = (0..51).map(|number| format!("k{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (&**key, "v")).collect();
    assert!(fill(&tags(&many[..50]), &[]).is_ok());
    assert_eq!(
        refused(&tags(&many), &[]),
        "spec.claims.principalTags has 51 keys, and AWS takes at most 50: remove some"
    );
    let stray = Claims {
        transitive_tag_keys: vec!["Team".into()],
        ..Claims::default()
    };
    assert!(matches!(fill(&stray, &[]), Err(ClaimsError::Key { .. })));
}

#[test]
fn a_tag_has_letters_digits_and_separators_of_all_scripts_and_no_combining_marks() {
    for good in ["é", "漢字", "٣", "Ⅷ½", "a\u{a0}b", "\u{2028}", "_.:/=+-@", ""] {
        assert!(claims::is_tag_text(good), "{good:?}");
    }
    // Several of these are alphabetic or white space to `char`, and no letters or separators to AWS.
    for bad in [
        "e\u{301}",
        "\u{345}",
        "\u{93e}",
        "\u{e31}",
        "Ⓐ",
        "\u{85}",
        "\t",
        "\u{200d}",
        "\u{202e}a",
        "🦀",
        "#",
        "a\n",
    ] {
        assert!(!claims::is_tag_text(bad), "{bad:?}");
        assert!(matches!(
            fill(&tags(&[("Team", "${pod.labels['team']}")]), &[("team", bad)]),
            Err(ClaimsError::Value { .. })
        ));
        assert!(matches!(fill(&tags(&[(bad, "a")]), &[]), Err(ClaimsError::Key { .. })));
    }
}

fn context(key: &str, text: &str) -> Claims {
    Claims {
        context: templates(&[(key, text)]),
        ..Claims::default()
    }
}

fn identity(text: &str) -> Claims {
    Claims {
        source_identity: Some(text.parse().unwrap()),
        ..Claims::default()
    }
}

fn transitive(keys: &[&str]) -> Claims {
    Claims {
        transitive_tag_keys: keys.iter().map(|key| (*key).into()).collect(),
        ..tags(&[("Team", "a")])
    }
}

#[test]
fn each_value_that_aws_would_refuse_is_refused_and_its_key_is_named() {
    let label = "${pod.labels['l']}";
    let long = "v".repeat(200_000);
    let eleven: Vec<String> = (0..11).map(|number| format!("k{number}")).collect();
    let eleven: Vec<(&str, &str)> = eleven.iter().map(|key| (&**key, "v")).collect();
    let eleven = Claims {
        context: templates(&eleven),
        ..Claims::default()
    };
    for (bad, value, text) in [
        (tags(&[("", "v")]), "", "principalTags has the key \"\""),
        (tags(&[("a#", "v")]), "", "principalTags has the key \"a#\""),
        (tags(&[("aws:a", "v")]), "", "principalTags has the key \"aws:a\""),
        (tags(&[("AWS:a", "v")]), "", "principalTags has the key \"AWS:a\""),
        (tags(&[(&"k".repeat(129), "v")]), "", "principalTags has the key \"kkk"),
        (tags(&[("team", label)]), "\"},\"admin\":[\"true", "principalTags[team]"),
        (tags(&[("team", label)]), "a\nb", "principalTags[team]"),
        (tags(&[("team", label)]), "a\u{0}", "principalTags[team]"),
        (tags(&[("team", label)]), "aws:b", "principalTags[team]"),
        (tags(&[("team", label)]), long.as_str(), "principalTags[team]"),
        (tags(&[("team", &"v".repeat(257))]), "", "principalTags[team]"),
        (transitive(&["team"]), "", "transitiveTagKeys has the key \"team\""),
        (
            transitive(&["Team", "Team"]),
            "",
            "transitiveTagKeys has the key \"Team\": it should be there once",
        ),
        (identity(label), "a", "sourceIdentity would be \"a\""),
        (identity(label), "system:serviceaccount:a:b", "sourceIdentity"),
        (identity(&"i".repeat(65)), "", "sourceIdentity"),
        (identity(label), "a\" b", "sourceIdentity"),
        (context("te am", "v"), "", "context has the key \"te am\""),
        (context(&"k".repeat(118), "v"), "", "context has the key"),
        (context("team", &"v".repeat(129)), "", "context[team]"),
        (context("team", label), "a\u{7}", "context[team]"),
        (context("team", label), "quotes \" and {braces}", "context[team]"),
        (eleven, "", "context has 11 keys"),
    ] {
        let error = refused(&bad, &[("l", value)]);
        assert!(error.contains(text), "{error}");
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}

#[test]
fn the_longest_values_that_aws_takes_are_filled_in() {
    for good in [
        tags(&[("Tëam_.:/=+-@ 1", "Wert mit Leerzeichen")]),
        tags(&[(&"k".repeat(128), &"ü".repeat(256))]),
        transitive(&["Team"]),
        context(&"k".repeat(64), &"v".repeat(128)),
        identity(&"i".repeat(64)),
    ] {
        let filled = fill(&good, &[]);
        assert!(filled.is_ok(), "{filled:?}");
    }
}

#[test]
fn claims_that_would_make_a_token_longer_than_aws_takes_are_refused() {
    let value = "${namespace.labels['cost-center']}".to_owned() + &"v".repeat(254);
    let keys: Vec<String> = (0..50).map(|number| format!("{number:05}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (&**key, &*value)).collect();

    assert_eq!(fill(&tags(&many), &[]), Err(ClaimsError::TooLong));
    assert!(fill(&tags(&many[..40]), &[]).is_ok());
}

#[test]
fn what_a_policy_demands_of_a_token_names_the_policy() {
    let mut policy = policy("orders");
    policy.uid = Some("1-2-3".into());
    policy.token.subject_format = SubjectFormat::Policy;
    policy.claims = Arc::new(tags(&[("Team", "core")]));

    let claims = TokenClaims::of(&policy);

    assert_eq!(claims.policy_uid.as_deref(), Some("1-2-3"));
    assert_eq!(
        claims.subject("shop", "sa", Some(&"eu".parse().unwrap())),
        "eu/tokenscope:tsp:shop:orders:sa"
    );
    assert_eq!(claims.claims, policy.claims);
}

proptest! {
    #[test]
    fn what_is_filled_in_keeps_every_rule(value in ".{0,300}", text in "[a-z:/. ]{0,40}") {
        let template = format!("{text}${{pod.labels['l']}}");
        let claims = Claims {
            principal_tags: templates(&[("Tag", &template)]),
            context: templates(&[("key", &template)]),
            source_identity: Some(template.parse().unwrap()),
            ..Claims::default()
        };
        if let Ok(filled) = fill(&claims, &[("l", &value)]) {
            let tag = &filled.principal_tags["Tag"];
            prop_assert_eq!(&**tag, format!("{text}{value}"));
            prop_assert!(tag.chars().count() <= 256 && claims::is_tag_text(tag));
            prop_assert!(claims::fits_session_name(filled.source_identity.as_deref().unwrap()));
            prop_assert!((1..=128).contains(&filled.context["tokenscope_key"].len()));
        }
    }
}
