//! Our own client of STS against the stand-in, and the least that can send its requests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_aws::{
    AssumeRole, AssumedRole, CallerIdentity, GetWebIdentityToken, RefusalCode, SessionPolicyParameters, StsEndpoint,
    StsRequest, SubjectMode, WebIdentityToken, get_caller_identity,
};
use tokenscope_core::outbound::AwsAlgorithm;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{EXTERNAL_ID, FAR, NEAR, REGION, ann, stand_in};

/// Sends a request over plain HTTP. Fails without an answer in that time.
pub(crate) async fn send(endpoint: &StsEndpoint, request: &StsRequest, deadline: Duration) -> Result<(u16, Vec<u8>)> {
    let mut text = "POST / HTTP/1.1\r\nconnection: close\r\n".to_owned();
    for (name, value) in request.headers() {
        text.extend([*name, ": ", value, "\r\n"]);
    }
    let length = request.body().len().to_string();
    text.extend(["content-length: ", &length, "\r\n\r\n", request.body()]);
    let address = (endpoint.host().to_owned(), endpoint.port());
    let asked = async { exchange(TcpStream::connect(address).await?, &text).await };
    tokio::time::timeout(deadline, asked).await?
}

/// A JSON document of a host that is really at `address`.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Value> {
    let text = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let (_, body) = exchange(TcpStream::connect(address).await?, &text).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn exchange(mut stream: TcpStream, request: &str) -> Result<(u16, Vec<u8>)> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let body = answer.split_off(end.context("an answer has a head")? + 4);
    let head = String::from_utf8(answer)?;
    let status = head.split(' ').nth(1).context("an answer has a status")?;
    Ok((status.parse()?, body))
}

fn role<'a>(role: &'a tokenscope_core::RoleArn, external_id: Option<&'a str>) -> AssumeRole<'a> {
    AssumeRole {
        role,
        session_name: "pod-1",
        external_id,
        duration_seconds: None,
        session_policy: SessionPolicyParameters::default(),
        tags: &[],
        transitive_tag_keys: &[],
        source_identity: None,
    }
}

#[tokio::test]
async fn it_walks_a_chain_and_the_stand_in_verifies_every_signature() {
    let sts = stand_in().await.unwrap();
    let endpoint = StsEndpoint::custom(&sts.url(), &REGION.parse().unwrap()).unwrap();
    let soon = Duration::from_secs(60);
    let (near, far) = (NEAR.parse().unwrap(), FAR.parse().unwrap());

    let first = AssumeRole {
        tags: &[("team", "blü e/+="), ("job", "7")],
        transitive_tag_keys: &["team"],
        source_identity: Some("shop.orders"),
        session_policy: SessionPolicyParameters {
            inline: Some(r#"{"Statement":{"Effect":"Allow","Action":"sts:*","Resource":"*"}}"#),
            arns: &[],
        },
        ..role(&near, None)
    };
    let (status, body) = send(&endpoint, &first.request(&endpoint, &ann(), Timestamp::now()), soon)
        .await
        .unwrap();
    let near = AssumedRole::read("AssumeRole", status, &body).unwrap();
    assert_eq!(&*near.arn, "arn:aws:sts::111122223333:assumed-role/near/pod-1");

    let second = role(&far, Some(EXTERNAL_ID)).request(&endpoint, &near.credentials, Timestamp::now());
    let (status, body) = send(&endpoint, &second, soon).await.unwrap();
    let far_session = AssumedRole::read("AssumeRole", status, &body).unwrap();
    assert_eq!(far_session.source_identity.as_deref(), Some("shop.orders"));
    let session = sts.session(&far_session.credentials.access_key_id).unwrap();
    assert_eq!(json!(session.principal_tags), json!({"team": "blü e/+="}));

    let who = get_caller_identity(&endpoint, &far_session.credentials, Timestamp::now());
    let (status, body) = send(&endpoint, &who, soon).await.unwrap();
    assert_eq!(&*CallerIdentity::read(status, &body).unwrap().account, "444455556666");

    let wrong = role(&far, Some("e-3")).request(&endpoint, &near.credentials, Timestamp::now());
    let (status, body) = send(&endpoint, &wrong, soon).await.unwrap();
    let refused = AssumedRole::read("AssumeRole", status, &body).unwrap_err();
    assert_eq!(refused.refusal(), Some(RefusalCode::AccessDenied), "{refused}");
    let late = role(&far, Some(EXTERNAL_ID)).request(&endpoint, &near.credentials, Timestamp::UNIX_EPOCH);
    let (status, body) = send(&endpoint, &late, soon).await.unwrap();
    let refused = AssumedRole::read("AssumeRole", status, &body).unwrap_err();
    assert_eq!(refused.refusal(), Some(RefusalCode::ClockSkew), "{refused}");
    sts.stop().await;
}

#[tokio::test]
async fn it_asks_for_tokens_that_end_before_their_session_does() {
    let sts = stand_in().await.unwrap();
    let endpoint = StsEndpoint::custom(&sts.url(), &REGION.parse().unwrap()).unwrap();
    let soon = Duration::from_secs(60);
    let near = NEAR.parse().unwrap();
    let first = AssumeRole {
        duration_seconds: Some(900),
        ..role(&near, None)
    };
    let (status, body) = send(&endpoint, &first.request(&endpoint, &ann(), Timestamp::now()), soon)
        .await
        .unwrap();
    let session = AssumedRole::read("AssumeRole", status, &body).unwrap();

    let token = |duration: Option<u32>| GetWebIdentityToken {
        audiences: &["https://api.test", "b"],
        algorithm: AwsAlgorithm::RS256,
        duration_seconds: duration,
        tags: &[("job", "7")],
        subject_mode: SubjectMode::AwsIdentity,
        scope: None,
    };
    let now = Timestamp::now();
    let lifetime = GetWebIdentityToken::lifetime(3600, session.expires_at, now);
    let request = token(lifetime).request(&endpoint, &session.credentials, now).unwrap();
    let (status, body) = send(&endpoint, &request, soon).await.unwrap();
    let given = WebIdentityToken::read(status, &body).unwrap();
    assert!(given.expires_at <= session.expires_at && given.token.expose().split('.').count() == 3);

    let request = token(Some(3600)).request(&endpoint, &session.credentials, now).unwrap();
    let (status, body) = send(&endpoint, &request, soon).await.unwrap();
    let refused = WebIdentityToken::read(status, &body).unwrap_err();
    assert_eq!(refused.refusal(), Some(RefusalCode::SessionDurationEscalation));
    sts.stop().await;
}
