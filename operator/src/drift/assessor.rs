//! The facts that an assessment needs beside the pod, and how certain they are.

use jiff::{SignedDuration, Timestamp};
use tokenscope_core::{PolicySet, Settings};
use tokenscope_index::{CsiDrivers, PodContext};

use crate::history::{Ages, Past};
use crate::spiffe_ids::SpiffeIds;

/// All that an assessment of a pod looks at, beside the pod.
pub(crate) struct Assessor<'a> {
    /// The pod's namespace and service account.
    pub(crate) context: PodContext<'a>,
    /// Since when that is so.
    pub(crate) ages: FactAges<'a>,
    /// All policies.
    pub(crate) policies: &'a PolicySet,
    /// The installation's settings.
    pub(crate) settings: &'a Settings,
    /// The longest time from a pod's review to its creation.
    pub(crate) review_margin: SignedDuration,
    /// The pods that have an identity of SPIFFE.
    pub(crate) spiffe_ids: &'a SpiffeIds,
    /// The CSI drivers that get tokens.
    pub(crate) csi_drivers: &'a CsiDrivers,
}

/// The times since which the facts around a pod are as they are.
pub(crate) struct FactAges<'a> {
    /// The labels of its namespace.
    pub(crate) namespace: &'a Ages,
    /// The annotations of its service account; none where it has had none that matters.
    pub(crate) account: Option<&'a Ages>,
    /// The boundaries, as they tell themselves.
    pub(crate) boundaries: Timestamp,
    /// The past as far as this process has seen it.
    pub(crate) past: &'a Past,
}

/// The times since which a policy says what it says, by two witnesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyAge {
    /// The time that its status names.
    pub(crate) told: Timestamp,
    /// The time that this process saw, or that the API server has set.
    pub(crate) seen: Timestamp,
}

impl PolicyAge {
    /// The age of a policy of which nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        told: Timestamp::MAX,
        seen: Timestamp::MAX,
    };
}

/// A degree of certainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Certainty {
    /// It is not so, or nothing says that it is.
    No,
    /// All that is there now says so, and nothing proves it.
    Maybe,
    /// It is proven.
    Certain,
}

impl Certainty {
    /// That of a fact.
    pub(super) fn of(is_proven: bool, is_plausible: bool) -> Self {
        match (is_proven, is_plausible) {
            (true, _) => Self::Certain,
            (false, true) => Self::Maybe,
            (false, false) => Self::No,
        }
    }
}
