//! The share of memory of each namespace, and the sentence where it is not enough.
//!
//! Sizes are estimates of the memory that an object takes here, not of its JSON.

use std::fmt;

/// The memory that an object takes beside its name and its value's own bytes: its slot in a hash table that is two thirds
/// full, and the allocator's share of two allocations.
pub(crate) const ENTRY_BYTES: usize = 112;

/// The memory that an object takes whose value takes so many bytes.
pub(crate) fn entry_bytes(name: &str, bytes: usize) -> u32 {
    u32::try_from(ENTRY_BYTES + name.len() + bytes).unwrap_or(u32::MAX)
}

/// A bound on what is kept of one group of objects, mostly those of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The most objects.
    pub objects: usize,
    /// The most bytes.
    pub bytes: usize,
}

/// The bound that keeps an object out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The namespace's share.
    Share(Share),
    /// The bound of all namespaces, in bytes.
    Room(usize),
}

/// The reason why a pod can't be judged: not all that its decision needs is kept. `Display` is the sentence that users read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {bound}: {remedy}")]
pub struct ShareExceeded {
    what: String,
    bound: Exceeded,
    remedy: &'static str,
}

impl ShareExceeded {
    /// True if the room of all namespaces is used up, which nothing in this namespace need have caused.
    pub fn is_of_all_namespaces(&self) -> bool {
        matches!(self.bound, Exceeded::Room(_))
    }

    /// The policies of a namespace do not fit.
    pub fn policies(namespace: &str, bound: Exceeded) -> Self {
        Self {
            what: format!("the TokenScopePolicies of namespace {namespace} take"),
            bound,
            remedy: "delete policies that are not needed, or make them smaller",
        }
    }

    /// The cluster's policies do not fit.
    pub fn cluster_policies(bound: Exceeded) -> Self {
        Self {
            what: "the ClusterTokenScopePolicies take".to_owned(),
            bound,
            remedy: "delete policies that are not needed, or make them smaller",
        }
    }

    /// The boundaries do not fit.
    pub fn boundaries(bound: Exceeded) -> Self {
        Self {
            what: "the TokenScopeBoundaries take".to_owned(),
            bound,
            remedy: "delete boundaries that are not needed, or make them smaller",
        }
    }

    /// The service accounts of a namespace do not fit.
    pub fn service_accounts(namespace: &str, bound: Exceeded) -> Self {
        Self {
            what: format!("the service accounts of namespace {namespace} take"),
            bound,
            remedy: "delete service accounts that are not needed; until then few pods a second can be reviewed there",
        }
    }

    /// The labels of a namespace do not fit.
    pub fn labels(namespace: &str, most: Share) -> Self {
        Self {
            what: format!("the labels of namespace {namespace} take"),
            bound: Exceeded::Share(most),
            remedy: "remove labels that are not needed",
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(Share {
                objects: usize::MAX,
                bytes,
            }) => write!(f, "more than the namespace's share of {} KiB", bytes >> 10),
            Self::Share(Share { objects, bytes }) => {
                write!(
                    f,
                    "more than their share, which is {objects} in number and {} KiB in size",
                    bytes >> 10
                )
            }
            Self::Room(bytes) => write!(f, "more than is left of the {} KiB for all namespaces", bytes >> 10),
        }
    }
}
