//! How much of each namespace is kept, and what is said where that is not enough.
//!
//! Sizes are estimates of the memory that an object takes here, not of its JSON.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an object takes beside its name and its value's own bytes: its slot in a hash table that is two thirds full, and the
/// allocator's share of two allocations.
pub(super) const ENTRY_BYTES: usize = 112;

/// How much of one group of objects, mostly those of one namespace, is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The most objects.
    pub objects: usize,
    /// The most bytes.
    pub bytes: usize,
}

/// The bounds of a [`super::Cache`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All namespaces' labels together.
    pub namespaces: Share,
    /// The service accounts of one namespace.
    pub service_accounts: Share,
    /// The policies of one namespace.
    pub policies: Share,
    /// The policies of the cluster.
    pub cluster_policies: Share,
    /// The service accounts and policies of all namespaces together, in bytes.
    pub room: usize,
}

impl Default for Bounds {
    /// The whole cache takes at most 64 MiB, half of what the chart allows the process; one namespace takes at most 15 MiB.
    ///
    /// Measured as resident memory: 50,000 annotated service accounts take 11.3 MiB, a share full of annotations of 2 KiB takes
    /// 12.0 MiB, and a share full of policies at most 2.5 MiB.
    fn default() -> Self {
        Self {
            // 10,000 namespaces, Kubernetes' own limit, with a kilobyte of labels each.
            namespaces: Share {
                objects: usize::MAX,
                bytes: 12 << 20,
            },
            // 50,000 annotated service accounts, each with an ARN of 66 bytes.
            service_accounts: Share {
                objects: usize::MAX,
                bytes: 12 << 20,
            },
            // A thousand policies of ordinary size.
            policies: Share {
                objects: 1000,
                bytes: 3 << 20,
            },
            cluster_policies: Share {
                objects: 1000,
                bytes: 4 << 20,
            },
            room: 48 << 20,
        }
    }
}

/// The bytes that several collections may take together. A clone counts into the same sum.
#[derive(Clone, Debug)]
pub(super) struct Room {
    used: Arc<AtomicUsize>,
    most: usize,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self {
            used: Arc::default(),
            most,
        }
    }

    /// Takes `new` bytes in place of `old` ones, if there is room. What gets smaller always fits.
    pub(super) fn exchange(&self, old: usize, new: usize) -> bool {
        let next = |used: usize| {
            let next = used.saturating_sub(old).saturating_add(new);
            (new <= old || next <= self.most).then_some(next)
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Which bound keeps an object out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The namespace's share.
    Share(Share),
    /// The bound of all namespaces, in bytes.
    Room(usize),
}

/// Why a pod can't be judged: not all that its decision needs is kept. `Display` is the sentence that users read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {bound}: {remedy}")]
pub struct ShareExceeded {
    what: String,
    bound: Exceeded,
    remedy: &'static str,
}

impl ShareExceeded {
    pub(super) fn policies(namespace: &str, bound: Exceeded) -> Self {
        Self {
            what: format!("the TokenScopePolicies of namespace {namespace} take"),
            bound,
            remedy: "delete policies that are not needed, or make them smaller",
        }
    }

    pub(super) fn cluster_policies(bound: Exceeded) -> Self {
        Self {
            what: "the ClusterTokenScopePolicies take".to_owned(),
            bound,
            remedy: "delete policies that are not needed, or make them smaller",
        }
    }

    pub(super) fn service_accounts(namespace: &str, bound: Exceeded) -> Self {
        Self {
            what: format!("the service accounts of namespace {namespace} take"),
            bound,
            remedy: "delete service accounts that are not needed; until then few pods a second can be reviewed there",
        }
    }

    pub(super) fn labels(namespace: &str, most: Share) -> Self {
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
                write!(f, "more than their share of {objects} and {} KiB", bytes >> 10)
            }
            Self::Room(bytes) => write!(f, "more than is left of the {} KiB for all namespaces", bytes >> 10),
        }
    }
}
