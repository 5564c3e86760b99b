//! The age of what a grant rests on, beside the age of the pod.
//!
//! Times of the API server have whole seconds, so only what is older by the second is older for certain.

use super::{Assessor, KeptPod};
use crate::index::Ages;
use jiff::Timestamp;
use tokenscope_core::{PolicyName, Standing, annotations};

/// Since when the facts around a pod are as they are.
pub(crate) struct FactAges<'a> {
    /// The labels of its namespace.
    pub(crate) namespace: &'a Ages,
    /// The annotations of its service account; none where it has had none that matters.
    pub(crate) account: Option<&'a Ages>,
    /// The boundaries.
    pub(crate) boundaries: Timestamp,
}

impl Assessor<'_> {
    /// True if the pod asked for what it asks for now when it was created, and was to be reviewed: no annotation was written later,
    /// and the namespace was not opted out then.
    pub(super) fn asked_when_created(&self, pod: &KeptPod) -> bool {
        let original = pod.annotation_keys().all(|key| !pod.came_late(key));
        original && pod.created > self.ages.namespace.since(annotations::INJECT)
    }

    /// True if all that gives the pod a role now did so when it was created.
    pub(super) fn was_in_force(
        &self,
        pod: &KeptPod,
        policy: Option<&PolicyName>,
        effective_since: impl Fn(&PolicyName) -> Timestamp,
    ) -> bool {
        let account = self.ages.account.map_or(Timestamp::UNIX_EPOCH, Ages::latest);
        let around = self.asked_when_created(pod) && pod.created > account && self.was_within_boundaries(pod, policy);
        let in_force = |name: &PolicyName| {
            self.policy(name).is_some_and(|policy| {
                let keys = policy.namespace_selector.0.iter();
                pod.created > effective_since(name)
                    && policy.standing_in_time(pod.created) == Standing::Candidate
                    && keys
                        .map(|requirement| self.ages.namespace.since(&requirement.key))
                        .all(|since| pod.created > since)
                    && policy.subjects.iter().any(|subject| {
                        let mut keys = subject.pod_selector.iter().flat_map(|selector| &selector.0);
                        subject.matches(&pod.service_account, &pod.labels)
                            && keys.all(|requirement| !pod.came_late(&requirement.key))
                    })
            })
        };
        around && policy.is_none_or(in_force)
    }

    /// True if no boundary kept the grant away that doesn't any more. Boundaries are not about cluster policies.
    fn was_within_boundaries(&self, pod: &KeptPod, policy: Option<&PolicyName>) -> bool {
        if policy.is_some_and(PolicyName::is_cluster) {
            return true;
        }
        let mut keys = self.policies.boundary_label_keys();
        pod.created > self.ages.boundaries && keys.all(|key| pod.created > self.ages.namespace.since(key))
    }
}
