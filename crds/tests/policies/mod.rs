//! Policies, good and bad: for the reader here, and for a real API server in e2e/tests/schema.rs.

mod bad_claims;
mod bad_conditions;
mod bad_delivery;
mod bad_grants;
mod bad_outbound;
mod good;
mod size;

pub(crate) use good::GOOD;
pub(crate) use size::{longest, too_long};

/// A field's path as the message has it, and a part of what the message says would be right.
pub(crate) type Complaint = (&'static str, &'static str);

/// A spec that is wrong: its case, its YAML, and the complaint about it.
type BadSpec = (&'static str, &'static str, Complaint);

/// Specs that are wrong, and the complaint about each.
pub(crate) fn bad() -> impl Iterator<Item = &'static BadSpec> {
    [
        bad_grants::BAD,
        bad_claims::BAD,
        bad_conditions::BAD,
        bad_delivery::BAD,
        bad_outbound::BAD,
    ]
    .into_iter()
    .flatten()
}
