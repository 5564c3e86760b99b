//! The IAM documents that the status of a policy has, judged by the strict stand-in for STS.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokenscope_core::delivery::{Delivery, EndpointDelivery, RoleHop};
use tokenscope_core::outbound::{AwsAlgorithm, AwsSubject, AwsToken, OutboundSource, OutboundToken};
use tokenscope_core::{Claims, Policy, TokenExpiration, TokenSource, chained_roles, outbound_permissions};
use tokenscope_sts::{Permissions, Role};

use super::account::{Account, EXTERNAL_ID, FAR, NEAR};
use super::lab::Lab;
use super::outbound::{CLAUDE, claims, with_token};

/// A policy for the first role with a token for a third party, and so long in force from now.
fn policy(lasts: SignedDuration) -> Policy {
    let aws = AwsToken {
        algorithm: AwsAlgorithm::ES384,
        subject: AwsSubject::Role,
    };
    let mut policy = tokenscope_fixtures::policy("orders");
    policy.roles.allowed = vec![NEAR.parse().unwrap()];
    policy.delivery = Delivery::Endpoint(EndpointDelivery::default());
    policy.outbound = [OutboundToken {
        name: "claude".parse().unwrap(),
        audience: CLAUDE.parse().unwrap(),
        source: OutboundSource::Aws(aws),
        expiration: TokenExpiration::HOUR,
        variables: Vec::new(),
    }]
    .into();
    policy.expires_at = Some(Timestamp::now() + lasts);
    policy
}

/// The same with a chain to the role of the other account.
fn with_chain(lasts: SignedDuration) -> Policy {
    let mut policy = policy(lasts);
    policy.aws.role_chain = vec![RoleHop {
        role: FAR.parse().unwrap(),
        external_id: EXTERNAL_ID.parse().ok(),
        session_name: None,
    }];
    policy
}

/// The same whose tokens have this tag, and pass it on or not.
fn with_tag(key: &str, is_transitive: bool) -> Policy {
    let mut policy = with_chain(HOUR);
    policy.token.source = TokenSource::Issuer;
    policy.claims = Arc::new(Claims {
        principal_tags: [(key.into(), "core".parse().unwrap())].into(),
        transitive_tag_keys: is_transitive.then(|| key.into()).into_iter().collect(),
        ..Claims::default()
    });
    policy
}

/// From now on the roles may what the documents of the policy say, and nothing else.
fn follow(account: &Account, policy: &Policy) {
    let mut permissions: BTreeMap<String, Vec<Value>> = [NEAR, FAR].map(|role| (role.to_owned(), Vec::new())).into();
    for chained in chained_roles(policy) {
        if let Some(document) = &chained.permission_policy {
            let of_role = permissions.entry(chained.role.to_string()).or_default();
            of_role.push(serde_json::to_value(document).unwrap());
        }
        if let Some(document) = &chained.trust_policy {
            let role = Role {
                arn: chained.role.to_string(),
                trust_policy: serde_json::to_value(document).unwrap(),
                max_session_duration: 3600,
            };
            account.sts.set_role(&role).unwrap();
        }
    }
    for found in outbound_permissions(policy) {
        let of_role = permissions.entry(found.role.to_string()).or_default();
        of_role.push(serde_json::to_value(&found.permission_policy).unwrap());
    }
    for (principal, policies) in permissions {
        let of_role = Permissions {
            principal,
            policies,
            ..Permissions::default()
        };
        account.sts.set_permissions(of_role).unwrap();
    }
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const OVER: SignedDuration = SignedDuration::from_secs(-1);

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_taken_by_the_documents_of_the_policy_until_it_ends_on_either_side() {
    let account = Account::start().await;
    let mut lab = Lab::new("documents-chain", &["app"], &account.sts.url(), NEAR);
    lab.endpoint["containers"][0]["chain"] = json!([{"role": FAR, "externalId": EXTERNAL_ID}]);
    let file = with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    follow(&account, &with_chain(HOUR));
    let sidecar = lab.start();
    assert_eq!(sidecar.credentials("app")["RoleArn"], FAR);
    let token = sidecar.until("the token is there", || fs::read_to_string(&file).ok());
    assert_eq!(claims(&token)["sub"], FAR);
    drop(sidecar);

    follow(&account, &with_chain(OVER));
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:AssumeRole on");
    assert_eq!(lab.ask("app").status, 403);
    drop(sidecar);

    // The owner of the other account alone has pasted the document of a policy that is over.
    let trust = chained_roles(&with_chain(OVER)).pop().unwrap().trust_policy;
    follow(&account, &with_chain(HOUR));
    let role = Role {
        arn: FAR.to_owned(),
        trust_policy: serde_json::to_value(trust).unwrap(),
        max_session_duration: 3600,
    };
    account.sts.set_role(&role).unwrap();
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:AssumeRole on");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_go_through_a_chain_by_the_documents_of_a_policy_that_passes_them_on_and_no_others_do() {
    let account = Account::start().await;
    account.trust_tags();
    let mut lab = Lab::new("documents-tags", &["app"], &account.sts.url(), NEAR);
    lab.endpoint["containers"][0]["chain"] = json!([{"role": FAR, "externalId": EXTERNAL_ID}]);
    lab.write_token(&account.token_with_tags(&[("Team", "core")]));
    follow(&account, &with_tag("Team", true));
    let sidecar = lab.start();
    let body = sidecar.credentials("app");
    let session = account.sts.session(body["AccessKeyId"].as_str().unwrap()).unwrap();
    assert_eq!(
        session.arn,
        "arn:aws:sts::444455556666:assumed-role/far/orders-7d9f-x2x9p"
    );
    assert_eq!(json!(session.principal_tags), json!({"Team": "core"}));
    drop(sidecar);

    lab.write_token(&account.token_with_tags(&[("Team", "core"), ("Job", "7")]));
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:AssumeRole on");
    assert_eq!(lab.ask("app").status, 403);
    drop(sidecar);

    lab.write_token(&account.token_with_tags(&[("Team", "core")]));
    follow(&account, &with_tag("Team", false));
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:TagSession on");
    assert_eq!(lab.ask("app").status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_third_party_is_signed_by_the_permission_of_the_policy_until_it_ends() {
    let account = Account::start().await;
    let mut lab = Lab::new("documents-token", &["app"], &account.sts.url(), NEAR);
    let file = with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    follow(&account, &policy(HOUR));
    let sidecar = lab.start();
    sidecar.until("the token is there", || fs::read_to_string(&file).ok());
    drop(sidecar);

    follow(&account, &policy(OVER));
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:GetWebIdentityToken");
    sidecar.credentials("app");
}
