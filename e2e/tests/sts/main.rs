//! The stand-in for AWS and our own client of STS, each judged by Amazon's client for Python and by one another; the client by
//! MiniStack, too.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod boto3;
mod botocore;
mod client;
mod ministack;
mod regions;
mod tag_documents;

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};
use tokenscope_aws::{AssumeRole, Credentials, Secret, SessionPolicyParameters};
use tokenscope_core::RoleArn;
use tokenscope_sts::{OutboundFederation, Permissions, Role, Server, StsConfig, User};

/// A user with keys of her own, who starts every chain.
const ANN: &str = "arn:aws:iam::111122223333:user/ann";
const KEY: (&str, &str) = ("AKIAANNANNANNANNANNA", "of-a-test-only");

/// A role of her account.
const NEAR: &str = "arn:aws:iam::111122223333:role/shop/near";

/// A role of another account, which asks for an external id.
const FAR: &str = "arn:aws:iam::444455556666:role/far";
const EXTERNAL_ID: &str = "e-2";

/// The issuer of the first account's outbound tokens.
const ISSUER: &str = "https://0d2f7a5c-0000-4000-8000-000000000001.tokens.sts.global.api.aws";

const REGION: &str = "eu-central-1";

fn ann() -> Credentials {
    Credentials {
        access_key_id: KEY.0.into(),
        secret_access_key: Secret::new(KEY.1),
        session_token: None,
    }
}

/// A call for a role, with nothing that may be left out.
fn plain_call(role: &RoleArn) -> AssumeRole<'_> {
    AssumeRole {
        role,
        session_name: "pod-1",
        external_id: None,
        duration_seconds: None,
        session_policy: SessionPolicyParameters::default(),
        tags: &[],
        transitive_tag_keys: &[],
        source_identity: None,
    }
}

/// The stand-in with both roles.
async fn stand_in() -> Result<Server> {
    let all = json!(["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]);
    let trusting = |arn: &str, principal: &str, condition: &Value| Role {
        arn: arn.to_owned(),
        trust_policy: json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": principal}, "Action": all, "Condition": condition}]}),
        max_session_duration: 3600,
    };
    let allow = |principal: &str, actions: &Value| Permissions {
        principal: principal.to_owned(),
        policies: vec![json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": actions, "Resource": "*"}]})],
        ..Permissions::default()
    };
    let config = StsConfig {
        users: vec![User {
            arn: ANN.to_owned(),
            access_key_id: KEY.0.to_owned(),
            secret_access_key: KEY.1.to_owned(),
        }],
        permissions: vec![allow(ANN, &all), allow(NEAR, &json!("sts:*"))],
        roles: vec![
            trusting(NEAR, ANN, &json!({})),
            trusting(FAR, NEAR, &json!({"StringEquals": {"sts:ExternalId": EXTERNAL_ID}})),
        ],
        outbound_federation: vec![OutboundFederation {
            account: "111122223333".to_owned(),
            issuer: ISSUER.to_owned(),
        }],
        ..StsConfig::default()
    };
    Ok(Server::start(config, SocketAddr::from(([127, 0, 0, 1], 0)), None).await?)
}

/// Runs a program of Python with the AWS SDK beside the servers of this process.
fn python(script: &str, variables: &[(&str, &str)], input: &Value) -> Result<Value> {
    tokio::task::block_in_place(|| tokenscope_e2e::boto3::run(script, variables, input))
}
