//! A review that shows whether the webhook works: what asks for it, and what counts as an answer.
//!
//! Whoever asks sends it as the API server does, over TLS. It changes nothing: it is a dry run, and the pod opts out, so no policy
//! says anything about it.

use serde::Deserialize;
use serde_json::json;

use crate::annotations;

/// The path of the POST that the webhook answers.
pub const PATH: &str = "/mutate";
/// The longest answer that is worth reading, in bytes: that to this pod has some hundred.
pub const LONGEST_ANSWER: u64 = 64 << 10;
/// The review's ID, which the answer repeats.
pub const UID: &str = "00000000-0000-0000-0000-000000000000";

/// The review: an AdmissionReview as JSON.
pub fn review() -> String {
    json!({
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
    .to_string()
}

/// True if an answer with status 200 is of a webhook that works: it lets the pod through.
pub fn allows(answer: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct TrialAnswer {
        response: TrialResponse,
    }
    #[derive(Deserialize)]
    struct TrialResponse {
        uid: String,
        allowed: bool,
    }
    let answer = serde_json::from_slice::<TrialAnswer>(answer);
    answer.is_ok_and(|TrialAnswer { response }| response.allowed && response.uid == UID)
}

/// The review as a request of HTTP/1.1, head and body, to the webhook at `host`. The connection ends after the answer.
pub fn request(host: &str) -> String {
    let body = review();
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// True if an answer to [`request`], head and body, is of a webhook that works.
pub fn lets_the_pod_through(answer: &str) -> bool {
    let answer = answer.split_once("\r\n\r\n");
    answer.is_some_and(|(head, body)| head.starts_with("HTTP/1.1 200 ") && allows(body.as_bytes()))
}
