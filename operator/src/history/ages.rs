//! The time since which the labels or annotations of an object are unchanged. A pod that is older than that is never called missed because of them.
//!
//! The time of a change that the process has seen is known. For what its first list shows, the object's managed fields are a hint. A
//! key that none of them owns may have come at any time, so it counts from now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::ObjectMeta;
use tokenscope_core::NAMESPACE_NAME_LABEL;

use super::managed_fields::FieldWriter;
use super::times::{created, latest_write};

/// The most keys that are remembered beside those that the object has.
const MOST_REMOVED: usize = 64;

/// The kind of keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// The labels of an object.
    Labels,
    /// Its annotations.
    Annotations,
}

/// The way in which an object was first seen of which nothing was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstSeen {
    /// By the first list: what came before is known by hints alone. No pod that is older than this list is called missed.
    InFirstList,
    /// At its creation, as it was made.
    AtCreation,
    /// In any other way: how it was before is not known.
    Later,
}

/// The time since which each key has its value, or is absent, at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ages {
    created: Timestamp,
    /// True if the object was seen at its creation, and all is as it was made.
    is_original: bool,
    /// Of all keys that are not listed.
    others: Timestamp,
    keys: Box<[(Box<str>, Timestamp)]>,
}

impl Default for Ages {
    fn default() -> Self {
        Self::all(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)
    }
}

impl Ages {
    fn all(created: Timestamp, since: Timestamp) -> Self {
        Self {
            created,
            is_original: false,
            others: since,
            keys: Box::default(),
        }
    }

    /// The ages of the keys of an object that count, where nothing was known of it before.
    pub(crate) fn of(
        metadata: &ObjectMeta,
        keys: Keys,
        counts: impl Fn(&str) -> bool,
        first_seen: FirstSeen,
        now: Timestamp,
    ) -> Self {
        let created = created(metadata);
        match first_seen {
            FirstSeen::InFirstList => Self::by_writers(metadata, keys, counts, now),
            FirstSeen::AtCreation => Self {
                is_original: true,
                ..Self::all(created, created)
            },
            FirstSeen::Later => Self::all(created, now.max(created)),
        }
    }

    fn by_writers(metadata: &ObjectMeta, keys: Keys, counts: impl Fn(&str) -> bool, now: Timestamp) -> Self {
        let created = created(metadata);
        let entries = || metadata.managed_fields.iter().flatten();
        let writes = entries().filter(|entry| entry.subresource.is_none());
        let others = latest_write(writes).map_or(created, |at| at.max(created));
        let present = match keys {
            Keys::Labels => metadata.labels.as_ref(),
            Keys::Annotations => metadata.annotations.as_ref(),
        };
        let writers: Vec<FieldWriter> = entries().map(FieldWriter::of).collect();
        let owns = |writer: &FieldWriter, key: &str| match keys {
            Keys::Labels => writer.owns_label(key),
            Keys::Annotations => writer.owns_annotation(key),
        };
        let present = present.into_iter().flatten().filter(|(key, _)| counts(key));
        let ages = present.map(|(key, _)| {
            let owners = writers.iter().filter(|writer| owns(writer, key));
            let written = owners.filter_map(FieldWriter::time).max();
            let unowned = if key == NAMESPACE_NAME_LABEL { created } else { now };
            (Box::from(key.as_str()), written.unwrap_or(unowned))
        });
        Self {
            created,
            is_original: false,
            others,
            keys: ages.filter(|(_, at)| *at != others).collect(),
        }
    }

    /// The ages after a change from what was known: `has_changed` tells of each key, `removed` are those that are gone.
    pub(crate) fn after<'a>(
        metadata: &ObjectMeta,
        before: &Self,
        present: impl Iterator<Item = &'a str>,
        removed: impl Iterator<Item = &'a str>,
        has_changed: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Self {
        let created = created(metadata);
        if before.created != created {
            // Another object of this name.
            return Self::all(created, now.max(created));
        }
        let mut others = before.others;
        let mut keys: BTreeMap<Box<str>, Timestamp> = BTreeMap::new();
        let known_gone = before.keys.iter().map(|(key, at)| (key.clone(), *at));
        keys.extend(known_gone);
        let removed: Vec<(Box<str>, Timestamp)> = removed.map(|key| (Box::from(key), now)).collect();
        let mut is_original = before.is_original && removed.is_empty();
        keys.extend(removed);
        if keys.len() > MOST_REMOVED {
            others = keys.values().copied().max().map_or(others, |at| at.max(others));
            keys.clear();
        }
        for key in present {
            let is_changed = has_changed(key);
            is_original &= !is_changed;
            let at = if is_changed { now } else { before.since(key) };
            keys.insert(key.into(), at);
        }
        Self {
            created,
            is_original,
            others,
            keys: keys.into_iter().filter(|(_, at)| *at != others).collect(),
        }
    }

    /// The age of a key.
    pub(crate) fn since(&self, key: &str) -> Timestamp {
        let known = self.keys.iter().find(|(known, _)| **known == *key);
        known.map_or(self.others, |(_, at)| *at)
    }

    /// True if a key had its value, or was absent, at every moment from the first of these to the last, as far as the object was there.
    pub(crate) fn is_kept(&self, key: &str, first: Timestamp, last: Timestamp) -> bool {
        let since = self.since(key);
        first > since || self.is_original && last > since
    }

    /// The age of the youngest key.
    pub(crate) fn latest(&self) -> Timestamp {
        let ages = self.keys.iter().map(|(_, at)| *at);
        ages.max().map_or(self.others, |at| at.max(self.others))
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self)
            + self
                .keys
                .iter()
                .map(|(key, at)| size_of_val(at) + key.len() + 32)
                .sum::<usize>()
    }
}
