//! The questions of a sidecar, an SDK and AWS to a running issuer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use serde_json::{Value, json};
use tokenscope_sts::{Provider, Role, Server, StsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixtures::ACCOUNT;
use crate::get_json;
use crate::helm::NAMESPACE;
use crate::webhook_only::connect;

/// The Secret of the issuer's serving certificate.
const SERVING_SECRET: &str = "tokenscope-issuer-tls";
/// How long an answer of the issuer may take on a busy machine before it is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The authorities that clients of the issuer trust, PEM.
pub async fn authority(client: &Client) -> Result<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SERVING_SECRET}");
    let secret = get_json(client, &path).await?;
    let text = secret["data"]["ca.crt"].as_str().context("it has no ca.crt yet")?;
    Ok(String::from_utf8(STANDARD.decode(text)?)?)
}

/// Exchanges a token (RFC 8693) at the issuer on a port of 127.0.0.1: the status and the answer.
pub async fn exchange(port: u16, authorities: &str, subject: &str, audience: &str) -> Result<(u16, Value)> {
    let audience = audience.replace(':', "%3A").replace('/', "%2F");
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={subject}\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience={audience}"
    );
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    ask(port, authorities, &format!("{head}{body}")).await
}

/// A document of the issuer on a port of 127.0.0.1.
pub async fn document(port: u16, authorities: &str, path: &str) -> Result<(u16, Value)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: issuer\r\nConnection: close\r\n\r\n");
    ask(port, authorities, &request).await
}

/// The stand-in for AWS STS with the issuer of this URL, which is on a port of 127.0.0.1, as an identity provider, and one role.
pub async fn sts(url: &str, authorities: &str, port: u16, (role, trust_policy): (&str, &Value)) -> Result<Server> {
    let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    let config = StsConfig {
        providers: vec![Provider {
            url: url.to_owned(),
            client_ids: vec!["sts.amazonaws.com".to_owned()],
            account: ACCOUNT.to_owned(),
            partition: "aws".to_owned(),
            context_provider: None,
        }],
        roles: vec![Role {
            arn: role.to_owned(),
            trust_policy: trust_policy.clone(),
            max_session_duration: 3600,
        }],
        issuer_trust_pem: authorities.to_owned(),
        connect_to: BTreeMap::from([(host.to_owned(), SocketAddr::from(([127, 0, 0, 1], port)))]),
        ..StsConfig::default()
    };
    Ok(Server::start(config, SocketAddr::from(([127, 0, 0, 1], 0)), None).await?)
}

/// Adds to each statement of a trust policy that the token's session tag must have this value.
pub fn tag_condition(trust_policy: &mut Value, tag: &str, value: &str) {
    for statement in trust_policy["Statement"].as_array_mut().into_iter().flatten() {
        statement["Condition"]["StringEquals"][format!("aws:RequestTag/{tag}")] = json!(value);
    }
}

/// How often an SDK asks again where STS could not reach the issuer in time.
const RETRIES: usize = 5;

/// Assumes a role with a token, as an SDK does: the status and the answer.
pub async fn assume(sts: &Server, role: &str, token: &str) -> Result<(u16, String)> {
    let mut answer = assume_once(sts, role, token).await?;
    for _ in 0..RETRIES {
        if !answer.1.contains("IDPCommunicationError") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        answer = assume_once(sts, role, token).await?;
    }
    Ok(answer)
}

async fn assume_once(sts: &Server, role: &str, token: &str) -> Result<(u16, String)> {
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName=pod-1&WebIdentityToken={token}",
        role.replace(':', "%3A").replace('/', "%2F")
    );
    let mut stream = TcpStream::connect(sts.addr()).await?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        sts.addr(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("an answer has a status")?.parse()?;
    Ok((status, answer))
}

async fn ask(port: u16, authorities: &str, request: &str) -> Result<(u16, Value)> {
    let answer = async {
        let mut stream = connect(port, authorities).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let text = String::from_utf8(
        tokio::time::timeout(DEADLINE, answer)
            .await
            .context("no answer in time")??,
    )?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    let status = head.split_whitespace().nth(1).context("an HTTP answer has a status")?;
    let body = serde_json::from_str(body).with_context(|| format!("no JSON: {text}"))?;
    Ok((status.parse()?, body))
}
