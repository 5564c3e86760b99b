//! The tools.

use std::path::Path;
use std::process::Command;

/// A server or client that the tests and the demo run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The Kubernetes API server.
    KubeApiserver,
    /// Its store.
    Etcd,
    /// The command line client.
    Kubectl,
    /// Renders and checks the charts.
    Helm,
    /// A Python interpreter that can `import boto3`, the AWS SDK for Python.
    Boto3,
    /// Runs the built-in controllers: Deployments, ServiceAccounts, endpoints.
    KubeControllerManager,
    /// Gives pods their node.
    KubeScheduler,
    /// Runs the pods of a node.
    Kubelet,
    /// Makes Services reachable.
    KubeProxy,
    /// Holds images and containers for the kubelet.
    Containerd,
    /// Its client, which imports images.
    Ctr,
    /// The program that containerd starts for each pod.
    ContainerdShim,
    /// The cluster's DNS server, which runs as a pod.
    CoreDns,
    /// An S3, IAM and STS server, which runs in a cluster's network.
    VersityGateway,
    /// Gives workloads their SPIFFE identities: its server, which signs.
    SpireServer,
    /// Its agent, which looks who asks and serves the Workload API.
    SpireAgent,
    /// Publishes its keys as an OIDC issuer does.
    SpireOidcDiscoveryProvider,
    /// The Kubernetes API server of an older minor version, which takes no forged marks away by itself.
    OlderKubeApiserver,
    /// cert-manager's controller and cainjector; its custom resource definitions are in the folder `crds` beside it.
    CertManager,
    /// A Python interpreter that has MiniStack: IAM, STS and S3 for chains of roles. `-m ministack` runs it.
    MiniStack,
    /// A Python interpreter that has the SDK of the Claude API, and PyJWT.
    Anthropic,
    /// A Python interpreter that has the SDK of Azure, and with it PyJWT.
    Azure,
    /// A Python interpreter that has the SDK of Databricks, and with it google-auth.
    Databricks,
    /// A Python interpreter that has hvac, a client of Vault, and PyJWT.
    Hvac,
    /// A Python interpreter that has the SDK of OpenAI.
    OpenAi,
    /// A Python interpreter that has the command line client of Snowflake. `-m snowflake.cli._app` runs it.
    Snowflake,
}

impl Tool {
    /// The tools that an API server without a node, and its clients, need; in the order in which they are built: what is
    /// needed first comes first.
    pub const BASIC: [Self; 5] = [Self::Etcd, Self::KubeApiserver, Self::Kubectl, Self::Helm, Self::Boto3];

    /// The tools that `cargo xtask cluster` runs.
    pub const CLUSTER: [Self; 12] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::Helm,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::Ctr,
        Self::ContainerdShim,
        Self::CoreDns,
    ];

    /// The tools that give SPIFFE identities.
    pub const SPIRE: [Self; 3] = [Self::SpireServer, Self::SpireAgent, Self::SpireOidcDiscoveryProvider];

    /// Every tool.
    pub const ALL: [Self; 26] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::Helm,
        Self::Boto3,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::Ctr,
        Self::ContainerdShim,
        Self::CoreDns,
        Self::VersityGateway,
        Self::SpireServer,
        Self::SpireAgent,
        Self::SpireOidcDiscoveryProvider,
        Self::OlderKubeApiserver,
        Self::CertManager,
        Self::MiniStack,
        Self::Anthropic,
        Self::Azure,
        Self::Databricks,
        Self::Hvac,
        Self::OpenAi,
        Self::Snowflake,
    ];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Boto3 => "boto3",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Containerd => "containerd",
            Self::Ctr => "ctr",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::CoreDns => "coredns",
            Self::VersityGateway => "versitygw",
            Self::SpireServer => "spire-server",
            Self::SpireAgent => "spire-agent",
            Self::SpireOidcDiscoveryProvider => "oidc-discovery-provider",
            Self::OlderKubeApiserver => "older-kube-apiserver",
            Self::CertManager => "cert-manager",
            Self::MiniStack => "ministack",
            Self::Anthropic => "anthropic",
            Self::Azure => "azure",
            Self::Databricks => "databricks",
            Self::Hvac => "hvac",
            Self::OpenAi => "openai",
            Self::Snowflake => "snowflake",
        }
    }

    /// The environment variable that names the program to take.
    pub fn variable(self) -> String {
        format!("TOKENSCOPE_{}", self.name().to_uppercase().replace('-', "_"))
    }

    /// Build tags: containerd without the snapshotters that need C libraries or file systems which nobody has here.
    pub(super) fn tags(self) -> &'static str {
        match self {
            Self::Containerd | Self::Ctr | Self::ContainerdShim => "no_btrfs,no_devmapper,no_zfs",
            _ => "",
        }
    }

    /// The command that prints the version.
    pub(super) fn version_command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::KubeApiserver
            | Self::OlderKubeApiserver
            | Self::Etcd
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Containerd
            | Self::Ctr
            | Self::VersityGateway
            | Self::SpireServer
            | Self::SpireAgent
            | Self::SpireOidcDiscoveryProvider
            | Self::CertManager => command.arg("--version"),
            Self::ContainerdShim => command.arg("-v"),
            Self::CoreDns => command.arg("-version"),
            Self::Kubectl => command.args(["version", "--client"]),
            Self::Helm => command.args(["version", "--template", "{{.Version}}"]),
            Self::Boto3 => command.args(["-c", "import boto3; print(boto3.__version__)"]),
            Self::Anthropic => command.args(["-c", "import importlib.metadata as m; print(m.version('anthropic'))"]),
            Self::Azure => command.args([
                "-c",
                "import importlib.metadata as m; print(m.version('azure-identity'))",
            ]),
            Self::Databricks => command.args([
                "-c",
                "import importlib.metadata as m; print(m.version('databricks-sdk'))",
            ]),
            Self::Hvac => command.args(["-c", "import importlib.metadata as m; print(m.version('hvac'))"]),
            Self::OpenAi => command.args(["-c", "import importlib.metadata as m; print(m.version('openai'))"]),
            Self::Snowflake => command.args([
                "-c",
                "import importlib.metadata as m; print(m.version('snowflake-cli'))",
            ]),
            Self::MiniStack => command.args(["-c", "import importlib.metadata as m; print(m.version('ministack'))"]),
        };
        command
    }
}
