//! Takes the mark of a finished review away from pods that bring it: only the webhook may write it.
//!
//! The entry in the webhook configuration selects such pods by label and has the failure policy Fail, so every error here
//! keeps the pod out. Nothing but the review's ID and the keys of the labels is looked at.

use std::fmt;

use crate::json::{self, push_string};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokenscope_core::{annotations, pod::Text};

use crate::review::Unreadable;

/// `[{"op":"remove","path":"/metadata/labels/tokenscope.io~1reviewed"}]` in base64.
const PATCH: &str = "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL21ldGFkYXRhL2xhYmVscy90b2tlbnNjb3BlLmlvfjFyZXZpZXdlZCJ9XQ==";

/// The answer to a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripAnswer {
    /// The AdmissionReview as JSON.
    pub body: String,
    /// True if there was a mark to remove.
    pub removed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct StripReview<'a> {
    api_version: Text<'a>,
    kind: Text<'a>,
    #[serde(default)]
    request: Option<StripRequest<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct StripRequest<'a> {
    uid: Text<'a>,
    #[serde(default)]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: MarkedMetadata,
}

#[derive(Deserialize)]
struct MarkedMetadata {
    #[serde(default)]
    labels: Option<MarkLabel>,
}

/// A map of labels, of which only the mark is looked for.
struct MarkLabel {
    marked: bool,
}

impl<'de> Deserialize<'de> for MarkLabel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;

        impl<'de> Visitor<'de> for LabelVisitor {
            type Value = MarkLabel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MarkLabel, A::Error> {
                let mut marked = false;
                while let Some((key, IgnoredAny)) = map.next_entry::<Text<'_>, IgnoredAny>()? {
                    marked |= *key == *annotations::REVIEWED;
                }
                Ok(MarkLabel { marked })
            }
        }

        deserializer.deserialize_map(LabelVisitor)
    }
}

/// The answer to the review in this body.
pub fn answer(body: &[u8]) -> Result<StripAnswer, Unreadable> {
    let text = std::str::from_utf8(body)?;
    let wire: StripReview<'_> = json::from_str(text).map_err(Unreadable::Json)?;
    if *wire.api_version != *"admission.k8s.io/v1" || *wire.kind != *"AdmissionReview" {
        return Err(Unreadable::Version);
    }
    let request = wire.request.ok_or(Unreadable::Missing("request"))?;
    if request.uid.is_empty() {
        return Err(Unreadable::Missing("request.uid"));
    }
    let object = request.object.ok_or(Unreadable::Missing("object"))?;
    let removed = object.metadata.labels.is_some_and(|labels| labels.marked);

    let mut body = String::with_capacity(384);
    body.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    push_string(&mut body, &request.uid);
    body.push_str(r#","allowed":true"#);
    if removed {
        body.push_str(r#","patchType":"JSONPatch","patch":""#);
        body.push_str(PATCH);
        body.push('"');
    }
    body.push_str("}}");
    Ok(StripAnswer { body, removed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    fn review(metadata: &Value) -> String {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u\"1", "operation": "CREATE", "object": {"metadata": metadata, "spec": {}}}})
        .to_string()
    }

    #[test]
    fn a_mark_that_a_pod_brings_is_removed_and_nothing_else() {
        let mut pod = json!({"metadata": {"labels": {"app": "a", "tokenscope.io/reviewed": "granted"}}});
        let answer = answer(review(&pod["metadata"]).as_bytes()).unwrap();
        assert!(answer.removed);
        let response = &serde_json::from_str::<Value>(&answer.body).unwrap()["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u\"1"), &json!(true)));
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
        assert_eq!(pod, json!({"metadata": {"labels": {"app": "a"}}}));
    }

    #[test]
    fn a_mark_whose_key_is_written_with_escapes_is_found() {
        let review = review(&json!({"labels": {"MARK": "x"}})).replace("MARK", r"tokenscope.io\u002freviewed");
        assert!(answer(review.as_bytes()).unwrap().removed);
    }

    #[test]
    fn without_a_mark_there_is_no_patch() {
        for metadata in [
            json!({}),
            json!({"labels": null}),
            json!({"labels": {"a": "tokenscope.io/reviewed"}}),
        ] {
            let answer = answer(review(&metadata).as_bytes()).unwrap();
            assert!(!answer.removed && !answer.body.contains("patch"), "{}", answer.body);
        }
    }

    #[test]
    fn what_can_not_be_read_is_an_error() {
        let ok = review(&json!({"labels": {}}));
        for wrong in [
            ok.replace("admission.k8s.io/v1", "v1"),
            ok.replace("\"uid\"", "\"id\""),
            ok.replace("\"metadata\"", "\"meta\""),
            ok.replace("\"object\"", "\"oldObject\""),
            ok.replace("{}", "[]"),
            ok[..ok.len() - 1].to_owned(),
        ] {
            assert!(answer(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(answer(&[0xff]).is_err());
    }
}
