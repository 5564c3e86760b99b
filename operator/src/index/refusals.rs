//! The namespaces whose pods the webhook may refuse, since it does not keep all policies that they are judged by.
//!
//! An object that does not fit is counted here at once. When everything fits again, a replica of the webhook goes on refusing
//! until it has listed anew what it left out. A pod that is evicted before that would not come back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokenscope_index::WebhookBounds;

/// Stands for all namespaces.
pub(super) const EVERYWHERE: &str = "";

/// The namespaces whose pods the webhook may refuse: no more than those of which not all fits, or did not within
/// [`WebhookBounds::REREAD`].
#[derive(Debug, Default)]
pub(super) struct RefusingNamespaces {
    /// Until when each may be refused; none as long as not all of it fits.
    namespaces: BTreeMap<Box<str>, Option<Timestamp>>,
    /// Those that have an end, in the order of time.
    ends: BTreeSet<(Timestamp, Box<str>)>,
}

impl RefusingNamespaces {
    /// Notes whether all of a namespace, or of what concerns [`EVERYWHERE`], fits.
    pub(super) fn note(&mut self, namespace: &str, fits: bool, now: Timestamp) {
        let before = self.namespaces.get(namespace).copied();
        let end = match before {
            _ if !fits => None,
            Some(None) => Some(now.checked_add(WebhookBounds::REREAD).unwrap_or(Timestamp::MAX)),
            // It did fit.
            Some(Some(_)) | None => return,
        };
        if let Some(Some(at)) = before {
            self.ends.remove(&(at, namespace.into()));
        }
        self.namespaces.insert(namespace.into(), end);
        self.ends.extend(end.map(|at| (at, namespace.into())));
    }

    /// True if the webhook may refuse all pods of a namespace.
    pub(super) fn may_refuse(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(EVERYWHERE) || self.namespaces.contains_key(namespace)
    }

    /// The time when the next one is refused no longer.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Takes out one that is refused no longer, if there is one.
    pub(super) fn take_ended(&mut self, now: Timestamp) -> Option<Box<str>> {
        self.next_end().filter(|at| *at <= now)?;
        let (_, namespace) = self.ends.pop_first()?;
        self.namespaces.remove(&namespace);
        Some(namespace)
    }
}
