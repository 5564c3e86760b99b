//! Takes the mark of a finished review away from pods that bring it: only the webhook may write it.
//!
//! The mark is a label. While an upgrade from version 0.1 runs, the guard takes an annotation of the same name for one, so that is taken
//! away too. The entries in the webhook configuration select such pods and have the failure policy Fail, so every error here keeps the
//! pod out. Nothing but the review's ID and the keys of labels and annotations is looked at.

use std::fmt;

use base64_simd::STANDARD;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokenscope_core::annotations;
use tokenscope_core::pod::Text;

use crate::json::{self, push_string};
use crate::review::ReviewError;

/// Removes the label.
const REMOVE_LABEL: &str = r#"{"op":"remove","path":"/metadata/labels/tokenscope.io~1reviewed"}"#;
/// Removes the annotation.
const REMOVE_ANNOTATION: &str = r#"{"op":"remove","path":"/metadata/annotations/tokenscope.io~1reviewed"}"#;

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
    labels: Option<Marks>,
    #[serde(default)]
    annotations: Option<Marks>,
}

/// A map of labels or annotations, of which only the mark is looked for.
struct Marks {
    marked: bool,
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MarksVisitor;

        impl<'de> Visitor<'de> for MarksVisitor {
            type Value = Marks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels or annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Marks, A::Error> {
                let mut marked = false;
                while let Some((key, IgnoredAny)) = map.next_entry::<Text<'_>, IgnoredAny>()? {
                    marked |= *key == *annotations::REVIEWED;
                }
                Ok(Marks { marked })
            }
        }

        deserializer.deserialize_map(MarksVisitor)
    }
}

/// The answer to the review in this body.
pub fn answer(body: &[u8]) -> Result<StripAnswer, ReviewError> {
    let text = std::str::from_utf8(body)?;
    let wire: StripReview<'_> = json::from_str(text).map_err(ReviewError::Json)?;
    if *wire.api_version != *"admission.k8s.io/v1" || *wire.kind != *"AdmissionReview" {
        return Err(ReviewError::Version);
    }
    let request = wire.request.ok_or(ReviewError::Missing("request"))?;
    if request.uid.is_empty() {
        return Err(ReviewError::Missing("request.uid"));
    }
    let object = request.object.ok_or(ReviewError::Missing("object"))?;
    let is_marked = |map: Option<Marks>| map.is_some_and(|map| map.marked);
    let operations: Vec<&str> = [
        (object.metadata.labels, REMOVE_LABEL),
        (object.metadata.annotations, REMOVE_ANNOTATION),
    ]
    .into_iter()
    .filter_map(|(map, remove)| is_marked(map).then_some(remove))
    .collect();
    let removed = !operations.is_empty();

    let mut body = String::with_capacity(384);
    body.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    push_string(&mut body, &request.uid);
    body.push_str(r#","allowed":true"#);
    if removed {
        body.push_str(r#","patchType":"JSONPatch","patch":""#);
        STANDARD.encode_append(format!("[{}]", operations.join(",")), &mut body);
        body.push('"');
    }
    body.push_str("}}");
    Ok(StripAnswer { body, removed })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review(metadata: &Value) -> String {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u\"1", "operation": "CREATE", "object": {"metadata": metadata, "spec": {}}}})
        .to_string()
    }

    #[test]
    fn a_mark_that_a_pod_brings_is_removed_be_it_a_label_an_annotation_or_both() {
        let others = json!({"labels": {"app": "a"}, "annotations": {"note": "b"}});
        for maps in [&["labels"][..], &["annotations"], &["labels", "annotations"]] {
            let mut pod = json!({"metadata": others.clone()});
            for map in maps {
                pod["metadata"][*map]["tokenscope.io/reviewed"] = json!("granted");
            }
            let answer = answer(review(&pod["metadata"]).as_bytes()).unwrap();
            assert!(answer.removed, "{maps:?}");
            let response = &serde_json::from_str::<Value>(&answer.body).unwrap()["response"];
            assert_eq!((&response["uid"], &response["allowed"]), (&json!("u\"1"), &json!(true)));
            let patch = STANDARD.decode_to_vec(response["patch"].as_str().unwrap()).unwrap();
            json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
            assert_eq!(pod, json!({"metadata": others.clone()}), "{maps:?}");
        }
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
            json!({"labels": {"a": "tokenscope.io/reviewed"}, "annotations": {"b": "tokenscope.io/reviewed"}}),
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
