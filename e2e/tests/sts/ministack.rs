//! MiniStack judges our requests: signature, external id, accounts, tags and session policies.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_aws::{
    AssumeRole, AssumeRoleWithWebIdentity, AssumedRole, CallerIdentity, Credentials, RefusalCode, Secret,
    SessionPolicyParameters, StsEndpoint, StsError, get_caller_identity,
};
use tokenscope_core::RoleArn;
use tokenscope_e2e::ministack::MiniStack;

use crate::client::send;
use crate::{REGION, plain_call};

const HOME: &str = "000000000000";
const ABROAD: &str = "111111111111";

fn allow(actions: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
}

async fn take<'a>(
    endpoint: &StsEndpoint,
    credentials: &Credentials,
    role: &'a RoleArn,
    change: impl FnOnce(&mut AssumeRole<'a>),
) -> Result<AssumedRole, StsError> {
    let mut call = plain_call(role);
    change(&mut call);
    let request = call.request(endpoint, credentials, Timestamp::now());
    let (status, body) = send(endpoint, &request, Duration::from_secs(60)).await.unwrap();
    AssumedRole::read("AssumeRole", status, &body)
}

fn refusal(outcome: Result<AssumedRole, StsError>) -> RefusalCode {
    outcome.unwrap_err().refusal().unwrap()
}

/// Makes the user and both roles of the chain; the second takes sessions of `near` with the external id. The user's keys.
fn with_roles(ministack: &MiniStack, near: &RoleArn) -> Credentials {
    let trust = |principal: &str, condition: &Value| {
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": principal},
            "Action": ["sts:AssumeRole", "sts:TagSession"], "Condition": condition}]})
    };
    let key = ministack
        .add_user(HOME, "ann", &allow(&json!(["sts:AssumeRole", "sts:TagSession"])))
        .unwrap();
    let ann = format!("arn:aws:iam::{HOME}:user/ann");
    ministack
        .add_role(HOME, "near", &trust(&ann, &json!({})), &allow(&json!("sts:*")))
        .unwrap();
    let external = json!({"StringEquals": {"sts:ExternalId": "e-2"}});
    ministack
        .add_role(ABROAD, "far", &trust(near.as_str(), &external), &allow(&json!("s3:*")))
        .unwrap();
    Credentials {
        access_key_id: key.0.as_str().into(),
        secret_access_key: Secret::new(key.1.as_str()),
        session_token: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_into_another_account_needs_its_external_id() {
    let ministack = MiniStack::start().await.unwrap();
    let endpoint = StsEndpoint::custom(&ministack.url(), &REGION.parse().unwrap()).unwrap();
    let near: RoleArn = format!("arn:aws:iam::{HOME}:role/near").parse().unwrap();
    let far: RoleArn = format!("arn:aws:iam::{ABROAD}:role/far").parse().unwrap();
    let ann = tokio::task::block_in_place(|| with_roles(&ministack, &near));

    let tags = [("team", "blü e/+=")];
    let first = take(&endpoint, &ann, &near, |call| call.tags = &tags).await.unwrap();
    let second = take(&endpoint, &first.credentials, &far, |call| {
        call.external_id = Some("e-2");
    })
    .await
    .unwrap();
    let who = get_caller_identity(&endpoint, &second.credentials, Timestamp::now());
    let (status, body) = send(&endpoint, &who, Duration::from_secs(60)).await.unwrap();
    assert_eq!(&*CallerIdentity::read(status, &body).unwrap().account, ABROAD);

    for external_id in [None, Some("e-3")] {
        let outcome = take(&endpoint, &first.credentials, &far, |call| {
            call.external_id = external_id;
        })
        .await;
        assert_eq!(refusal(outcome), RefusalCode::AccessDenied);
    }
    let forged = Credentials {
        secret_access_key: Secret::new("another"),
        ..ann.clone()
    };
    assert_eq!(
        refusal(take(&endpoint, &forged, &near, |_| ()).await),
        RefusalCode::SignatureDoesNotMatch
    );

    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let narrowed = take(&endpoint, &ann, &near, |call| {
        call.session_policy.inline = Some(policy);
    });
    let narrowed = narrowed.await.unwrap();
    let outcome = take(&endpoint, &narrowed.credentials, &far, |call| {
        call.external_id = Some("e-2");
    })
    .await;
    assert_eq!(refusal(outcome), RefusalCode::AccessDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_taken_for_its_subject_and_audience_and_no_other() {
    let ministack = MiniStack::start().await.unwrap();
    let endpoint = StsEndpoint::custom(&ministack.url(), &REGION.parse().unwrap()).unwrap();
    let role: RoleArn = format!("arn:aws:iam::{HOME}:role/web").parse().unwrap();
    tokio::task::block_in_place(|| {
        let provider = json!({"Url": "https://oidc.test", "ClientIDList": ["sts.amazonaws.com"]});
        ministack
            .administer(HOME, &[("create_open_id_connect_provider", provider)])
            .unwrap();
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"Federated": format!("arn:aws:iam::{HOME}:oidc-provider/oidc.test")},
            "Action": "sts:AssumeRoleWithWebIdentity", "Condition": {"StringEquals": {
                "oidc.test:aud": "sts.amazonaws.com", "oidc.test:sub": "system:serviceaccount:shop:orders"}}}]});
        ministack.add_role(HOME, "web", &trust, &allow(&json!("s3:*"))).unwrap();
    });
    // Its signature is not looked at there: that is tokenscope-sts's to judge.
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = |subject: &str, audience: &str| {
        let header = part(&json!({"alg": "RS256", "kid": "k"}));
        let claims = json!({"iss": "https://oidc.test", "aud": audience, "sub": subject, "exp": 4_102_444_800_i64});
        Secret::new(format!("{header}.{}.c2ln", part(&claims)))
    };
    let take = async |token: &Secret| {
        let request = AssumeRoleWithWebIdentity {
            role: &role,
            session_name: "pod-1",
            token,
            duration_seconds: Some(900),
            session_policy: SessionPolicyParameters::default(),
        };
        let (status, body) = send(&endpoint, &request.request(&endpoint), Duration::from_secs(60))
            .await
            .unwrap();
        AssumedRole::read("AssumeRoleWithWebIdentity", status, &body)
    };
    let (subject, audience) = ("system:serviceaccount:shop:orders", "sts.amazonaws.com");
    let session = take(&token(subject, audience)).await.unwrap();
    assert_eq!(&*session.arn, format!("arn:aws:sts::{HOME}:assumed-role/web/pod-1"));
    for other in [
        token("system:serviceaccount:shop:admin", audience),
        token(subject, "other"),
    ] {
        assert_eq!(refusal(take(&other).await), RefusalCode::AccessDenied);
    }
}
