//! Real SPIRE in a cluster with a node: server, agent and OIDC discovery provider run as pods, and the agent attests pods
//! by what the kubelet says of them.
//!
//! The Workload API's socket is in a folder of the node. The SPIFFE CSI driver is not part of SPIRE; something of ours stands
//! for it where a test asks for one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::oci::Image;
use tokenscope_xtask::root;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::aws::Aws;
use crate::csi::{self, DRIVER};
use crate::node::{NOTICED, Node};
use crate::pki::CertificateAuthority;
use crate::probes::with_libraries;

/// The trust domain.
pub const TRUST_DOMAIN: &str = "example.test";

/// The issuer that SPIRE's tokens name, at which the discovery provider is.
pub const ISSUER: &str = "https://spire-oidc.tokenscope.test";

/// The discovery provider's address; RFC 5737, as the stand-in's.
const ISSUER_ADDRESS: &str = "198.51.100.20";

const MANIFESTS: &str = include_str!("spire_cluster.yaml");

/// The folder of the node that has the agent's socket.
const SOCKETS: &str = "/run/spire/agent-sockets";

/// What a node and its pods need to start, on a busy machine.
const DEADLINE: &str = "--timeout=300s";

/// The kind of key that SPIRE signs JWT-SVIDs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `rsa-2048`: RS256, as the Helm chart helm-charts-hardened has it.
    Rsa,
    /// `ec-p256`: ES256, SPIRE's own default.
    EllipticCurve,
}

impl Keys {
    fn kind(self) -> &'static str {
        match self {
            Self::Rsa => "rsa-2048",
            Self::EllipticCurve => "ec-p256",
        }
    }

    /// The `alg` of its tokens.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Rsa => "RS256",
            Self::EllipticCurve => "ES256",
        }
    }
}

/// Running SPIRE. It ends with the cluster.
#[derive(Debug)]
pub struct SpireCluster<'a> {
    node: &'a Node,
}

impl<'a> SpireCluster<'a> {
    /// Starts it, and makes its issuer known to the stand-in.
    pub fn start(node: &'a Node, aws: &Aws, keys: Keys) -> Result<Self> {
        for archive in images()? {
            node.cluster().load(&archive)?;
        }
        let host = ISSUER.trim_start_matches("https://");
        node.run(
            "ip",
            &["address", "add", &format!("{ISSUER_ADDRESS}/32"), "dev", "lo"],
            "",
        )?;
        // The stand-in's view of the world; the file is mounted over /etc/hosts there.
        let hosts = node.cluster().folder().join("aws/hosts");
        writeln!(OpenOptions::new().append(true).open(&hosts)?, "{ISSUER_ADDRESS} {host}")?;

        let root_ca = CertificateAuthority::new("root of example.test")?;
        let serving = aws.certificate_for(host)?;
        let secret = |name: &str, certificate: String, key: String| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "spire"},
                "type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key},
            })
        };
        node.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "spire"}}),
            secret("root-ca", root_ca.certificate(), root_ca.key()),
            secret("oidc-tls", serving.certificate, serving.key),
        ])?;
        let spire = Self { node };
        spire.apply(keys)?;
        spire.ready("statefulset/spire-server")?;
        spire.server(&format!(
            "entry create -node -spiffeID spiffe://{TRUST_DOMAIN}/nodes -selector k8s_psat:cluster:test"
        ))?;
        spire.entry("oidc", "k8s:ns:spire -selector k8s:sa:oidc", 300)?;
        spire.ready("daemonset/spire-agent")?;
        spire.ready("deployment/oidc")?;
        aws.call(
            node,
            &[json!({
                "service": "iam", "call": "create_open_id_connect_provider",
                "with": {"Url": ISSUER, "ClientIDList": ["sts.amazonaws.com"]},
            })],
        )?;
        Ok(spire)
    }

    /// Starts what stands for the SPIFFE CSI driver, and makes it known to the cluster as the real one is.
    pub fn start_csi(&self) -> Result<()> {
        csi::start(self.node, DRIVER, Some(SOCKETS), json!({}))
    }

    /// Restarts the server with keys of another kind, so that it signs with a new one at once, and the agent, which forgets
    /// the tokens that it has.
    pub fn change_keys(&self, keys: Keys) -> Result<()> {
        self.apply(keys)?;
        self.ready("statefulset/spire-server")?;
        self.restart_agent()?;
        self.node
            .eventually(NOTICED, "the discovery provider has the new key", || {
                let path = "/api/v1/namespaces/spire/services/https:oidc:443/proxy/keys";
                let published = self.node.kubectl(&["get", "--raw", path])?;
                let keys_there: Value = serde_json::from_str(&published)?;
                let mut listed = keys_there["keys"].as_array().into_iter().flatten();
                ensure!(listed.any(|key| key["alg"] == keys.algorithm()), "{published}");
                Ok(())
            })
    }

    /// Ends the agent and waits for the next one: its socket is another one then.
    pub fn restart_agent(&self) -> Result<()> {
        self.node
            .kubectl_in("spire", &["rollout", "restart", "daemonset/spire-agent"])?;
        self.ready("daemonset/spire-agent")
    }

    /// Gives whoever has these selectors (`k8s:ns:a -selector k8s:sa:b`) the SPIFFE ID of this path, and tokens of this
    /// many seconds. Returns the entry's ID.
    pub fn entry(&self, path: &str, selectors: &str, seconds: u32) -> Result<String> {
        let created = self.server(&format!(
            "entry create -parentID spiffe://{TRUST_DOMAIN}/nodes -spiffeID spiffe://{TRUST_DOMAIN}/{path} \
                 -selector {selectors} -jwtSVIDTTL {seconds}"
        ))?;
        let line = created.lines().find_map(|line| line.strip_prefix("Entry ID"));
        let id = line.and_then(|rest| rest.split(':').nth(1)).map(str::trim);
        Ok(id.with_context(|| created.clone())?.to_owned())
    }

    /// Takes an entry away.
    pub fn remove_entry(&self, id: &str) -> Result<()> {
        self.server(&format!("entry delete -entryID {id}"))?;
        Ok(())
    }

    /// `spire-server` in the server's pod.
    fn server(&self, arguments: &str) -> Result<String> {
        let mut all = vec!["exec", "spire-server-0", "--", "/bin/spire-server"];
        all.extend(arguments.split_whitespace());
        all.extend(["-socketPath", "/run/spire/server.sock"]);
        self.node.kubectl_in("spire", &all)
    }

    fn apply(&self, keys: Keys) -> Result<()> {
        let manifests = MANIFESTS
            .replace("JWT_KEY_TYPE", keys.kind())
            .replace("ISSUER_HOST", ISSUER.trim_start_matches("https://"))
            .replace("ISSUER_ADDRESS", ISSUER_ADDRESS);
        self.node.run("kubectl", &["apply", "--filename=-"], &manifests)?;
        Ok(())
    }

    fn ready(&self, what: &str) -> Result<()> {
        let rolled_out = self.node.kubectl_in("spire", &["rollout", "status", what, DEADLINE]);
        rolled_out.map(drop).with_context(|| {
            let logs = self
                .node
                .kubectl_in("spire", &["logs", what, "--tail=20"])
                .unwrap_or_default();
            let pods = self
                .node
                .kubectl_in("spire", &["get", "pods,events"])
                .unwrap_or_default();
            format!("{what} isn't ready; its log:\n{logs}\n{pods}")
        })
    }
}

/// The values that tokenscope has to be told: whose tokens these are, and that the socket is in a folder of the node or, the
/// default, in volumes of the CSI driver.
pub fn values(source: &str) -> Value {
    json!({"spiffe": {"issuer": ISSUER, "workloadApi": {"source": source}}})
}

/// The archives of SPIRE's images: its programs need the C library, so they carry it.
fn images() -> Result<Vec<PathBuf>> {
    let programs = [
        (Tool::SpireServer, "spire-server"),
        (Tool::SpireAgent, "spire-agent"),
        (Tool::SpireOidcDiscoveryProvider, "spire-oidc"),
    ];
    let folder = root().join("target/spire");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?; // another run may be writing them; the kernel releases it
    programs
        .into_iter()
        .map(|(tool, name)| {
            let program = resolve(tool)?;
            let archive = folder.join(format!("{name}.tar"));
            let newer =
                |file: &PathBuf| -> Result<bool> { Ok(file.metadata()?.modified()? > program.metadata()?.modified()?) };
            if archive.exists() && newer(&archive)? {
                return Ok(archive);
            }
            let place = format!("/bin/{name}");
            let mut files = vec![(program.clone(), place.clone())];
            with_libraries(&mut files)?;
            Image {
                name: format!("localhost/tokenscope-{name}:1"),
                entrypoint: vec![place],
                files,
                environment: Vec::new(),
                labels: Vec::new(),
            }
            .write(&archive)?;
            Ok(archive)
        })
        .collect()
}
