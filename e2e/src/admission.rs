//! Creating pods and looking at the whole answer, warnings included.

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::request;

/// The API server's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The object as it was stored, or a Status.
    pub body: Value,
    /// The warnings that kubectl would show.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The message of a refusal; empty if it was accepted.
    pub fn message(&self) -> &str {
        if self.accepted() {
            ""
        } else {
            self.body["message"].as_str().unwrap_or_default()
        }
    }

    /// True if the object was created.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Creates a pod in its own namespace (`default` if it has none). A refusal is an answer, not an error.
pub async fn create_pod(client: &Client, pod: &Value) -> Result<Answer> {
    create(client, &format!("{}?fieldValidation=Strict", pods_of(pod)), pod).await
}

/// As [`create_pod`], but nothing is stored: `kubectl create --dry-run=server`.
pub async fn try_pod(client: &Client, pod: &Value) -> Result<Answer> {
    create(
        client,
        &format!("{}?fieldValidation=Strict&dryRun=All", pods_of(pod)),
        pod,
    )
    .await
}

/// Creates a pod that must be accepted, and gives it as it was stored.
pub async fn accepts(client: &Client, pod: &Value) -> Result<Value> {
    let answer = create_pod(client, pod).await?;
    if !answer.accepted() {
        bail!("refused with {}: {}", answer.status, answer.message());
    }
    Ok(answer.body)
}

/// Creates a pod that must be refused, and gives the message.
pub async fn rejects(client: &Client, pod: &Value) -> Result<String> {
    let answer = create_pod(client, pod).await?;
    if answer.accepted() {
        bail!("accepted, but should have been refused: {}", answer.body);
    }
    Ok(answer.message().to_owned())
}

/// Posts any object.
pub async fn create(client: &Client, path: &str, object: &Value) -> Result<Answer> {
    let request = request(http::Method::POST, path, object.to_string().into_bytes())?;
    let answer = client.send(request.map(Body::from)).await?;
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let warnings = head
        .headers
        .get_all(http::header::WARNING)
        .iter()
        .filter_map(|value| warning(std::str::from_utf8(value.as_bytes()).ok()?));
    let warnings = warnings.collect();
    let body = serde_json::from_slice(&bytes).context("the API server answers in JSON")?;
    Ok(Answer {
        status: head.status.as_u16(),
        body,
        warnings,
    })
}

fn pods_of(pod: &Value) -> String {
    format!(
        "/api/v1/namespaces/{}/pods",
        pod["metadata"]["namespace"].as_str().unwrap_or("default")
    )
}

/// The text of `299 - "text"` (RFC 7234 section 5.5), whose quoted string escapes quotes and backslashes.
fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 - \"")?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_warning_header_is_unquoted() {
        assert_eq!(
            warning(r#"299 - "role \"a\" is not allowed""#).as_deref(),
            Some(r#"role "a" is not allowed"#)
        );
    }
}
