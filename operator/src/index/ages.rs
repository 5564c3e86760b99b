//! Since when the labels or annotations of an object are as they are. A pod that is older is never called missed for them.
//!
//! What the process has seen change, it knows. Of what it sees for the first time, the object's own account of its writers tells
//! (metav1.ManagedFieldsEntry); a key that none of them owns may have come at any time, so it counts from now.

use super::times::{created, latest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;

/// The label with a namespace's name, which the API server writes at its creation and lets nobody change.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// How many keys are remembered beside those that the object has.
const MOST_REMOVED: usize = 64;

/// The kind of keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    Labels,
    Annotations,
}

impl Keys {
    fn all(self, metadata: &ObjectMeta) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Labels => metadata.labels.as_ref(),
            Self::Annotations => metadata.annotations.as_ref(),
        }
    }

    /// True if the writer of an entry wrote this key (metav1.FieldsV1).
    fn are_owned(self, entry: &ManagedFieldsEntry, key: &str) -> bool {
        let field = match self {
            Self::Labels => "f:labels",
            Self::Annotations => "f:annotations",
        };
        let fields = entry.fields_v1.as_ref();
        let owned = fields.and_then(|fields| fields.0.get("f:metadata")?.get(field)?.as_object());
        owned.is_some_and(|owned| owned.contains_key(&format!("f:{key}")))
    }
}

/// The time since which each key has its value, or is absent, at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ages {
    created: Timestamp,
    /// Of all keys that are not listed.
    others: Timestamp,
    keys: Box<[(Box<str>, Timestamp)]>,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            created: Timestamp::UNIX_EPOCH,
            others: Timestamp::UNIX_EPOCH,
            keys: Box::default(),
        }
    }
}

impl Ages {
    /// The ages of the keys of an object that count, where nothing was known of it before.
    pub(super) fn of(metadata: &ObjectMeta, keys: Keys, counts: impl Fn(&str) -> bool, now: Timestamp) -> Self {
        let created = created(metadata);
        let entries = || metadata.managed_fields.iter().flatten();
        let writes = entries().filter(|entry| entry.subresource.is_none());
        let others = latest(writes).map_or(created, |at| at.max(created));
        let present = keys.all(metadata).into_iter().flatten();
        let ages = present.filter(|(key, _)| counts(key)).map(|(key, _)| {
            let written = latest(entries().filter(|entry| keys.are_owned(entry, key)));
            let unowned = if key == NAME_LABEL { created } else { now };
            (Box::from(key.as_str()), written.unwrap_or(unowned))
        });
        Self {
            created,
            others,
            keys: ages.filter(|(_, at)| *at != others).collect(),
        }
    }

    /// The ages after a change from what was known: `has_changed` tells of each key, `removed` are those that are gone.
    pub(super) fn after<'a>(
        self,
        before: &Self,
        present: impl Iterator<Item = &'a str>,
        removed: impl Iterator<Item = &'a str>,
        has_changed: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Self {
        if before.created != self.created {
            return self;
        }
        let mut others = before.others;
        let mut keys: BTreeMap<Box<str>, Timestamp> = BTreeMap::new();
        let known_gone = before.keys.iter().map(|(key, at)| (key.clone(), *at));
        keys.extend(known_gone);
        keys.extend(removed.map(|key| (Box::from(key), now)));
        if keys.len() > MOST_REMOVED {
            others = keys.values().copied().max().map_or(others, |at| at.max(others));
            keys.clear();
        }
        for key in present {
            // Whoever writes an object may write its managed fields as well, so they make nothing older that was seen to change.
            let at = if has_changed(key) {
                self.since(key).max(now)
            } else {
                before.since(key)
            };
            keys.insert(key.into(), at);
        }
        Self {
            created: self.created,
            others,
            keys: keys.into_iter().filter(|(_, at)| *at != others).collect(),
        }
    }

    /// The age of a key.
    pub(crate) fn since(&self, key: &str) -> Timestamp {
        let known = self.keys.iter().find(|(known, _)| **known == *key);
        known.map_or(self.others, |(_, at)| *at)
    }

    /// The age of the youngest key.
    pub(crate) fn latest(&self) -> Timestamp {
        let ages = self.keys.iter().map(|(_, at)| *at);
        ages.max().map_or(self.others, |at| at.max(self.others))
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self)
            + self
                .keys
                .iter()
                .map(|(key, at)| size_of_val(at) + key.len() + 32)
                .sum::<usize>()
    }
}
