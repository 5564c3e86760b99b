//! What is built of each tool, and from where.

use super::tool::Tool;

/// What is built, and from where.
pub(super) struct Pin {
    /// The file under tools/ that pins the version.
    pub(super) source: &'static str,
    /// The name that the version stands behind in that file.
    pub(super) module: &'static str,
    /// What Go builds.
    pub(super) package: &'static str,
    /// The first part of the name of the folder in the cache.
    pub(super) folder_name: &'static str,
    /// The program's path in that folder.
    pub(super) program: &'static str,
    /// About how long building takes, for who has no "last time" yet.
    pub(super) usual: &'static str,
}

impl Tool {
    pub(super) fn pin(self) -> Pin {
        match self {
            Self::KubeApiserver => Pin {
                source: "kubernetes/go.mod",
                module: "k8s.io/kubernetes",
                package: "k8s.io/kubernetes/cmd/kube-apiserver",
                folder_name: "kubernetes",
                program: "kube-apiserver",
                usual: "7 min on two cores",
            },
            Self::Kubectl => Pin {
                package: "k8s.io/kubernetes/cmd/kubectl",
                program: "kubectl",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Etcd => Pin {
                source: "etcd/go.mod",
                module: "go.etcd.io/etcd/server/v3",
                package: "go.etcd.io/etcd/server/v3",
                folder_name: "etcd",
                program: "etcd",
                usual: "1 min on two cores",
            },
            Self::Helm => Pin {
                source: "helm/go.mod",
                module: "helm.sh/helm/v4",
                package: "helm.sh/helm/v4/cmd/helm",
                folder_name: "helm",
                program: "helm",
                usual: "3 min on two cores",
            },
            Self::Boto3 => Pin {
                source: "python/requirements.txt",
                module: "boto3",
                package: "boto3",
                folder_name: "boto3",
                program: "bin/python",
                usual: "15 s",
            },
            Self::KubeControllerManager => Pin {
                package: "k8s.io/kubernetes/cmd/kube-controller-manager",
                program: "kube-controller-manager",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::KubeScheduler => Pin {
                package: "k8s.io/kubernetes/cmd/kube-scheduler",
                program: "kube-scheduler",
                usual: "20 s on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Kubelet => Pin {
                package: "k8s.io/kubernetes/cmd/kubelet",
                program: "kubelet",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::KubeProxy => Pin {
                package: "k8s.io/kubernetes/cmd/kube-proxy",
                program: "kube-proxy",
                usual: "20 s on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Containerd => Pin {
                source: "containerd/go.mod",
                module: "github.com/containerd/containerd/v2",
                package: "github.com/containerd/containerd/v2/cmd/containerd",
                folder_name: "containerd",
                program: "containerd",
                usual: "1 min on two cores",
            },
            Self::Ctr => Pin {
                package: "github.com/containerd/containerd/v2/cmd/ctr",
                program: "ctr",
                usual: "20 s on two cores",
                ..Self::Containerd.pin()
            },
            Self::ContainerdShim => Pin {
                package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                program: "containerd-shim-runc-v2",
                usual: "10 s on two cores",
                ..Self::Containerd.pin()
            },
            Self::CoreDns => Pin {
                source: "coredns/go.mod",
                module: "github.com/coredns/coredns",
                package: "github.com/coredns/coredns",
                folder_name: "coredns",
                program: "coredns",
                usual: "2 min on two cores",
            },
            Self::VersityGateway => Pin {
                source: "versity/go.mod",
                module: "github.com/versity/versitygw",
                package: "github.com/versity/versitygw/cmd/versitygw",
                folder_name: "versitygw",
                program: "versitygw",
                usual: "1 min on two cores",
            },
            Self::SpireServer => Pin {
                source: "spire/go.mod",
                module: "github.com/spiffe/spire",
                package: "github.com/spiffe/spire/cmd/spire-server",
                folder_name: "spire",
                program: "spire-server",
                usual: "8 min on two cores",
            },
            Self::SpireAgent => Pin {
                package: "github.com/spiffe/spire/cmd/spire-agent",
                program: "spire-agent",
                usual: "20 s on two cores",
                ..Self::SpireServer.pin()
            },
            Self::SpireOidcDiscoveryProvider => Pin {
                package: "github.com/spiffe/spire/support/oidc-discovery-provider",
                program: "oidc-discovery-provider",
                usual: "10 s on two cores",
                ..Self::SpireServer.pin()
            },
        }
    }
}
