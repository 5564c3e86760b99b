//! The objects that have to be looked at again, and the order in which that is done.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use tokenscope_core::PolicyName;

use super::{Index, PodKey};
use crate::drift::KeptPod;

/// The most pods that one step assesses, and the most policies that it compares with others: some ten milliseconds of work, after which
/// others have their turn.
const MOST_PODS: usize = 250;
const MOST_POLICIES: usize = 64;
/// A pod counts as one more for each so many bytes of policies with which it is compared. Patterns that are half stars cost about 23
/// nanoseconds a byte, and an assessment compares a few times.
const BYTES_OF_A_POD: usize = 64 << 10;

/// The objects that have to be looked at again.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) everywhere: bool,
    pub(super) namespaces: BTreeSet<Box<str>>,
    pub(super) pods: BTreeSet<PodKey>,
    pub(super) policies: BTreeSet<PolicyName>,
    /// Policies whose status may be another one now.
    pub(super) statuses: BTreeSet<PolicyName>,
    /// The namespace that had its turn last.
    turn: Box<str>,
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

    /// The next namespace of which something has to be looked at again. They take turns, so that one with many pods, each of which is
    /// expensive, keeps no other one waiting.
    fn take_turn(&mut self) -> Option<Box<str>> {
        // The least text that is greater.
        let after = [&*self.turn, "\0"].concat();
        let next: Box<str> = self.first_from(&after).or_else(|| self.first_from(""))?.into();
        self.turn.clone_from(&next);
        Some(next)
    }

    /// The first such namespace whose name is not before this one.
    fn first_from(&self, name: &str) -> Option<&str> {
        let first_pod: PodKey = (name.into(), Box::default());
        let of_pods = self.pods.range(first_pod..).next().map(|(namespace, _)| &**namespace);
        let marked = self.namespaces.range(Box::<str>::from(name)..).next();
        let marked = marked.map(|namespace| &**namespace);
        of_pods.into_iter().chain(marked).min()
    }

    fn take_pod_of(&mut self, namespace: &str) -> Option<PodKey> {
        let first_pod: PodKey = (namespace.into(), Box::default());
        let pod = self.pods.range(first_pod..).next()?;
        let pod = (*pod.0 == *namespace).then(|| pod.clone())?;
        self.pods.remove(&pod);
        Some(pod)
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
        let mut policy_bytes: HashMap<Box<str>, usize> = HashMap::new();
        while assessed < MOST_PODS
            && let Some(namespace) = self.dirty.take_turn()
        {
            if self.dirty.namespaces.remove(&namespace) {
                let pods = self.pods.iter(&namespace).map(|(pod, _)| pod);
                self.dirty.pods.extend(pods.map(|pod| (namespace.clone(), pod.into())));
            }
            if let Some((namespace, pod)) = self.dirty.take_pod_of(&namespace) {
                self.assess_pod(&namespace, &pod, now);
                let comparisons = self.pods.value(&namespace, &pod).map_or(0, KeptPod::comparisons);
                let bytes = policy_bytes.get(&namespace).copied();
                let bytes = bytes.unwrap_or_else(|| self.policy_bytes(&namespace));
                policy_bytes.insert(namespace, bytes);
                assessed += 1 + bytes.saturating_mul(comparisons) / BYTES_OF_A_POD;
            }
        }
    }

    /// The bytes of the policies with which each pod of a namespace is compared, or a part of each pod.
    fn policy_bytes(&self, namespace: &str) -> usize {
        let known = self.namespaces.value("", namespace);
        let labels = known.map(|known| known.labels.borrowed()).unwrap_or_default();
        self.policies.set().compared_bytes(namespace, &labels)
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
