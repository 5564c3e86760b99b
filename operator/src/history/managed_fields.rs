//! The writers of an object's labels and annotations, by its managed fields (metav1.ManagedFieldsEntry, metav1.FieldsV1).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The longest time between an object's creation and its first managed fields. Both are taken one after the other.
const CREATION: SignedDuration = SignedDuration::from_secs(1);

/// An entry of managed fields, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FieldWriter {
    #[serde(default)]
    time: Option<Time>,
    #[serde(default, rename = "fieldsV1")]
    fields: Option<OwnedFields>,
}

#[derive(Deserialize)]
struct OwnedFields {
    #[serde(default, rename = "f:metadata")]
    metadata: Option<OwnedMetadata>,
    #[serde(default, rename = "f:spec")]
    spec: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct OwnedMetadata {
    #[serde(default, rename = "f:labels")]
    labels: Option<OwnedKeys>,
    #[serde(default, rename = "f:annotations")]
    annotations: Option<OwnedKeys>,
}

/// The keys of an object, whatever their values.
struct OwnedKeys(BTreeSet<Box<str>>);

impl<'de> Deserialize<'de> for OwnedKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = BTreeMap::<Box<str>, IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(keys.into_keys().collect()))
    }
}

impl FieldWriter {
    /// The writer of an entry. One that can't be read owns nothing.
    pub(super) fn of(entry: &ManagedFieldsEntry) -> Self {
        let fields = entry.fields_v1.as_ref();
        Self {
            time: entry.time.clone(),
            fields: fields.and_then(|fields| OwnedFields::deserialize(&fields.0).ok()),
        }
    }

    /// The time at which it wrote last.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.time.as_ref().map(|Time(at)| *at)
    }

    /// True if it wrote this label.
    pub(super) fn owns_label(&self, key: &str) -> bool {
        self.owns(|metadata| metadata.labels.as_ref(), key)
    }

    /// True if it wrote this annotation.
    pub(super) fn owns_annotation(&self, key: &str) -> bool {
        self.owns(|metadata| metadata.annotations.as_ref(), key)
    }

    fn owns(&self, keys: fn(&OwnedMetadata) -> Option<&OwnedKeys>, key: &str) -> bool {
        let metadata = self.fields.as_ref().and_then(|fields| fields.metadata.as_ref());
        let keys = metadata.and_then(keys);
        keys.is_some_and(|keys| keys.0.contains(&*format!("f:{key}")))
    }

    /// True if it made an object that was created then: whoever makes an object owns its spec too, and wrote it within the second of its
    /// creation, or the next.
    fn made(&self, created: Timestamp) -> bool {
        let owns_spec = self.fields.as_ref().is_some_and(|fields| fields.spec.is_some());
        owns_spec && self.time().is_some_and(|at| at <= created + CREATION)
    }
}

/// Those of a pod's keys that were not written with it: another one than who made it owns them, or nobody.
pub(crate) fn late_keys<'a>(
    writers: &[FieldWriter],
    created: Timestamp,
    labels: impl Iterator<Item = &'a str>,
    annotations: impl Iterator<Item = &'a str>,
) -> Box<[Box<str>]> {
    let makers = || writers.iter().filter(|writer| writer.made(created));
    let late_labels = labels.filter(|key| !makers().any(|maker| maker.owns_label(key)));
    let late_annotations = annotations.filter(|key| !makers().any(|maker| maker.owns_annotation(key)));
    late_labels.chain(late_annotations).map(Into::into).collect()
}
