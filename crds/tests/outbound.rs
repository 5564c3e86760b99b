//! Tokens for third parties from a policy's object to the rule's own policy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

#[allow(dead_code, unused_imports, reason = "each test file uses its own part of it")]
mod policies;

use kube::core::DynamicObject;
use policies::GOOD;
use serde_json::{Value, json};
use tokenscope_core::outbound::{AwsAlgorithm, AwsSubject, OutboundSource, OutboundToken, OutboundValue};
use tokenscope_core::{InvalidPolicy, Policy, TokenExpiration};
use tokenscope_crds::read;

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

fn stored(object: Value) -> DynamicObject {
    serde_json::from_value(object).unwrap()
}

fn policy(spec: &Value) -> Result<Policy, InvalidPolicy> {
    let object = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec,
    });
    read::read(&stored(object)).1
}

#[test]
fn every_field_of_a_token_for_a_third_party_arrives() {
    let (_, spec) = GOOD
        .iter()
        .find(|(case, _)| case.starts_with("tokens for third"))
        .unwrap();
    let policy = policy(&serde_saphyr::from_str(spec).unwrap()).unwrap();

    let [claude, data, plain] = &*policy.outbound else {
        panic!("{:?}", policy.outbound)
    };
    let variables = |token: &OutboundToken| -> Vec<(String, OutboundValue)> {
        let variables = token.variables.iter();
        variables
            .map(|variable| (variable.name.to_string(), variable.value.clone()))
            .collect()
    };
    assert_eq!(
        (claude.name.as_str(), claude.audience.as_str()),
        ("claude", "https://api.anthropic.com")
    );
    assert_eq!(
        (claude.source.clone(), claude.expiration),
        (OutboundSource::ServiceAccount, TokenExpiration::HOUR)
    );
    assert_eq!(
        variables(claude),
        [
            ("ANTHROPIC_IDENTITY_TOKEN_FILE".to_owned(), OutboundValue::File),
            (
                "ANTHROPIC_FEDERATION_RULE_ID".to_owned(),
                OutboundValue::Text("fdrl_1 $(X) 'a'".into())
            ),
            ("MY_AUDIENCE".to_owned(), OutboundValue::Audience),
        ]
    );
    assert_eq!(
        (&data.source, data.expiration.seconds()),
        (&OutboundSource::Issuer, 900)
    );
    assert_eq!(
        variables(data),
        [
            ("DATABRICKS_OIDC_TOKEN_FILEPATH".to_owned(), OutboundValue::File),
            (
                "DATABRICKS_AUTH_TYPE".to_owned(),
                OutboundValue::Text("file-oidc".into())
            ),
        ]
    );
    assert_eq!(variables(plain), [("MY_TOKEN_FILE".to_owned(), OutboundValue::File)]);
}

#[test]
fn each_party_that_has_a_preset_is_told_by_the_variables_of_its_own_sdk() {
    let (_, spec) = GOOD
        .iter()
        .find(|(case, _)| case.starts_with("a token for each party"))
        .unwrap();
    let policy = policy(&serde_saphyr::from_str(spec).unwrap()).unwrap();
    let told: Vec<Vec<(&str, &OutboundValue)>> = policy
        .outbound
        .iter()
        .map(|token| {
            let variables = token.variables.iter();
            variables
                .map(|variable| (variable.name.as_str(), &variable.value))
                .collect()
        })
        .collect();
    let text = |value: &str| OutboundValue::Text(value.into());
    let file = &OutboundValue::File;
    assert_eq!(
        told,
        [
            vec![("ANTHROPIC_IDENTITY_TOKEN_FILE", file)],
            vec![("AZURE_FEDERATED_TOKEN_FILE", file)],
            vec![
                ("DATABRICKS_OIDC_TOKEN_FILEPATH", file),
                ("DATABRICKS_AUTH_TYPE", &text("file-oidc")),
            ],
            vec![
                ("SNOWFLAKE_TOKEN_FILE_PATH", file),
                ("SNOWFLAKE_AUTHENTICATOR", &text("WORKLOAD_IDENTITY")),
                ("SNOWFLAKE_WORKLOAD_IDENTITY_PROVIDER", &text("OIDC")),
            ],
            vec![("VAULT_JWT_FILE", file)],
        ]
    );
}

#[test]
fn what_aws_is_asked_for_arrives_and_is_rs256_for_the_role_where_nothing_is_said() {
    let (_, spec) = GOOD
        .iter()
        .find(|(case, _)| case.starts_with("tokens that AWS signs"))
        .unwrap();
    let policy = policy(&serde_saphyr::from_str(spec).unwrap()).unwrap();
    let asked: Vec<(AwsAlgorithm, AwsSubject, u32)> = policy
        .outbound
        .iter()
        .map(|token| {
            let aws = token.aws().unwrap().clone();
            (aws.algorithm, aws.subject, token.expiration.seconds())
        })
        .collect();
    let scope = "orders:read [x]-~ !".parse().ok();
    assert_eq!(
        asked,
        [
            (AwsAlgorithm::RS256, AwsSubject::Role, 3600),
            (AwsAlgorithm::ES384, AwsSubject::Role, 600),
            (AwsAlgorithm::RS256, AwsSubject::Origin { scope }, 3600),
            (AwsAlgorithm::RS256, AwsSubject::Role, 3600),
        ]
    );
}

#[test]
fn a_scope_that_is_there_twice_is_refused() {
    let token = json!([{"name": "a", "audience": "b", "source": "AWS", "aws": {"subjectMode": "OriginIdentity", "scope": "read read"}}]);
    let spec = json!({"roles": {"default": ROLE}, "delivery": {"type": "Endpoint"}, "outboundTokens": token});
    let error = policy(&spec).unwrap_err().to_string();
    assert!(
        error.contains("spec.outboundTokens[0].aws.scope") && error.contains("none twice"),
        "{error}"
    );
}

#[test]
fn a_name_or_variable_that_is_there_twice_is_refused() {
    for (tokens, right) in [
        (
            json!([{"name": "a", "audience": "x"}, {"name": "a", "audience": "y"}]),
            "spec.outboundTokens[1].name: should be there once",
        ),
        (
            json!([{"name": "a", "audience": "x", "preset": "Azure"}, {"name": "b", "audience": "y", "preset": "Azure"}]),
            "spec.outboundTokens[1].env: AZURE_FEDERATED_TOKEN_FILE should be there once in all tokens",
        ),
        (
            json!([{"name": "a", "audience": "x", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]),
            "spec.outboundTokens[0].env: A should be there once",
        ),
    ] {
        let error = policy(&json!({"roles": {"default": ROLE}, "outboundTokens": tokens})).unwrap_err();
        assert!(error.to_string().contains(right), "{error}");
    }
}
