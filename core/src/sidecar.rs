//! The container that keeps a pod's tokens where the cluster itself can't: what the installation says about it, and the contract
//! between the webhook, which writes the container, and the program that runs in it.

use std::collections::BTreeMap;

use crate::credentials_endpoint::DEFAULT_PORT;

/// The program in its image.
pub const PROGRAM: &str = "/tokenscope-sidecar";
/// The program's command that says whether every file is there and valid: its exit status is 0 if so.
pub const READY: &str = "ready";
/// The program's command that writes files from its arguments, pairs of a path and a text, and ends.
pub const WRITE: &str = "write";
/// The file of a token that the webhook asks for, in the folder of its volume.
pub const TOKEN_FILE: &str = "token";
/// The folder where the webhook mounts the volume that has the Workload API's socket.
pub const SOCKET_FOLDER: &str = "/spiffe-workload-api";
/// The folder where the webhook mounts the volume with the token that the sidecar shows the issuer.
pub const SUBJECT_TOKEN_FOLDER: &str = "/tokenscope-subject-token";
/// The file with the keys that JWT-SVIDs are signed with.
pub const JWT_BUNDLE_FILE: &str = "jwt_bundle.json";
/// The file of an X.509-SVID: the certificate, and those of authorities between.
pub const X509_SVID_FILE: &str = "svid.pem";
/// The file of an X.509-SVID's private key.
pub const X509_KEY_FILE: &str = "svid_key.pem";
/// The file with the authorities of an X.509-SVID's trust domain.
pub const X509_BUNDLE_FILE: &str = "svid_bundle.pem";

/// The most bytes of the file with the authorities of the issuer's certificate, in all that read it. What it has stands in every pod that
/// gets tokens of the issuer ([`variables::ISSUER_CA`]), so it must stay small.
pub const MOST_ISSUER_CA_BYTES: u64 = 32 << 10;

/// The environment of the program. The webhook writes these variables, and every sidecar that runs in a pod was started with what
/// the webhook of its time wrote, so the names and the form of the values never change.
pub mod variables {
    /// The folder of the files: a path.
    pub const DIRECTORY: &str = "TOKENSCOPE_DIRECTORY";
    /// The tokens: `FILE=AUDIENCE`, separated by white space.
    pub const JWT_SVIDS: &str = "TOKENSCOPE_JWT_SVIDS";
    /// The identity, by its SPIFFE ID.
    pub const SPIFFE_ID: &str = "TOKENSCOPE_SPIFFE_ID";
    /// The identity, by its hint.
    pub const HINT: &str = "TOKENSCOPE_HINT";
    /// The identity, by its trust domain.
    pub const TRUST_DOMAIN: &str = "TOKENSCOPE_TRUST_DOMAIN";
    /// The Workload API's socket: `unix://` and an absolute path (SPIFFE Workload Endpoint, section 4).
    pub const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
    /// The switch for an X.509-SVID beside the token: `true` or `false`.
    pub const X509_SVID: &str = "TOKENSCOPE_X509_SVID";
    /// The switch for the keys that JWT-SVIDs are signed with: `true` or `false`.
    pub const JWT_BUNDLE: &str = "TOKENSCOPE_JWT_BUNDLE";
    /// The issuer that tokens are exchanged at: the URL that `/token` follows, which may be another one than that in the tokens.
    pub const ISSUER: &str = "TOKENSCOPE_ISSUER";
    /// The authorities of the issuer's certificate, as PEM. No others are trusted.
    pub const ISSUER_CA: &str = "TOKENSCOPE_ISSUER_CA";
    /// The file with the pod's own token, which is exchanged: a path.
    pub const SUBJECT_TOKEN: &str = "TOKENSCOPE_SUBJECT_TOKEN";
    /// The tokens of the issuer: `FILE=AUDIENCE`, separated by white space.
    pub const ISSUED_TOKENS: &str = "TOKENSCOPE_ISSUED_TOKENS";
    /// The lifetime that the issuer is asked for, in seconds.
    pub const TOKEN_LIFETIME: &str = "TOKENSCOPE_TOKEN_LIFETIME";
    /// The pod's name, of which the kubelet makes a part of the arguments of [`WRITE`](super::WRITE), and of
    /// [`ENDPOINT_VARIABLE`](crate::credentials_endpoint::ENDPOINT_VARIABLE).
    pub const POD_NAME: &str = "TOKENSCOPE_POD_NAME";
    /// The folder that has one for each container's authorization token, in place of
    /// [`AUTHORIZATION_FOLDERS`](crate::credentials_endpoint::AUTHORIZATION_FOLDERS): a path.
    pub const AUTHORIZATION_FOLDERS: &str = "TOKENSCOPE_AUTHORIZATION_FOLDERS";
    /// The lowest level that is logged: `off`, `error`, `warn`, `info` or `debug`.
    pub const LOG_LEVEL: &str = "TOKENSCOPE_LOG_LEVEL";
    /// The mark of an environment that the webhook wrote: `true` or `false`. The program then takes no options.
    pub const INJECTED: &str = "TOKENSCOPE_INJECTED";
}

/// The settings of the sidecar that pods get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarSettings {
    /// Its image where a SPIFFE provider signs the tokens.
    pub image: Box<str>,
    /// Its image where tokenscope's own issuer does.
    pub issuer_image: Box<str>,
    /// Its image where it serves credentials, whoever signs the tokens.
    pub endpoint_image: Box<str>,
    /// The port on which it serves them, on the pod's loopback addresses.
    pub endpoint_port: u16,
    /// The URL of AWS STS that it asks in place of those of the regions.
    pub sts_url: Option<Box<str>>,
    /// The authorities of STS's certificate, as PEM, in place of the public ones.
    pub sts_authorities: Option<Box<str>>,
    /// The address at which it reaches the issuer; `None` where that is the issuer's URL.
    pub issuer_endpoint: Option<Box<str>>,
    /// The authorities of the issuer's certificate, as PEM; `None` while they are not known.
    pub issuer_authorities: Option<Box<str>>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Box<str>,
    /// The source of the SPIFFE Workload API's socket.
    pub workload_api: WorkloadApi,
    /// The socket's file in there.
    pub socket_file: Box<str>,
    /// The container's `resources`, a JSON object.
    pub resources: Box<str>,
    /// The same for pods of single namespaces, by their names.
    pub namespace_resources: BTreeMap<Box<str>, Box<str>>,
    /// The Secrets of the pod's namespace that its image is pulled with.
    pub pull_secrets: Vec<Box<str>>,
    /// The readiness probe, which fails once a token has expired; `None` for none.
    pub readiness: Option<Readiness>,
    /// The container's `securityContext`, a JSON object.
    pub security_context: Box<str>,
    /// The lowest level that it logs.
    pub log_level: Box<str>,
    /// The reason why this cluster can't run it, if it can't.
    pub unsupported: Option<Box<str>>,
}

/// The kubelet's questions to the sidecar, and the failures that make its pod not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The seconds from one question to the next.
    pub period_seconds: u32,
    /// The failures in a row. Each is an Event of the pod with the sidecar's words, whether the pod stays ready or not.
    pub failures: u32,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            period_seconds: 30,
            failures: 3,
        }
    }
}

impl SidecarSettings {
    /// The container's `resources` in a pod of this namespace, a JSON object.
    pub fn resources_in(&self, namespace: &str) -> &str {
        self.namespace_resources.get(namespace).unwrap_or(&self.resources)
    }
}

/// The volume that has the socket of the SPIFFE Workload API.
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

impl Default for SidecarSettings {
    /// The Workload API as spiffe-csi and the chart helm-charts-hardened have it, and what Pod Security "restricted" demands.
    fn default() -> Self {
        Self {
            image: concat!("localhost/tokenscope-sidecar:", env!("CARGO_PKG_VERSION")).into(),
            issuer_image: concat!("localhost/tokenscope-sidecar-issuer:", env!("CARGO_PKG_VERSION")).into(),
            endpoint_image: concat!("localhost/tokenscope-sidecar-endpoint:", env!("CARGO_PKG_VERSION")).into(),
            endpoint_port: DEFAULT_PORT,
            sts_url: None,
            sts_authorities: None,
            issuer_endpoint: None,
            issuer_authorities: None,
            pull_policy: "IfNotPresent".into(),
            workload_api: WorkloadApi::Csi {
                driver: "csi.spiffe.io".into(),
            },
            socket_file: "spire-agent.sock".into(),
            resources: r#"{"requests":{"cpu":"5m","memory":"8Mi"},"limits":{"cpu":"100m","memory":"32Mi"}}"#.into(),
            namespace_resources: BTreeMap::new(),
            pull_secrets: Vec::new(),
            readiness: Some(Readiness::default()),
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
