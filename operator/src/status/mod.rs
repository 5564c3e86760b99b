//! The status of policies: what it should be ([`build`]), and its writing ([`writer`]) when that is due ([`pacing`]).

mod build;
mod issuer_url;
mod notes;
mod pacing;
mod trust;
mod update;
mod writer;

use jiff::Timestamp;
use tokenscope_core::PolicyName;
use tokenscope_crds::v1alpha1::PolicyStatus;
pub(crate) use writer::StatusWriter;

use crate::index::Index;

/// The status that a policy has, and the one that it should have; the same if there is nothing to write.
pub(crate) fn statuses<'a>(
    index: &'a Index,
    name: &PolicyName,
    now: Timestamp,
) -> Option<(&'a PolicyStatus, PolicyStatus)> {
    let info = index.policy_info(name)?;
    let wanted = match info.facts {
        Ok(facts) => build::status(info.status, &facts, now),
        Err(why) => build::over_share(info.status, info.generation, why, now),
    };
    Some((info.status, wanted))
}
