//! The difference between what a running pod has and what the policies give it now.

mod added;
mod age;
mod assess;
mod assessor;
mod association;
mod authority;
mod counts;
mod pod;
mod volumes;
mod watched;

pub(crate) use assessor::{Assessor, FactAges, PolicyAge};
pub(crate) use authority::IssuerAuthority;
pub(crate) use counts::PodCounts;
pub(crate) use pod::{ChangedKeys, KeptPod};
use tokenscope_core::PolicyName;

/// A pod's state beside what it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PodState {
    /// It has what it should have.
    Injected,
    /// It was created before it was meant to have what it should have now: a restart would change it.
    Outdated,
    /// A restart would change it. It may have been meant to have all that when it was created; nothing proves it.
    MaybeMissed,
    /// It was certainly meant to have all that when it was created, and has not.
    Missed,
}

/// The assessment of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assessment {
    /// Its state; none where it has and should have nothing.
    pub(crate) state: Option<PodState>,
    /// The policies for which it counts.
    pub(crate) shares: Box<[PolicyShare]>,
    /// True if a missed pod should have had its credentials whatever its labels and annotations say, so that another one in
    /// its place gets them: whoever may patch a pod must not make the operator evict it.
    pub(crate) lacks_for_certain: bool,
    /// True if its tokens come from SPIFFE and nothing gives it an identity.
    pub(crate) without_spiffe_id: bool,
    /// The policy with `onExpiry: Evict` that gave it what it has, is no longer in force, and has no other in its place.
    pub(crate) expired: Option<PolicyName>,
    /// True if it holds a token of a locked audience that no policy grants it.
    pub(crate) holds_ungranted_token: bool,
}

/// A pod's part in a policy's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyShare {
    /// The policy.
    pub(crate) policy: PolicyName,
    /// The pod's state for it.
    pub(crate) state: PodState,
    /// True if the policy grants the pod something now; otherwise it did once.
    pub(crate) grants: bool,
}
