//! The container that keeps a pod's tokens where the cluster itself can't: what the installation says about it.

/// How the sidecar is added to pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Its image.
    pub image: Box<str>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Box<str>,
    /// Where the SPIFFE Workload API's socket comes from.
    pub workload_api: WorkloadApi,
    /// The socket's file in there.
    pub socket_file: Box<str>,
    /// The container's `resources`, a JSON object.
    pub resources: Box<str>,
    /// The container's `securityContext`, a JSON object.
    pub security_context: Box<str>,
    /// What it logs.
    pub log_level: Box<str>,
    /// Why this cluster can't run it, if it can't.
    pub unsupported: Option<Box<str>>,
}

/// What volume has the socket of the SPIFFE Workload API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadApi {
    /// One that this CSI driver makes.
    Csi {
        /// The driver's name.
        driver: Box<str>,
    },
    /// A folder of the node.
    HostPath {
        /// Its path.
        path: Box<str>,
    },
}

impl Default for Sidecar {
    /// The Workload API as spiffe-csi and the chart helm-charts-hardened have it, and what Pod Security "restricted" demands.
    fn default() -> Self {
        Self {
            image: concat!("localhost/tokenscope-sidecar:", env!("CARGO_PKG_VERSION")).into(),
            pull_policy: "IfNotPresent".into(),
            workload_api: WorkloadApi::Csi {
                driver: "csi.spiffe.io".into(),
            },
            socket_file: "spire-agent.sock".into(),
            resources: r#"{"requests":{"cpu":"5m","memory":"8Mi"},"limits":{"cpu":"100m","memory":"32Mi"}}"#.into(),
            security_context: concat!(
                r#"{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,"#,
                r#""runAsGroup":65532,"runAsNonRoot":true,"runAsUser":65532,"seccompProfile":{"type":"RuntimeDefault"}}"#
            )
            .into(),
            log_level: "info".into(),
            unsupported: None,
        }
    }
}
