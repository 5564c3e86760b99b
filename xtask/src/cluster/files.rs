//! The files that a cluster's servers read: certificates, configuration and kubeconfigs.
//!
//! The keys and certificates are made with the `openssl` program. It is there on practically every machine that has root
//! and runc, needs 15 ms for a certificate, and keeps a cryptographic library out of `cargo xtask`, which has to be built
//! before anything else happens.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cgroups::CgroupKind;
use crate::run_quietly;

/// The node's name.
pub(super) const NODE: &str = "node-1";
/// Addresses that are in no use anywhere (RFC 5737), and of a network that only the cluster's namespace knows.
const NODE_IP: &str = "192.0.2.10";
const POD_RANGE: &str = "10.88.0.0/16";
const SERVICE_RANGE: &str = "10.96.0.0/16";
const API_SERVICE_IP: &str = "10.96.0.1";
const DNS_IP: &str = "10.96.0.10";
/// The issuer of the tokens of ServiceAccounts: a name that a test's own server stands for.
pub(super) const ISSUER: &str = "https://oidc.tokenscope.test";

/// The sandbox image's name.
pub(super) const PAUSE_IMAGE: &str = "localhost/tokenscope-pause:1";
/// CoreDNS's image's name.
pub(super) const COREDNS_IMAGE: &str = "localhost/tokenscope-coredns:1";

/// The objects of the cluster's DNS server.
pub(super) const COREDNS: &str = include_str!("coredns.yaml");

pub(super) fn write(state: &Path, kind: CgroupKind, hierarchies: &str, cni: &Path) -> Result<()> {
    for folder in ["bin", "pki", "conf/cni", "log", "marks", "images", "data"] {
        fs::create_dir_all(state.join(folder))?;
    }
    certificates(&state.join("pki"))?;

    let conf = state.join("conf");
    let state = state.to_str().context("the state folder's path is UTF-8")?;
    let cni = cni.to_str().context("the path of the CNI plugins is UTF-8")?;
    fs::write(conf.join("hierarchies"), hierarchies)?;
    fs::write(conf.join("node"), node(kind, cni))?;
    for user in [
        "admin",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
    ] {
        fs::write(conf.join(format!("{user}.kubeconfig")), kubeconfig(state, user))?;
    }
    // Nothing outside is asked: what the cluster's DNS server doesn't know doesn't exist.
    fs::write(conf.join("resolv.conf"), "")?;
    fs::write(conf.join("cni/10-pods.conflist"), pod_network(state))?;
    fs::write(conf.join("containerd.toml"), containerd(state, cni))?;
    fs::write(conf.join("kubelet.yaml"), kubelet(state))?;
    fs::write(conf.join("kube-proxy.yaml"), kube_proxy(state))?;
    Ok(())
}

/// The variables of the node's script.
fn node(kind: CgroupKind, cni: &str) -> String {
    let kind = match kind {
        CgroupKind::Unified => "unified",
        CgroupKind::Hybrid => "hybrid",
    };
    format!(
        "KIND={kind}\nNODE={NODE}\nNODE_IP={NODE_IP}\nPOD_RANGE={POD_RANGE}\nSERVICE_RANGE={SERVICE_RANGE}\n\
         ISSUER={ISSUER}\nCNI={cni}\n"
    )
}

fn kubeconfig(state: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: cluster, cluster: {{server: 'https://{NODE_IP}:6443', certificate-authority: {state}/pki/ca.crt}}}}]
users: [{{name: user, user: {{client-certificate: {state}/pki/{user}.crt, client-key: {state}/pki/{user}.key}}}}]
contexts: [{{name: context, context: {{cluster: cluster, user: user}}}}]
current-context: context
"
    )
}

/// ptp: a pod is one end of a cable whose other end is the node. No bridge, and so no bridge netfilter.
fn pod_network(state: &str) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "ptp", "ipMasq": false, "ipam": {{"type": "host-local", "dataDir": "{state}/data/cni",
    "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#
    )
}

/// `restrict_oom_score_adj`: without the right to lower a process's score (in a container) no sandbox would start.
fn containerd(state: &str, cni: &str) -> String {
    format!(
        "version = 3
root = '{state}/data/containerd'
state = '/run/containerd'
[grpc]
address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.internal.v1.opt']
path = '{state}/data/opt'
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{cni}']
conf_dir = '{state}/conf/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"
    )
}

/// `failCgroupV1`: since 1.35 a kubelet refuses cgroup v1 unless told. `enforceNodeAllocatable`: the servers aren't pods.
/// `syncFrequency`: how soon a changed Secret is seen in a pod. `crashLoopBackOff`: what is killed again and again, or ends until what it needs
/// is there, is never held back for minutes.
fn kubelet(state: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {state}/pki/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {state}/pki/kubelet.crt
tlsPrivateKeyFile: {state}/pki/kubelet.key
address: {NODE_IP}
clusterDNS: [{DNS_IP}]
clusterDomain: cluster.local
resolvConf: {state}/conf/resolv.conf
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
enforceNodeAllocatable: []
syncFrequency: 2s
crashLoopBackOff: {{maxContainerRestartPeriod: 20s}}
volumePluginDir: {state}/data/plugins
"
    )
}

/// Zeros: kernels before the settings were per network namespace would have them changed for the whole machine.
fn kube_proxy(state: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: {POD_RANGE}
clientConnection: {{kubeconfig: {state}/conf/kube-proxy.kubeconfig}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"
    )
}

/// A certificate to make: its file's name, its subject, and the names it serves under.
type Leaf = (&'static str, String, String);

fn certificates(folder: &Path) -> Result<()> {
    let server = format!(
        "IP:{NODE_IP},IP:{API_SERVICE_IP},IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    );
    let user = |name: &'static str, subject: &str| (name, subject.to_owned(), String::new());
    let leaves: [Leaf; 7] = [
        ("kube-apiserver", "/CN=kube-apiserver".to_owned(), server),
        (
            "kubelet",
            format!("/O=system:nodes/CN=system:node:{NODE}"),
            format!("IP:{NODE_IP},DNS:{NODE}"),
        ),
        user(
            "kube-apiserver-kubelet-client",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
        ),
        user("admin", "/O=system:masters/CN=admin"),
        user("kube-controller-manager", "/CN=system:kube-controller-manager"),
        user("kube-scheduler", "/CN=system:kube-scheduler"),
        user("kube-proxy", "/CN=system:kube-proxy"),
    ];
    let authority = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n";
    certificate(folder, "ca", "/CN=tokenscope test cluster", authority, false)?;
    std::thread::scope(|scope| {
        // AWS accepts RS256 only.
        let tokens = scope.spawn(|| {
            run_quietly(
                Command::new("openssl")
                    .args(["genrsa", "-out"])
                    .arg(folder.join("service-accounts.key"))
                    .arg("2048"),
            )
            .map(drop)
        });
        let made: Vec<_> = leaves
            .iter()
            .map(|(name, subject, names)| {
                scope.spawn(move || {
                    let names = if names.is_empty() {
                        String::new()
                    } else {
                        format!("subjectAltName = {names}\n")
                    };
                    let extensions = format!(
                        "basicConstraints = critical, CA:FALSE\nextendedKeyUsage = clientAuth, serverAuth\n{names}"
                    );
                    certificate(folder, name, subject, &extensions, true)
                })
            })
            .collect();
        made.into_iter()
            .chain([tokens])
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

fn certificate(folder: &Path, name: &str, subject: &str, extensions: &str, signed: bool) -> Result<()> {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    // A configuration of our own, so that the machine's has no say.
    fs::write(
        file("cnf"),
        format!(
            "[req]\ndistinguished_name = subject\nx509_extensions = extensions\n[subject]\n[extensions]\n{extensions}"
        ),
    )?;
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-days", "365", "-subj", subject])
        .arg("-config")
        .arg(file("cnf"))
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("crt"));
    if signed {
        command.arg("-CA").arg(folder.join("ca.crt"));
        command.arg("-CAkey").arg(folder.join("ca.key"));
    }
    run_quietly(&mut command).map(drop)
}
