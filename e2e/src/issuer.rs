//! The questions of a sidecar, an SDK and AWS to a running issuer.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::get_json;
use crate::helm::NAMESPACE;
use crate::webhook_only::connect;

/// The Secret of the issuer's serving certificate.
const SERVING_SECRET: &str = "tokenscope-issuer-tls";
const DEADLINE: Duration = Duration::from_secs(10);

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
