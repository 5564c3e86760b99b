//! Bounds on what the cache keeps.

use tokenscope_index::Share;

/// The bounds of a [`super::Cache`].
#[derive(Clone, Copy, Debug)]
pub struct CacheBounds {
    /// All namespaces' labels together.
    pub namespaces: Share,
    /// The service accounts of one namespace.
    pub service_accounts: Share,
    /// The policies of one namespace.
    pub policies: Share,
    /// The policies of the cluster.
    pub cluster_policies: Share,
    /// All boundaries.
    pub boundaries: Share,
    /// The service accounts of all namespaces together, in bytes.
    pub service_account_room: usize,
    /// The policies of all namespaces together, in bytes: nobody's service accounts take their room.
    pub policy_room: usize,
}

impl Default for CacheBounds {
    /// The whole cache takes at most 68 MiB, little more than half of what the chart allows the process; one namespace takes at most 15 MiB.
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
            boundaries: Share {
                objects: 1000,
                bytes: 4 << 20,
            },
            service_account_room: 36 << 20,
            policy_room: 12 << 20,
        }
    }
}
