//! The bounds on what is kept of each namespace: here, and by the webhook.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::PolicyName;
use tokenscope_crds::conditions::Reason;
use tokenscope_index::{
    CsiDrivers, Exceeded, KeptChange, MOST_LABELS, NotKept, PolicyIndex, Room, Share, ShareExceeded, Shares, Store,
    WebhookBounds, WebhookCount,
};

use super::refusals::{EVERYWHERE, RefusingNamespaces};
use super::{Assessments, Dirty, Index, IndexEvent, Installation};
use crate::history::{Past, Removed};
use crate::spiffe_ids::SpiffeIds;

/// The bytes that are kept of one namespace at most: its pods, service accounts and policies.
///
/// A pod takes about a thousand, so these are some 24,000 pods, where Kubernetes is made for 3,000 in a namespace
/// (sig-scalability, thresholds). With 10,000 policies and 50,000 pods elsewhere the operator takes 128 MiB; with one
/// namespace beside them that fills its share, and a page of a list in work, it stays under 180 of the chart's 256 MiB.
pub(super) const SHARE: usize = 24 << 20;

/// The bytes that are kept of all namespaces together. The sizes are estimates, and the process takes about twice as much. What is
/// counted for the webhook takes 21 MB more at most, and 1.5 kB for each namespace.
const ROOM: usize = 96 << 20;

/// The most objects of a namespace that are known by name beyond its share: at 200 bytes each, they take as much as the share.
const MOST_NAMES: usize = 120_000;

impl Index {
    /// An index in which nothing is known yet. Of each namespace so many bytes are kept.
    pub(super) fn with_share(installation: Installation, spiffe_ids: SpiffeIds, bytes: usize) -> Self {
        let share = |bytes| Share {
            objects: usize::MAX,
            bytes,
        };
        // All kinds of a namespace count into one share.
        let of_namespace = Shares::naming(share(bytes), Room::new(ROOM), MOST_NAMES);
        // Only administrators write the cluster's policies and boundaries.
        let of_cluster = || Shares::new(share(usize::MAX), Room::new(usize::MAX));
        let for_webhook = WebhookBounds::default();
        let labels = for_webhook.namespaces;
        let of_labels = Shares::new(labels, Room::new(labels.bytes));
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
            for_webhook: WebhookCount::new(&for_webhook),
            refusals: RefusingNamespaces::default(),
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
        self.look_again_at(namespace);
    }

    /// Counts what an event brings as the webhook does. Answers where it keeps another part of the cluster now.
    pub(super) fn count_for_webhook(&mut self, event: &IndexEvent) -> KeptChange {
        match event {
            IndexEvent::ServiceAccount(event) => self.for_webhook.apply_service_account(event),
            IndexEvent::Policy(event) => self.for_webhook.apply_policy(false, event),
            IndexEvent::ClusterPolicy(event) => self.for_webhook.apply_policy(true, event),
            IndexEvent::Boundary(event) => self.for_webhook.apply_boundary(event),
            _ => KeptChange::default(),
        }
    }

    /// Has everything looked at again that depends on what the webhook keeps.
    pub(super) fn note_kept_by_webhook(&mut self, change: &KeptChange, now: Timestamp) {
        for namespace in &change.namespaces {
            let fits = self.for_webhook.keeps_policies(namespace);
            self.refusals.note(namespace, fits, now);
            self.look_again_at(namespace);
        }
        if change.everywhere {
            let fits = self.for_webhook.exceeded_everywhere().is_none();
            self.refusals.note(EVERYWHERE, fits, now);
            self.dirty.everywhere = true;
            self.enqueue_all_statuses();
        }
    }

    /// Has the pods looked at again that the webhook refuses no longer.
    pub(super) fn end_refusals(&mut self, now: Timestamp) {
        while let Some(namespace) = self.refusals.take_ended(now) {
            if &*namespace == EVERYWHERE {
                self.dirty.everywhere = true;
            } else {
                self.dirty.namespaces.insert(namespace);
            }
        }
    }

    /// Has the pods of a namespace and the statuses of its policies looked at again. The cost is linear in these policies.
    fn look_again_at(&mut self, namespace: &str) {
        self.dirty.namespaces.insert(namespace.into());
        let from = PolicyName::namespaced(namespace, "");
        let own = self.objects.range(from..).map(|(name, _)| name);
        let own = own.take_while(|name| name.namespace() == Some(namespace));
        self.dirty.statuses.extend(own.cloned());
    }

    /// True if all replicas of the webhook judge pods of a namespace: they keep all policies that may be about them.
    pub(super) fn webhook_judges(&self, namespace: &str) -> bool {
        !self.refusals.may_refuse(namespace)
    }

    /// The reason why the webhook refuses the pods of a policy of this namespace, or of the cluster, where it doesn't keep all that they are
    /// judged by, for whoever reads the policy's status.
    pub(super) fn refused_by_webhook(&self, namespace: Option<&str>) -> Option<(Reason, String)> {
        let not_kept = namespace.and_then(|namespace| self.for_webhook.not_kept(namespace));
        if let Some(NotKept::Policies(why)) = not_kept {
            let message = format!(
                "the webhook does not keep all policies of this namespace: {why}. Until then it can judge no new pod here, and refuses those that don't opt out"
            );
            return Some((Reason::NamespaceOverShare, message));
        }
        let why = self.for_webhook.exceeded_everywhere()?;
        let message = format!(
            "the webhook does not keep all that concerns every namespace: {why}. Until then it can judge no new pod of any namespace, and refuses those that don't opt out"
        );
        Some((Reason::ClusterOverShare, message))
    }

    /// The sentence for a namespace of which the webhook doesn't keep all service accounts, and so looks them up one by one.
    pub(super) fn looked_up_by_webhook(&self, namespace: Option<&str>) -> Option<String> {
        let NotKept::ServiceAccounts(why) = self.for_webhook.not_kept(namespace?)? else {
            return None;
        };
        Some(format!(
            "the webhook does not keep all service accounts of this namespace: {why}"
        ))
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
                "the pods, service accounts and policies of all namespaces are larger together than the {} MiB that the operator keeps of them, so the pods of this namespace are not counted and its policies not looked at: remove the largest in any namespace",
                ROOM >> 20
            )
        } else {
            format!(
                "the pods, service accounts and policies of this namespace are larger together than the {} MiB that the operator keeps of one namespace, so its pods are not counted and its policies not looked at: remove the largest",
                SHARE >> 20
            )
        };
        let refused = self.refused_by_webhook(Some(namespace)).map(|(_, also)| also);
        Some(match refused.or_else(|| self.looked_up_by_webhook(Some(namespace))) {
            Some(also) => format!("{why}. Besides, {also}"),
            None => why,
        })
    }

    /// The number of namespaces that take more than their share, so that nothing in them is assessed.
    pub(crate) fn namespaces_over_share(&self) -> usize {
        self.over_share.len()
    }

    /// True if a namespace that took more than its share has room again for what was not kept, so that lists are to be read
    /// anew.
    pub(crate) fn wants_lists(&self) -> bool {
        self.pods.wants_list()
            || self.service_accounts.wants_list()
            || self.policies.store(false).wants_list()
            || self.for_webhook.wants_list()
    }
}
