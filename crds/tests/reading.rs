//! From objects as a watch delivers them to policies, whatever their shape.

mod policies;

use kube::core::{DynamicObject, ObjectList};
use policies::{GOOD, bad, longest, too_long};
use serde_json::{Value, json};
use tokenscope_core::{
    Algorithm, Audience, Glob, InvalidPolicy, OnExpiry, Policy, PolicyName, SelectorOperator, SubjectFormat,
    TokenExpiration, TokenSource,
};
use tokenscope_crds::read;
use tokenscope_crds::v1alpha1::{ClusterTokenScopePolicy, PolicyStatus, TokenScopePolicy};

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec,
    })
}

fn cluster_object(spec: &Value) -> Value {
    json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy",
        "metadata": {"name": "orders"}, "spec": spec,
    })
}

fn policy(object: Value) -> Result<Policy, InvalidPolicy> {
    read::read(&watched(object)).1
}

#[expect(
    clippy::unwrap_used,
    reason = "an object of any shape can be watched, which is the point"
)]
fn watched(object: Value) -> DynamicObject {
    serde_json::from_value(object).unwrap()
}

#[test]
fn what_the_api_server_accepts_is_a_policy() {
    for (case, spec) in GOOD {
        let spec: Value = serde_saphyr::from_str(spec).unwrap();

        assert!(policy(object(&spec)).is_ok(), "{case}: {:?}", policy(object(&spec)));
        assert!(policy(cluster_object(&spec)).is_ok(), "{case}");
    }
}

#[test]
fn what_the_api_server_refuses_is_none_and_the_error_names_the_same_field() {
    for (case, spec, (field, _)) in bad() {
        // A role that is there twice changes nothing.
        if *case == "the same role twice" {
            continue;
        }
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        for object in [object(&spec), cluster_object(&spec)] {
            let error = policy(object).expect_err(case);
            assert!(
                error.field.starts_with(field) || field.starts_with(&error.field),
                "{case}: {error} should be about {field}"
            );
        }
    }
}

#[test]
fn every_field_arrives() {
    let (_, spec) = GOOD.iter().find(|(case, _)| case.starts_with("everything")).unwrap();
    let spec = serde_saphyr::from_str(spec).unwrap();
    let policy = policy(object(&spec)).unwrap();

    assert_eq!(policy.name, PolicyName::namespaced("shop", "orders"));
    assert_eq!(policy.subjects.len(), 2);
    assert_eq!(
        policy.subjects[0].to_string(),
        "service account orders or orders-* with pod labels app=orders, example.com/team=, tier in (web,batch), !canary"
    );
    assert_eq!(policy.subjects[1].to_string(), "any service account");
    assert_eq!(
        policy.roles.allowed[0].as_str(),
        "arn:aws:iam::111122223333:role/shop/*"
    );
    assert_eq!(
        policy.roles.default.unwrap().as_str(),
        "arn:aws:iam::111122223333:role/shop/orders"
    );
    assert_eq!(policy.audiences.allowed.len(), 2);
    assert_eq!(policy.audiences.default, Some(Audience::sts()));
    assert_eq!(policy.token.source, TokenSource::Issuer);
    assert_eq!(policy.token.expiration, TokenExpiration::from_seconds(600).unwrap());
    assert_eq!(policy.token.algorithm, Algorithm::ES384);
    assert_eq!(policy.token.subject_format, SubjectFormat::Policy);
    assert_eq!(
        policy.claims.principal_tags["Team"].as_str(),
        "${pod.labels['example.com/team']}"
    );
    assert_eq!(*policy.claims.transitive_tag_keys, ["Team".into()]);
    assert_eq!(
        policy.claims.source_identity.as_ref().unwrap().as_str(),
        "${namespace}.${serviceAccount}"
    );
    assert_eq!(
        policy.claims.context["team"].as_str(),
        "${pod.labels['example.com/team']}"
    );
    assert_eq!(policy.claims.context["Stage_2"].as_str(), "a constant, (1)");
    assert_eq!(policy.aws.region.unwrap().as_str(), "eu-central-1");
    assert_eq!(policy.aws.sts_regional_endpoints, Some(true));
    assert_eq!(policy.aws.role_session_name.unwrap().as_str(), "${pod.name}");
    assert_eq!(policy.containers.include, [Glob::new("app"), Glob::new("worker-*")]);
    assert_eq!(policy.containers.exclude, [Glob::new("*-proxy")]);
    assert!(policy.disabled && policy.fallback);
    assert_eq!(policy.expires_at.unwrap().to_string(), "2026-12-31T23:00:00Z");
    assert_eq!(
        policy.active_schedule.unwrap().to_string(),
        r#""0 8 * * 1-5" for 10h in Europe/Berlin"#
    );
}

#[test]
fn what_is_left_out_has_the_schemas_default() {
    let policy = policy(object(&json!({"roles": {"default": ROLE}}))).unwrap();

    assert_eq!(policy.token.source, TokenSource::ServiceAccount);
    assert_eq!(policy.token.expiration, TokenExpiration::HOUR);
    assert!(policy.subjects.is_empty() && policy.claims.is_empty() && !policy.disabled && !policy.fallback);
}

#[test]
fn a_cluster_policy_has_its_namespace_selector_and_a_namespaced_one_none() {
    let spec = json!({
        "roles": {"default": ROLE},
        "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
    });

    let cluster = policy(cluster_object(&spec)).unwrap();
    assert_eq!(cluster.name, PolicyName::cluster("orders"));
    assert_eq!(cluster.namespace_selector.0[0].operator, SelectorOperator::Exists);
    assert!(policy(object(&spec)).unwrap().namespace_selector.0.is_empty());
}

#[test]
fn the_typed_object_and_the_watched_one_give_the_same() {
    for (_, spec) in GOOD {
        let spec: Value = serde_saphyr::from_str(spec).unwrap();
        let typed: TokenScopePolicy = serde_json::from_value(object(&spec)).unwrap();
        assert_eq!(typed.policy(), policy(object(&spec)));

        let typed: ClusterTokenScopePolicy = serde_json::from_value(cluster_object(&spec)).unwrap();
        assert_eq!(typed.policy(), policy(cluster_object(&spec)));
    }
}

#[test]
fn a_malformed_object_is_an_error_of_its_own_and_the_list_goes_on() {
    let good = json!({"roles": {"default": ROLE}});
    let malformed = [
        (json!(null), "spec"),
        (json!("text"), "spec"),
        (json!({}), "spec"),
        (json!({"roles": {"allowed": ROLE}}), "spec.roles.allowed"),
        (json!({"roles": {"allowed": [ROLE, 7]}}), "spec.roles.allowed[1]"),
        (
            json!({"roles": {"default": ROLE}, "token": {"expirationSeconds": "1h"}}),
            "spec.token.expirationSeconds",
        ),
        (
            json!({"roles": {"default": ROLE}, "token": {"source": "Vault"}}),
            "spec.token.source",
        ),
        (
            json!({"roles": {"default": ROLE}, "subjects": [{}, {"podSelector": {"matchLabels": {"a": 1}}}]}),
            "spec.subjects[1].podSelector.matchLabels.a",
        ),
        (json!([]), "spec"),
        (json!({"roles": {"default": ROLE}, "token": []}), "spec.token"),
        (
            json!({"roles": {"default": ROLE}, "subjects": [[]]}),
            "spec.subjects[0]",
        ),
        (
            json!({"roles": {"default": ROLE}, "subjects": [{"podSelector": []}]}),
            "spec.subjects[0].podSelector",
        ),
    ];
    let mut items = vec![object(&good)];
    items.extend(malformed.iter().map(|(spec, _)| object(spec)));
    items.push(
        json!({"apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "bare"}}),
    );
    items.push(object(&good));
    let list =
        json!({"apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicyList", "metadata": {}, "items": items});

    let list: ObjectList<DynamicObject> = serde_json::from_value(list).unwrap();
    let policies: Vec<_> = list.items.iter().map(|object| read::read(object).1).collect();

    assert!(policies.first().unwrap().is_ok() && policies.last().unwrap().is_ok());
    for ((spec, field), policy) in malformed.iter().zip(&policies[1..]) {
        assert_eq!(policy.as_ref().unwrap_err().field, *field, "{spec}");
    }
    assert!(policies[malformed.len() + 1].is_err());
}

#[test]
fn a_list_in_place_of_any_object_of_the_schema_is_refused_by_its_path() {
    let [_, cluster, _] = tokenscope_crds::definitions().unwrap();
    let definition = serde_json::to_value(cluster).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut tried = 0;
    for (path, spec) in with_a_list_for_each_object(schema) {
        let path = format!("spec{path}");
        let error = policy(cluster_object(&spec)).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.reason.as_str()),
            (path.as_str(), "should be an object, not a list")
        );
        tried += 1;
    }
    assert!(tried > 15, "only {tried} objects were found in the schema");
}

/// Values of a schema, each with an empty list where one object should be, and where that is.
fn with_a_list_for_each_object(schema: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match schema["type"].as_str() {
        Some("object") => {
            all.push((String::new(), json!([])));
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let inner = with_a_list_for_each_object(field).into_iter();
                all.extend(inner.map(|(path, value)| (format!(".{name}{path}"), json!({ name.as_str(): value }))));
            }
        }
        Some("array") => {
            let inner = with_a_list_for_each_object(&schema["items"]).into_iter();
            all.extend(inner.map(|(path, value)| (format!("[0]{path}"), json!([value]))));
        }
        _ => {}
    }
    all
}

#[test]
fn a_malformed_namespace_selector_never_selects_everything() {
    let spec = json!({"roles": {"default": ROLE}, "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});

    let error = policy(cluster_object(&spec)).unwrap_err();
    assert_eq!(error.field, "spec.namespaceSelector.matchExpressions[0].operator");

    for selector in [json!("shop"), json!([]), json!([[], []])] {
        let spec = json!({"roles": {"default": ROLE}, "namespaceSelector": selector});
        let error = policy(cluster_object(&spec)).unwrap_err();
        assert_eq!(error.field, "spec.namespaceSelector");
    }
}

#[test]
fn a_malformed_status_is_an_empty_one_and_the_policy_holds() {
    let mut object = object(&json!({"roles": {"default": ROLE}}));
    object["status"] = json!({"matchedPods": "many"});
    let object = watched(object);

    assert_eq!(read::status(&object), PolicyStatus::default());
    assert!(read::read(&object).1.is_ok());
}

#[test]
fn a_status_reads_back_as_it_was_written() {
    let status = json!({"observedGeneration": 3, "generationObservedAt": "2026-11-22T08:00:00Z", "missedPods": 1});
    let mut object = object(&json!({}));
    object["status"] = status.clone();
    let object = watched(object);

    assert_eq!(serde_json::to_value(read::status(&object)).unwrap(), status);
}

#[test]
fn both_kinds_are_watched_under_their_own_names() {
    let [namespaced, cluster] = read::resources();

    assert_eq!(
        (&*namespaced.plural, &*namespaced.kind),
        ("tokenscopepolicies", "TokenScopePolicy")
    );
    assert_eq!(
        (&*cluster.plural, &*cluster.kind),
        ("clustertokenscopepolicies", "ClusterTokenScopePolicy")
    );
    assert_eq!(cluster.api_version, "tokenscope.io/v1alpha1");
}

#[test]
fn the_longest_policy_of_the_schema_is_within_the_bound_of_what_is_read() {
    let namespaced = longest(false).map(|spec| (object(&spec), spec));
    let cluster = longest(true).map(|spec| (cluster_object(&spec), spec));
    for (object, spec) in namespaced.into_iter().chain(cluster) {
        let bytes = spec.to_string().len();
        assert!(bytes < read::MOST_SPEC_BYTES, "{bytes}");
        assert_eq!(policy(object).map(drop), Ok(()));
    }
    for (spec, (field, _)) in too_long() {
        assert!(
            policy(object(&spec)).is_ok(),
            "only the schema bounds the parts, and this is about {field}"
        );
    }
}

#[test]
fn a_stored_policy_that_is_larger_than_the_bound_grants_nothing_and_the_reason_says_so() {
    let text = "x".repeat(1_200_000);
    let error = policy(object(
        &json!({"roles": {"default": ROLE}, "description": text, "unknown": text}),
    ))
    .unwrap_err();

    assert!(
        error
            .to_string()
            .starts_with("spec: should have at most 32768 bytes of JSON, not 24000"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_a_policy_is_said_in_bounded_length() {
    let text = "ä".repeat(10_000);
    for spec in [
        json!({"roles": {"default": ROLE}, "token": {"source": text}}),
        json!({"roles": {"default": text}}),
        json!({"roles": {"default": ROLE}, "aws": {"roleSessionName": text}}),
        json!({"roles": {"default": ROLE}, "token": {"source": "Issuer"}, "claims": {"principalTags": {text: "x"}}}),
    ] {
        let error = policy(object(&spec)).unwrap_err().to_string();
        assert!(error.len() <= 1024, "{} bytes", error.len());
    }
}

#[test]
fn what_becomes_of_running_pods_is_read_and_they_stay_unless_it_is_said() {
    let on_expiry = |spec: Value| policy(object(&spec)).map(|policy| policy.on_expiry);

    assert_eq!(on_expiry(json!({"roles": {"default": ROLE}})), Ok(OnExpiry::Keep));
    assert_eq!(
        on_expiry(json!({"roles": {"default": ROLE}, "onExpiry": "Evict"})),
        Ok(OnExpiry::Evict)
    );
    assert!(on_expiry(json!({"roles": {"default": ROLE}, "onExpiry": "evict"})).is_err());
}
