//! From boundaries as a watch delivers them to the rule's own, whatever their shape.

use kube::core::DynamicObject;
use serde_json::{Value, json};
use tokenscope_core::{Boundary, InvalidPolicy, Signer, TokenExpiration, TokenSource};
use tokenscope_crds::read;

fn boundary(spec: &Value) -> Result<Boundary, InvalidPolicy> {
    let (name, boundary) = read::boundary(&watched(spec));
    assert_eq!(&*name, "core");
    boundary
}

#[expect(
    clippy::unwrap_used,
    reason = "an object of any shape can be watched, which is the point"
)]
fn watched(spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "core"}, "spec": spec,
    }))
    .unwrap()
}

const READ_ONLY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const ROLES: &str = "arn:aws:iam::111122223333:role/shop/*";

#[test]
fn every_field_of_a_boundary_arrives() {
    let found = boundary(&json!({
        "namespaceSelector": {"matchLabels": {"team": "core"}},
        "roles": [ROLES],
        "audiences": ["sts.amazonaws.com"],
        "maxExpirationSeconds": 900,
        "sources": ["ServiceAccount", "Issuer", "AWS"],
        "claims": {"principalTags": {"Team": "${namespace.labels['team']}"}, "transitiveTagKeys": ["Team"]},
        "outboundAudiences": ["https://api.anthropic.com"],
        "sessionPolicy": {"inline": "{}", "arns": [READ_ONLY]},
    }))
    .unwrap();

    assert_eq!(found.namespace_selector.0.len(), 1);
    assert_eq!(found.roles[0].as_str(), ROLES);
    assert_eq!(found.audiences[0].as_str(), "sts.amazonaws.com");
    assert_eq!(
        found.outbound_audiences.as_ref().unwrap()[0].as_str(),
        "https://api.anthropic.com"
    );
    let sessions = found.session_policy.as_ref().unwrap();
    assert_eq!(sessions.inline.as_ref().unwrap().as_str(), "{}");
    assert_eq!(sessions.arns[0].as_str(), READ_ONLY);
    assert_eq!(found.max_expiration, TokenExpiration::from_seconds(900).ok());
    assert_eq!(
        found.sources,
        [
            TokenSource::ServiceAccount.into(),
            TokenSource::Issuer.into(),
            Signer::Aws
        ]
    );
    assert_eq!(
        found.claims.unwrap().principal_tags["Team"].as_str(),
        "${namespace.labels['team']}"
    );
}

#[test]
fn claims_that_are_left_out_are_any_and_an_empty_object_is_none() {
    assert_eq!(boundary(&json!({"roles": [ROLES]})).unwrap().claims, None);
    let none = boundary(&json!({"roles": [ROLES], "claims": {}})).unwrap().claims;
    assert!(none.is_some_and(|claims| claims.is_empty()));
}

#[test]
fn a_field_of_a_newer_version_is_an_error_and_no_limit_that_is_passed_over() {
    let with = |part: &str, value: Value| {
        let mut spec = json!({"roles": [ROLES]});
        spec[part] = value;
        spec
    };
    let requirement = json!({"key": "team", "operator": "Exists"});
    assert!(boundary(&with("namespaceSelector", json!({"matchExpressions": [requirement]}))).is_ok());
    let mut newer = requirement;
    newer["newer"] = json!(true);
    for (spec, field) in [
        (with("newer", json!([])), "spec.newer"),
        (
            with("sessionPolicy", json!({"inline": "{}", "newer": 1})),
            "spec.sessionPolicy.newer",
        ),
        (with("claims", json!({"newer": {}})), "spec.claims.newer"),
        (
            with("namespaceSelector", json!({"newer": "x"})),
            "spec.namespaceSelector.newer",
        ),
        (
            with("namespaceSelector", json!({"matchExpressions": [newer]})),
            "spec.namespaceSelector.matchExpressions[0].newer",
        ),
    ] {
        let error = boundary(&spec).unwrap_err();
        assert_eq!(error.field, field, "{spec}");
        assert!(error.reason.contains("upgrade the chart tokenscope"), "{error}");
    }
    // Keys that people choose are no fields.
    assert!(boundary(&with("claims", json!({"principalTags": {"newer": "x"}}))).is_ok());
    assert!(boundary(&with("namespaceSelector", json!({"matchLabels": {"newer": "x"}}))).is_ok());
}

#[test]
fn a_boundary_that_is_wrong_is_an_error_that_names_the_field() {
    for (spec, field) in [
        (json!({}), "spec"),
        (json!([]), "spec"),
        (json!({"roles": []}), "spec.roles"),
        (json!({"roles": ["*"]}), "spec.roles[0]"),
        (
            json!({"roles": [ROLES], "namespaceSelector": []}),
            "spec.namespaceSelector",
        ),
        (json!({"roles": [ROLES], "claims": []}), "spec.claims"),
        (
            json!({"roles": [ROLES], "maxExpirationSeconds": 60}),
            "spec.maxExpirationSeconds",
        ),
        (json!({"roles": [ROLES], "sources": ["Vault"]}), "spec.sources[0]"),
        (json!({"roles": [ROLES], "audiences": ["a b"]}), "spec.audiences[0]"),
        (
            json!({"roles": [ROLES], "outboundAudiences": ["a b"]}),
            "spec.outboundAudiences[0]",
        ),
        (json!({"roles": [ROLES], "sessionPolicy": {}}), "spec.sessionPolicy"),
        (
            json!({"roles": [ROLES], "sessionPolicy": {"arns": []}}),
            "spec.sessionPolicy",
        ),
        (json!({"roles": [ROLES], "sessionPolicy": []}), "spec.sessionPolicy"),
        (
            json!({"roles": [ROLES], "sessionPolicy": {"inline": "[]"}}),
            "spec.sessionPolicy.inline",
        ),
        (
            json!({"roles": [ROLES], "sessionPolicy": {"arns": [ROLES]}}),
            "spec.sessionPolicy.arns[0]",
        ),
        (
            json!({"roles": [ROLES], "claims": {"principalTags": {"aws:x": "a"}}}),
            "spec.claims.principalTags[aws:x]",
        ),
    ] {
        assert_eq!(boundary(&spec).unwrap_err().field, field, "{spec}");
    }
}
