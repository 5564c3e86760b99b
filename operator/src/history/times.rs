//! The times that objects carry themselves.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::core::ObjectMeta;

/// The time when an object was created, which the API server alone sets.
pub(crate) fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |Time(at)| *at)
}

/// The time of the last of these writes.
pub(crate) fn latest_write<'a>(entries: impl Iterator<Item = &'a ManagedFieldsEntry>) -> Option<Timestamp> {
    entries
        .filter_map(|entry| entry.time.as_ref())
        .map(|Time(at)| *at)
        .max()
}

/// A time in whole seconds, as the API server keeps times.
pub(super) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
