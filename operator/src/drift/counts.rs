//! The number of pods in each state.

use super::PodState;

/// The numbers of pods in each relation to a policy, or to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodCounts {
    /// The pods to which it grants something now.
    pub(crate) matched: i64,
    /// The pods that have it.
    pub(crate) injected: i64,
    /// The pods that should have had it from the beginning, and have not.
    pub(crate) missed: i64,
    /// The pods that a restart would change; also pods to which it no longer grants what they have.
    pub(crate) outdated: i64,
    /// The outdated ones that may have been meant to have it from the beginning; nothing proves that.
    pub(crate) maybe_missed: i64,
    /// The pods whose tokens come from SPIFFE, and to which nothing gives an identity.
    pub(crate) without_spiffe_id: i64,
}

impl PodCounts {
    /// Counts a pod in, or out by -1.
    pub(crate) fn add(&mut self, state: PodState, matched: bool, by: i64) {
        if matched {
            self.matched += by;
        }
        match state {
            PodState::Injected => self.injected += by,
            PodState::Missed => self.missed += by,
            PodState::Outdated => self.outdated += by,
            PodState::MaybeMissed => {
                self.outdated += by;
                self.maybe_missed += by;
            }
        }
    }
}

impl PodCounts {
    /// The counts with their names in metrics.
    pub(crate) fn by_state(self) -> [(&'static str, i64); 4] {
        [
            ("matched", self.matched),
            ("injected", self.injected),
            ("missed", self.missed),
            ("outdated", self.outdated),
        ]
    }
}
