//! The pod's specification in an AdmissionReview's JSON, read once more by whoever needs what the ordinary decode leaves out.

use serde::Deserialize;

use crate::json::{self, Error};

#[derive(Deserialize)]
struct ReviewParts<S> {
    request: RequestParts<S>,
}

#[derive(Deserialize)]
struct RequestParts<S> {
    object: PodParts<S>,
}

#[derive(Deserialize)]
struct PodParts<S> {
    spec: S,
}

/// The specification of the pod in this review, of which `S` has what its reader needs.
pub(super) fn read<'a, S: Deserialize<'a>>(review: &'a str) -> Result<S, Error> {
    json::from_str::<ReviewParts<S>>(review).map(|review| review.request.object.spec)
}
