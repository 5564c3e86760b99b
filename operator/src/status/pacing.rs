//! The pace at which a policy's status may be written.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokenscope_core::PolicyName;
use tokenscope_crds::v1alpha1::PolicyStatus;
use tokio::time::{Duration, Instant};

/// The time between two writes of one policy that only count pods anew.
const COUNT_PAUSE: Duration = Duration::from_secs(2);
/// After a write of a policy that failed.
const RETRY: Duration = Duration::from_secs(5);

/// The writes that run, and what waits.
#[derive(Default)]
pub(super) struct Pacing {
    in_flight: HashSet<PolicyName>,
    /// The time when the last write ended well.
    written: HashMap<PolicyName, Instant>,
    /// Not before then.
    held_back: BTreeMap<PolicyName, Instant>,
    /// The policies whose status could not be written, and of which an Event told.
    refused: HashSet<PolicyName>,
}

impl Pacing {
    /// The time when something that is held back may be written.
    pub(super) fn next(&self) -> Option<Instant> {
        self.held_back.values().min().copied()
    }

    /// Takes out what need not be held back any longer.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<PolicyName> {
        let due = self.held_back.iter().filter(|(_, at)| **at <= now);
        let due: Vec<PolicyName> = due.map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.held_back.remove(name);
        }
        due
    }

    /// True if a policy is written or held back, so that it is looked at again in any case.
    pub(super) fn is_waiting(&self, name: &PolicyName) -> bool {
        self.in_flight.contains(name) || self.held_back.contains_key(name)
    }

    /// True if a write may begin now, which is noted; otherwise it is held back.
    pub(super) fn may_begin(
        &mut self,
        name: &PolicyName,
        present: &PolicyStatus,
        wanted: &PolicyStatus,
        now: Instant,
    ) -> bool {
        let earliest = self.written.get(name).map(|at| *at + COUNT_PAUSE);
        if let Some(earliest) = earliest.filter(|at| now < *at && says_the_same(present, wanted)) {
            self.held_back.insert(name.clone(), earliest);
            return false;
        }
        self.in_flight.insert(name.clone())
    }

    /// A write ended well.
    pub(super) fn note_written(&mut self, name: &PolicyName, now: Instant) {
        self.in_flight.remove(name);
        self.refused.remove(name);
        self.written.insert(name.clone(), now);
        self.forget(now);
    }

    /// There was nothing to write to.
    pub(super) fn note_gone(&mut self, name: &PolicyName, now: Instant) {
        self.in_flight.remove(name);
        self.refused.remove(name);
        self.held_back.insert(name.clone(), now + RETRY);
        self.forget(now);
    }

    /// A write failed; answers whether it is the first one in a row.
    pub(super) fn note_failed(&mut self, name: &PolicyName, now: Instant) -> bool {
        self.in_flight.remove(name);
        self.held_back.insert(name.clone(), now + RETRY);
        self.forget(now);
        self.refused.insert(name.clone())
    }

    fn forget(&mut self, now: Instant) {
        self.written.retain(|_, at| now < *at + COUNT_PAUSE);
    }
}

/// True if two statuses differ in counts only, which may wait a little.
fn says_the_same(one: &PolicyStatus, other: &PolicyStatus) -> bool {
    let reasons = |status: &PolicyStatus| -> Vec<(String, String)> {
        let conditions = status.conditions.iter();
        conditions
            .map(|present| (present.type_.clone(), present.reason.clone()))
            .collect()
    };
    one.observed_generation == other.observed_generation
        && reasons(one) == reasons(other)
        && one.trust_policies == other.trust_policies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pods: i64, generation: i64) -> PolicyStatus {
        PolicyStatus {
            matched_pods: Some(pods),
            observed_generation: Some(generation),
            ..PolicyStatus::default()
        }
    }

    #[test]
    fn a_status_that_only_counts_anew_waits_and_one_that_says_another_thing_does_not() {
        let (mut pacing, now, name) = (
            Pacing::default(),
            Instant::now(),
            PolicyName::namespaced("shop", "orders"),
        );
        assert!(pacing.may_begin(&name, &status(1, 1), &status(2, 1), now));
        assert!(pacing.is_waiting(&name));
        pacing.note_written(&name, now);
        assert!(!pacing.is_waiting(&name));
        assert!(!pacing.may_begin(&name, &status(2, 1), &status(3, 1), now));
        assert_eq!(pacing.next(), Some(now + COUNT_PAUSE));
        assert!(pacing.take_due(now).is_empty());
        assert_eq!(pacing.take_due(now + COUNT_PAUSE), std::slice::from_ref(&name));
        assert!(pacing.may_begin(&name, &status(2, 1), &status(2, 2), now));
    }

    #[test]
    fn a_write_that_fails_is_told_once_and_tried_again() {
        let (mut pacing, now, name) = (Pacing::default(), Instant::now(), PolicyName::cluster("all"));
        assert!(pacing.note_failed(&name, now));
        assert!(!pacing.note_failed(&name, now));
        assert_eq!(pacing.take_due(now + RETRY).len(), 1);
        pacing.note_written(&name, now);
        assert!(pacing.note_failed(&name, now), "after one that went well");
    }
}
