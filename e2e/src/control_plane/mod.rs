//! A real etcd and kube-apiserver on 127.0.0.1, ready in a few seconds and gone without a trace.

mod audit;
mod files;
mod start;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokenscope_xtask::tools::{Tool, resolve};

use self::files::write_kubeconfig;
use crate::process::{ServerProcess, Watchdog};
use crate::{eventually, get_json, post};

/// The issuer of the cluster's ServiceAccount tokens. AWS allows no port in an issuer, so this name stands for
/// 127.0.0.1 and [`ControlPlane::port`], and the serving certificate carries it.
pub const ISSUER: &str = "https://oidc.tokenscope.test";

/// The node that pods are bound to. No kubelet runs on it: the tests ask for tokens in its name.
pub const NODE: &str = "node-1";

/// The options of a control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writes the audit log that [`ControlPlane::forbidden`] and [`ControlPlane::audit_events`] read.
    pub audit: bool,
    /// Leaves the folder (logs, certificates, etcd's data) in place at the end.
    pub keep: bool,
    /// More arguments of kube-apiserver.
    pub arguments: Vec<String>,
    /// An API server of the older minor version.
    pub older: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            audit: true,
            keep: false,
            arguments: Vec::new(),
            older: false,
        }
    }
}

/// A running control plane. Dropping it, or the end of this process in whatever way, ends everything and removes its folder.
#[derive(Debug)]
pub struct ControlPlane {
    apiserver: ServerProcess,
    etcd: ServerProcess,
    port: u16,
    folder: PathBuf,
    /// The version of Kubernetes.
    version: String,
    watchdog: Arc<Watchdog>, // last: it removes the folder
}

impl ControlPlane {
    /// The folder of everything that this control plane writes. Gone at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the folder in place at the end.
    pub fn keep_folder(&self) {
        self.watchdog.keep_folder();
    }

    /// The API server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The version of Kubernetes, without a leading `v`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The API server, for faults.
    pub fn apiserver(&self) -> &ServerProcess {
        &self.apiserver
    }

    /// Its store, for faults.
    pub fn etcd(&self) -> &ServerProcess {
        &self.etcd
    }

    /// Kills what is started in its name at the end.
    pub fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// The certificate authority of the API server (and so of the token issuer), PEM.
    pub fn ca(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("pki/ca.crt"))?)
    }

    /// The kubeconfig of a member of system:masters.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A client with every right. Made anew each time: the connections of a client die with the runtime of the test that
    /// first used it.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig()).await
    }

    /// A kubeconfig that authenticates by a token of a ServiceAccount, as a pod's own would: what runs with it has exactly
    /// the rights that RBAC gives that account.
    pub async fn config_as(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400},
        });
        let answer = post(&self.client().await?, &path, &request).await?;
        let token = answer["status"]["token"]
            .as_str()
            .context("a TokenRequest is answered with a token")?;
        let file = self.folder.join(format!("{namespace}.{service_account}.kubeconfig"));
        write_kubeconfig(&file, &self.folder, self.port, &json!({"token": token}))?;
        Ok(file)
    }

    /// A client of a ServiceAccount, with exactly its rights.
    pub async fn client_as(&self, namespace: &str, service_account: &str) -> Result<Client> {
        client_of(&self.config_as(namespace, service_account).await?).await
    }

    /// Creates a namespace with its `default` ServiceAccount, which no controller makes here.
    pub async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        post(&self.client().await?, "/api/v1/namespaces", &namespace).await?;
        self.create_service_account(name, "default", &[]).await
    }

    /// Creates a ServiceAccount.
    pub async fn create_service_account(
        &self,
        namespace: &str,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> Result<()> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": annotations},
        });
        post(
            &self.client().await?,
            &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            &account,
        )
        .await?;
        Ok(())
    }

    /// Runs the real kubectl as administrator. Returns what it printed; fails with its standard error.
    pub fn kubectl(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let mut child = Command::new(resolve(Tool::Kubectl)?)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .env("HOME", &self.folder) // its discovery cache goes with the folder
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Small enough for the pipe, or read by kubectl before it prints.
        child
            .stdin
            .take()
            .context("standard input is piped")?
            .write_all(stdin.as_bytes())?;
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            errors.trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A token as the kubelet asks for one: by the node that the pod is on, bound to the pod. Lifetime in seconds.
    ///
    /// The API server checks what it checks of a kubelet: that the pod is on the node, and that one of its volumes asks for
    /// the audience. A pod that is on no node yet is bound to [`NODE`] first.
    pub async fn pod_token(&self, namespace: &str, pod: &str, audience: &str, lifetime: i64) -> Result<String> {
        let admin = self.client().await?;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let object = get_json(&admin, &path).await?;
        if object["spec"]["nodeName"].is_null() {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": namespace},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            });
            post(&admin, &format!("{path}/binding"), &binding).await?;
        }
        let account = object["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": [audience], "expirationSeconds": lifetime,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": object["metadata"]["uid"]},
            },
        });
        let node = client_of(&self.folder.join("node.kubeconfig")).await?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        // The node authorizer learns of the binding by a watch, so its first answers may be refusals.
        let started = Instant::now();
        let answer = eventually(
            Duration::from_secs(60),
            "the node may ask for the pod's token",
            async || match post(&node, &path, &request).await {
                Err(error) if is_about_audience(&error) && started.elapsed() > FOR_GOOD => Ok(Err(error)),
                answer => Ok(Ok(answer?)),
            },
        )
        .await??;
        Ok(answer["status"]["token"]
            .as_str()
            .context("a TokenRequest is answered with a token")?
            .to_owned())
    }
}

/// After this long the API server knows every CSI driver, so a refusal for lack of a volume with the audience is final.
const FOR_GOOD: Duration = Duration::from_secs(10);

/// True if a node is refused a token because no volume of the pod wants its audience.
fn is_about_audience(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.message.contains("not found in pod spec volume"))
}

/// A client of a kubeconfig file.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
