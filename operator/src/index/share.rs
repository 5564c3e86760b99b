//! The bound on what is kept of each namespace.

use super::{Assessments, Dirty, Index, Installation};
use crate::{
    history::{Past, Removed},
    spiffe_ids::SpiffeIds,
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokenscope_index::{CsiDrivers, Exceeded, MOST_LABELS, PolicyIndex, Room, Share, ShareExceeded, Shares, Store};

/// The bytes that are kept of one namespace at most: its pods, service accounts and policies.
///
/// A pod takes about a thousand, so these are some 24,000 pods, where Kubernetes is made for 3,000 in a namespace
/// (sig-scalability, thresholds). With 10,000 policies and 50,000 pods elsewhere the operator takes 128 MiB; with one
/// namespace beside them that fills its share, and a page of a list in work, it stays under 180 of the chart's 256 MiB.
pub(super) const SHARE: usize = 24 << 20;

/// How many bytes are kept of all namespaces together. The sizes are estimates, and the process takes about twice as much.
const ROOM: usize = 104 << 20;

/// How many objects of a namespace are known by name beyond its share: at 200 bytes each, they take as much as the share.
const MOST_NAMES: usize = 120_000;

/// What is kept of all namespaces' labels: those of 10,000 namespaces, Kubernetes' own limit, with a kilobyte each.
const LABELS: Share = Share {
    objects: usize::MAX,
    bytes: 12 << 20,
};

impl Index {
    /// Nothing is known yet, and of each namespace so many bytes are kept.
    pub(super) fn with_share(installation: Installation, spiffe_ids: SpiffeIds, bytes: usize) -> Self {
        let share = |bytes| Share {
            objects: usize::MAX,
            bytes,
        };
        // All kinds of a namespace count into one share.
        let of_namespace = Shares::naming(share(bytes), Room::new(ROOM), MOST_NAMES);
        // Only administrators write the cluster's policies and boundaries.
        let of_cluster = || Shares::new(share(usize::MAX), Room::new(usize::MAX));
        let of_labels = Shares::new(LABELS, Room::new(LABELS.bytes));
        Self {
            installation,
            issuer: None,
            spiffe_ids,
            csi_drivers: CsiDrivers::default(),
            namespaces: Store::new("namespaces", of_labels),
            service_accounts: Store::new("service accounts", of_namespace.clone()),
            pods: Store::new("pods", of_namespace.clone()),
            policies: PolicyIndex::new(of_namespace, of_cluster(), of_cluster()),
            boundaries: BTreeMap::new(),
            boundaries_since: Timestamp::UNIX_EPOCH,
            past: Past::default(),
            objects: BTreeMap::new(),
            context_keys: Arc::default(),
            ineffective_labels: BTreeSet::new(),
            over_share: BTreeSet::new(),
            assessments: Assessments::default(),
            dirty: Dirty::default(),
            next_change: None,
        }
    }

    /// Sees whether a namespace takes more than its share now, or no longer does.
    pub(super) fn check_share(&mut self, namespace: &str, now: Timestamp) {
        let is_over = self.pods.exceeded(namespace).is_some()
            || self.service_accounts.exceeded(namespace).is_some()
            || self.policies.store(false).exceeded(namespace).is_some()
            || self.has_too_many_labels(namespace);
        if is_over == self.over_share.contains(namespace) {
            return;
        }
        if is_over {
            self.over_share.insert(namespace.into());
        } else {
            self.over_share.remove(namespace);
            // Nobody knows what was there meanwhile.
            let now = self.past.time(now);
            self.past.note_removed(Some(namespace), Removed::Unknown, now);
        }
        self.dirty.namespaces.insert(namespace.into());
        let own = self.objects.keys().filter(|name| name.namespace() == Some(namespace));
        self.dirty.statuses.extend(own.cloned());
    }

    fn has_too_many_labels(&self, namespace: &str) -> bool {
        let labels = self.namespaces.value("", namespace);
        labels.is_some_and(|labels| labels.too_many)
    }

    /// The reason why nothing in a namespace is assessed, for whoever reads its policies' status.
    pub(super) fn share_exceeded(&self, namespace: &str) -> Option<String> {
        if !self.over_share.contains(namespace) {
            return None;
        }
        let bounds = [
            self.pods.exceeded(namespace),
            self.service_accounts.exceeded(namespace),
            self.policies.store(false).exceeded(namespace),
        ];
        let room = bounds
            .into_iter()
            .flatten()
            .find(|bound| matches!(bound, Exceeded::Room(_)));
        let why = if self.has_too_many_labels(namespace) {
            ShareExceeded::labels(namespace, MOST_LABELS).to_string()
        } else if room.is_some() {
            format!(
                "the pods, service accounts and policies of all namespaces are larger together than the {} MiB that are kept of them, so the pods of this namespace are not counted and its policies not looked at: remove the largest in any namespace",
                ROOM >> 20
            )
        } else {
            format!(
                "the pods, service accounts and policies of this namespace are larger together than the {} MiB that are kept of one namespace, so its pods are not counted and its policies not looked at: remove the largest",
                SHARE >> 20
            )
        };
        Some(format!("{why}. The webhook goes on as before"))
    }

    /// The number of namespaces that take more than their share, so that nothing in them is assessed.
    pub(crate) fn namespaces_over_share(&self) -> usize {
        self.over_share.len()
    }

    /// True if a namespace that took more than its share has room again for what was not kept, so that lists are to be read
    /// anew.
    pub(crate) fn wants_lists(&self) -> bool {
        self.pods.wants_list() || self.service_accounts.wants_list() || self.policies.store(false).wants_list()
    }
}
