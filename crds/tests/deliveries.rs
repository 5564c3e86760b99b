//! What a policy says of the way in which credentials reach the SDK, as the rule reads it.

#![allow(
    dead_code,
    unused_imports,
    clippy::panic,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "other tests use more of the policies, and this is test code"
)]

mod policies;

use policies::GOOD;
use serde_json::{Value, json};
use tokenscope_core::delivery::{Delivery, SessionDuration};
use tokenscope_core::{InvalidPolicy, Policy, Region};
use tokenscope_crds::read;

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

fn policy(spec: &Value) -> Result<Policy, InvalidPolicy> {
    let object = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec,
    });
    read::read(&serde_json::from_value(object).unwrap()).1
}

#[test]
fn every_field_of_a_delivery_arrives() {
    let (_, spec) = GOOD
        .iter()
        .find(|(case, _)| case.starts_with("a config file with a role"))
        .unwrap();
    let policy = policy(&serde_saphyr::from_str(spec).unwrap()).unwrap();

    let [first, second] = &*policy.aws.role_chain else {
        panic!("{:?}", policy.aws.role_chain)
    };
    assert_eq!(first.role.account(), "444455556666");
    assert_eq!(first.external_id.as_ref().unwrap().as_str(), "7f:3e/a=@b,c.d+e-_");
    assert_eq!(first.session_name.as_ref().unwrap().as_str(), "${namespace}.x");
    assert_eq!((&second.external_id, &second.session_name), (&None, &None));
    let Delivery::Profile(profiles) = &policy.delivery else {
        panic!("{:?}", policy.delivery)
    };
    assert_eq!(profiles[0].name.as_str(), "reports");
    assert_eq!(profiles[0].region.as_str(), "us-east-1");
    assert_eq!(profiles[0].role.as_ref().unwrap().path_and_name(), "reports");
    assert_eq!((profiles[1].role.as_ref(), profiles[1].chain.len()), (None, 1));
}

#[test]
fn every_field_of_an_endpoint_arrives() {
    let (_, spec) = GOOD
        .iter()
        .find(|(case, _)| case.starts_with("credentials that a sidecar serves"))
        .unwrap();
    let policy = policy(&serde_saphyr::from_str(spec).unwrap()).unwrap();

    assert_eq!(policy.aws.role_chain.len(), 1);
    let Delivery::Endpoint(endpoint) = &policy.delivery else {
        panic!("{:?}", policy.delivery)
    };
    let regions: Vec<_> = endpoint.regions.iter().map(Region::as_str).collect();
    assert_eq!(regions, ["eu-central-1", "eu-west-1"]);
    assert_eq!(endpoint.duration, Some(SessionDuration::HOUR));
    assert!(
        endpoint
            .policy
            .inline
            .as_ref()
            .unwrap()
            .as_str()
            .contains("s3:GetObject")
    );
    assert_eq!(
        endpoint.policy.arns[1].as_str(),
        "arn:aws:iam::111122223333:policy/shop/orders"
    );
}

#[test]
fn tokens_are_given_by_audience_where_the_field_says_so() {
    for (endpoint, gives) in [(json!({"aporetoTokens": true}), true), (json!({}), false)] {
        let spec = json!({"roles": {"default": ROLE}, "token": {"source": "Issuer"}, "delivery": {"type": "Endpoint", "endpoint": endpoint}});
        let Delivery::Endpoint(endpoint) = policy(&spec).unwrap().delivery else {
            panic!("it is served");
        };
        assert_eq!(endpoint.gives_tokens, gives);
    }
}

#[test]
fn a_document_that_only_looks_like_a_json_object_is_none() {
    let spec = json!({"roles": {"default": ROLE}, "delivery": {"type": "Endpoint"}, "aws": {"sessionPolicy": {"inline": "{Version}"}}});
    let error = policy(&spec).unwrap_err();
    assert_eq!(error.field, "spec.aws.sessionPolicy.inline");
    assert!(error.reason.starts_with("should be a JSON object: "), "{error}");
}
