//! The objects that have to be looked at again, and the order in which that is done.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokenscope_core::PolicyName;

use super::{Index, PodKey};

/// The most pods that one step assesses, and the most policies that it compares with others: some ten milliseconds of work even where
/// each is expensive, after which others have their turn.
const MOST_PODS: usize = 250;
const MOST_POLICIES: usize = 64;

/// The objects that have to be looked at again.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) everywhere: bool,
    pub(super) namespaces: BTreeSet<Box<str>>,
    pub(super) pods: BTreeSet<PodKey>,
    pub(super) policies: BTreeSet<PolicyName>,
    /// Policies whose status may be another one now.
    pub(super) statuses: BTreeSet<PolicyName>,
}

impl Dirty {
    pub(super) fn has_pods_or_policies(&self) -> bool {
        self.everywhere || !(self.namespaces.is_empty() && self.pods.is_empty() && self.policies.is_empty())
    }

    /// A policy states something else, or counts from now on or no longer.
    pub(super) fn mark_policy(&mut self, name: &PolicyName) {
        match name.namespace() {
            Some(namespace) => {
                self.namespaces.insert(namespace.into());
            }
            None => self.everywhere = true,
        }
        self.policies.insert(name.clone());
    }

    fn take_policies(&mut self) -> BTreeSet<PolicyName> {
        let mut policies = BTreeSet::new();
        while policies.len() < MOST_POLICIES
            && let Some(name) = self.policies.pop_first()
        {
            policies.insert(name);
        }
        policies
    }
}

impl Index {
    /// Looks again at a part of what changed; it is to be called again as long as [`Self::is_dirty`].
    pub(crate) fn reassess(&mut self, now: Timestamp) {
        let is_due = self.next_change.is_some_and(|at| at <= now);
        if is_due || !self.dirty.policies.is_empty() {
            self.mark_due_policies(now);
        }
        self.end_refusals(now);
        let policies = self.dirty.take_policies();
        self.update_conflicts(&policies, now);
        self.dirty.statuses.extend(policies);
        if std::mem::take(&mut self.dirty.everywhere) {
            self.dirty.namespaces.extend(self.pods.namespaces().map(Into::into));
        }
        let mut assessed = 0;
        while assessed < MOST_PODS {
            if let Some((namespace, pod)) = self.dirty.pods.pop_first() {
                self.assess_pod(&namespace, &pod, now);
                assessed += 1;
            } else if let Some(namespace) = self.dirty.namespaces.pop_first() {
                let pods = self.pods.iter(&namespace).map(|(pod, _)| pod);
                self.dirty.pods.extend(pods.map(|pod| (namespace.clone(), pod.into())));
            } else {
                break;
            }
        }
    }

    /// A policy whose status may be another one now; each is given once.
    pub(crate) fn take_dirty_status(&mut self) -> Option<PolicyName> {
        self.dirty.statuses.pop_first()
    }

    /// Has the status of a policy looked at again.
    pub(crate) fn enqueue_status(&mut self, name: PolicyName) {
        self.dirty.statuses.insert(name);
    }

    /// Has the status of every policy looked at again.
    pub(crate) fn enqueue_all_statuses(&mut self) {
        self.dirty.statuses.extend(self.objects.keys().cloned());
    }
}
