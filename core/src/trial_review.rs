//! A review that shows whether the webhook works: what asks for it, and what counts as an answer. The texts are HTTP/1.1.
//!
//! Whoever asks sends it as the API server does, over TLS. It changes nothing: it is a dry run, and the pod opts out, so no policy
//! says anything about it.

use serde::Deserialize;
use serde_json::json;

use crate::annotations;

/// The longest answer that is worth reading, in bytes: that to this pod has some hundred.
pub const LONGEST_ANSWER: u64 = 64 << 10;
/// The review's ID, which the answer repeats.
pub const UID: &str = "00000000-0000-0000-0000-000000000000";

/// The request, head and body, to the webhook at `host`. The connection ends after the answer.
pub fn request(host: &str) -> String {
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": UID, "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "dryRun": true,
            "namespace": "default",
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "check", "namespace": "default", "annotations": {annotations::INJECT: "false"}},
                "spec": {"containers": [{"name": "check", "image": "none"}]},
            },
        },
    })
    .to_string();
    format!(
        "POST /mutate HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Whether an answer, head and body, is of a webhook that works: it lets the pod through.
pub fn lets_the_pod_through(answer: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        response: Response,
    }
    #[derive(Deserialize)]
    struct Response {
        uid: String,
        allowed: bool,
    }
    let answer = answer
        .split_once("\r\n\r\n")
        .filter(|(head, _)| head.starts_with("HTTP/1.1 200 "))
        .and_then(|(_, body)| serde_json::from_str::<Answer>(body).ok());
    answer.is_some_and(|Answer { response }| response.allowed && response.uid == UID)
}
