//! The package that is built of each tool, and its source.

use std::fs;

use anyhow::{Context, Result};

use super::tool::Tool;
use crate::root;

/// A package that is built, and its source.
pub(super) struct Pin {
    /// The file under tools/ that pins the version.
    pub(super) source: &'static str,
    /// The name that the version stands behind in that file.
    pub(super) module: &'static str,
    /// The package that Go builds.
    pub(super) package: &'static str,
    /// The first part of the name of the folder in the cache.
    pub(super) folder_name: &'static str,
    /// The program's path in that folder.
    pub(super) program: &'static str,
    /// About how long building takes, for who has no "last time" yet.
    pub(super) usual: &'static str,
}

impl Tool {
    /// The version that `tools/` pins, without a leading `v`.
    pub fn pinned_version(self) -> Result<String> {
        let Pin { source, module, .. } = self.pin();
        let file = root().join("tools").join(source);
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let version = text.lines().find_map(|line| {
            let line = line.trim();
            let rest = line.strip_prefix("require ").unwrap_or(line).strip_prefix(module)?;
            let version = rest.strip_prefix(" v").or_else(|| rest.strip_prefix("=="))?;
            version.split_whitespace().next()
        });
        Ok(version
            .with_context(|| format!("{} pins no version of {module}", file.display()))?
            .to_owned())
    }

    pub(super) const fn pin(self) -> Pin {
        match self {
            Self::KubeApiserver => KUBE_APISERVER,
            Self::OlderKubeApiserver => OLDER_KUBE_APISERVER,
            Self::Kubectl => KUBECTL,
            Self::Etcd => ETCD,
            Self::Helm => HELM,
            Self::Boto3 => BOTO3,
            Self::KubeControllerManager => KUBE_CONTROLLER_MANAGER,
            Self::KubeScheduler => KUBE_SCHEDULER,
            Self::Kubelet => KUBELET,
            Self::KubeProxy => KUBE_PROXY,
            Self::Containerd => CONTAINERD,
            Self::Ctr => CTR,
            Self::ContainerdShim => CONTAINERD_SHIM,
            Self::CoreDns => CORE_DNS,
            Self::VersityGateway => VERSITY_GATEWAY,
            Self::SpireServer => SPIRE_SERVER,
            Self::SpireAgent => SPIRE_AGENT,
            Self::SpireOidcDiscoveryProvider => SPIRE_OIDC_DISCOVERY_PROVIDER,
            Self::CertManager => CERT_MANAGER,
            Self::MiniStack => MINI_STACK,
            Self::Anthropic => ANTHROPIC,
            Self::Azure => AZURE,
            Self::Databricks => DATABRICKS,
            Self::Hvac => HVAC,
            Self::OpenAi => OPEN_AI,
            Self::Snowflake => SNOWFLAKE,
        }
    }
}

const KUBE_APISERVER: Pin = Pin {
    source: "kubernetes/go.mod",
    module: "k8s.io/kubernetes",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    folder_name: "kubernetes",
    program: "kube-apiserver",
    usual: "7 min on two cores",
};

const OLDER_KUBE_APISERVER: Pin = Pin {
    source: "kubernetes-1.34/go.mod",
    usual: "4 min on two cores",
    ..KUBE_APISERVER
};

const KUBECTL: Pin = Pin {
    package: "k8s.io/kubernetes/cmd/kubectl",
    program: "kubectl",
    usual: "1 min on two cores",
    ..KUBE_APISERVER
};

const ETCD: Pin = Pin {
    source: "etcd/go.mod",
    module: "go.etcd.io/etcd/server/v3",
    package: "go.etcd.io/etcd/server/v3",
    folder_name: "etcd",
    program: "etcd",
    usual: "1 min on two cores",
};

const HELM: Pin = Pin {
    source: "helm/go.mod",
    module: "helm.sh/helm/v4",
    package: "helm.sh/helm/v4/cmd/helm",
    folder_name: "helm",
    program: "helm",
    usual: "3 min on two cores",
};

const BOTO3: Pin = Pin {
    source: "python/requirements.txt",
    module: "boto3",
    package: "boto3",
    folder_name: "boto3",
    program: "bin/python",
    usual: "15 s",
};

const ANTHROPIC: Pin = Pin {
    source: "anthropic/requirements.txt",
    module: "anthropic",
    package: "anthropic",
    folder_name: "anthropic",
    program: "bin/python",
    usual: "15 s",
};

const AZURE: Pin = Pin {
    source: "azure/requirements.txt",
    module: "azure-identity",
    package: "azure-identity",
    folder_name: "azure",
    program: "bin/python",
    usual: "15 s",
};

const DATABRICKS: Pin = Pin {
    source: "databricks/requirements.txt",
    module: "databricks-sdk",
    package: "databricks-sdk",
    folder_name: "databricks",
    program: "bin/python",
    usual: "15 s",
};

const HVAC: Pin = Pin {
    source: "hvac/requirements.txt",
    module: "hvac",
    package: "hvac",
    folder_name: "hvac",
    program: "bin/python",
    usual: "15 s",
};

const OPEN_AI: Pin = Pin {
    source: "openai/requirements.txt",
    module: "openai",
    package: "openai",
    folder_name: "openai",
    program: "bin/python",
    usual: "15 s",
};

const SNOWFLAKE: Pin = Pin {
    source: "snowflake/requirements.txt",
    module: "snowflake-cli",
    package: "snowflake-cli",
    folder_name: "snowflake",
    program: "bin/python",
    usual: "1 min",
};

const MINI_STACK: Pin = Pin {
    source: "ministack/requirements.txt",
    module: "ministack",
    package: "ministack",
    folder_name: "ministack",
    program: "bin/python",
    usual: "15 s",
};

const KUBE_CONTROLLER_MANAGER: Pin = Pin {
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    program: "kube-controller-manager",
    usual: "1 min on two cores",
    ..KUBE_APISERVER
};

const KUBE_SCHEDULER: Pin = Pin {
    package: "k8s.io/kubernetes/cmd/kube-scheduler",
    program: "kube-scheduler",
    usual: "20 s on two cores",
    ..KUBE_APISERVER
};

const KUBELET: Pin = Pin {
    package: "k8s.io/kubernetes/cmd/kubelet",
    program: "kubelet",
    usual: "1 min on two cores",
    ..KUBE_APISERVER
};

const KUBE_PROXY: Pin = Pin {
    package: "k8s.io/kubernetes/cmd/kube-proxy",
    program: "kube-proxy",
    usual: "20 s on two cores",
    ..KUBE_APISERVER
};

const CONTAINERD: Pin = Pin {
    source: "containerd/go.mod",
    module: "github.com/containerd/containerd/v2",
    package: "github.com/containerd/containerd/v2/cmd/containerd",
    folder_name: "containerd",
    program: "containerd",
    usual: "1 min on two cores",
};

const CTR: Pin = Pin {
    package: "github.com/containerd/containerd/v2/cmd/ctr",
    program: "ctr",
    usual: "20 s on two cores",
    ..CONTAINERD
};

const CONTAINERD_SHIM: Pin = Pin {
    package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    program: "containerd-shim-runc-v2",
    usual: "10 s on two cores",
    ..CONTAINERD
};

const CORE_DNS: Pin = Pin {
    source: "coredns/go.mod",
    module: "github.com/coredns/coredns",
    package: "github.com/coredns/coredns",
    folder_name: "coredns",
    program: "coredns",
    usual: "2 min on two cores",
};

const VERSITY_GATEWAY: Pin = Pin {
    source: "versity/go.mod",
    module: "github.com/versity/versitygw",
    package: "github.com/versity/versitygw/cmd/versitygw",
    folder_name: "versitygw",
    program: "versitygw",
    usual: "1 min on two cores",
};

const SPIRE_SERVER: Pin = Pin {
    source: "spire/go.mod",
    module: "github.com/spiffe/spire",
    package: "github.com/spiffe/spire/cmd/spire-server",
    folder_name: "spire",
    program: "spire-server",
    usual: "8 min on two cores",
};

const SPIRE_AGENT: Pin = Pin {
    package: "github.com/spiffe/spire/cmd/spire-agent",
    program: "spire-agent",
    usual: "20 s on two cores",
    ..SPIRE_SERVER
};

const SPIRE_OIDC_DISCOVERY_PROVIDER: Pin = Pin {
    package: "github.com/spiffe/spire/support/oidc-discovery-provider",
    program: "oidc-discovery-provider",
    usual: "10 s on two cores",
    ..SPIRE_SERVER
};

const CERT_MANAGER: Pin = Pin {
    source: "cert-manager/go.mod",
    module: "github.com/cert-manager/cert-manager",
    package: ".",
    folder_name: "cert-manager",
    program: "cert-manager",
    usual: "3 min on two cores",
};
