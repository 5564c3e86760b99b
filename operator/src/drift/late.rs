//! The labels and annotations of a pod that were not written with it, by its managed fields (metav1.FieldsV1).
//!
//! Whoever made the pod owns its spec too, and wrote it within the second of its creation, or the next. A key that another one
//! owns, or nobody, came later as far as anyone can tell.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, de::IgnoredAny};
use std::collections::BTreeSet;

/// Between the time of an object's creation and that of its first managed fields, which are taken one after the other.
const CREATION: SignedDuration = SignedDuration::from_secs(1);

/// An entry of managed fields, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireManagedFields {
    #[serde(default)]
    time: Option<Time>,
    #[serde(default)]
    fields_v1: Option<WireFields>,
}

#[derive(Deserialize)]
struct WireFields {
    #[serde(default, rename = "f:metadata")]
    metadata: Option<WireOwned>,
    #[serde(default, rename = "f:spec")]
    spec: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireOwned {
    #[serde(default, rename = "f:labels")]
    labels: Option<OwnedKeys>,
    #[serde(default, rename = "f:annotations")]
    annotations: Option<OwnedKeys>,
}

/// The keys of an object, whatever their values.
struct OwnedKeys(BTreeSet<Box<str>>);

impl<'de> Deserialize<'de> for OwnedKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = std::collections::BTreeMap::<Box<str>, IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(keys.into_keys().collect()))
    }
}

/// Those of the keys that were not written with the pod.
pub(super) fn late_keys<'a>(
    managed: &[WireManagedFields],
    created: Timestamp,
    labels: impl Iterator<Item = &'a str>,
    annotations: impl Iterator<Item = &'a str>,
) -> Box<[Box<str>]> {
    let makes_it = |entry: &&WireManagedFields| {
        let at = entry.time.as_ref().map(|Time(at)| *at);
        at.is_some_and(|at| at <= created + CREATION)
    };
    let makers: Vec<&WireOwned> = managed
        .iter()
        .filter(makes_it)
        .filter_map(|entry| entry.fields_v1.as_ref())
        .filter(|fields| fields.spec.is_some())
        .filter_map(|fields| fields.metadata.as_ref())
        .collect();
    let is_owned = |keys: fn(&WireOwned) -> Option<&OwnedKeys>, key: &str| {
        let field = format!("f:{key}");
        let mut owned = makers.iter().filter_map(|owned| keys(owned));
        owned.any(|keys| keys.0.contains(&*field))
    };
    let late_labels = labels.filter(|key| !is_owned(|owned| owned.labels.as_ref(), key));
    let late_annotations = annotations.filter(|key| !is_owned(|owned| owned.annotations.as_ref(), key));
    late_labels.chain(late_annotations).map(Into::into).collect()
}
