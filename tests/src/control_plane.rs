//! A real etcd and kube-apiserver on 127.0.0.1, ready in a few seconds and gone without a trace.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::pki::{Authority, write_signing_key};
use crate::process::{Process, Start, Watchdog, free_port};
use crate::{eventually, get_json, post, put};

/// The issuer of the cluster's ServiceAccount tokens. AWS allows no port in an issuer, so this name stands for
/// 127.0.0.1 and [`ControlPlane::port`], and the serving certificate carries it.
pub const ISSUER: &str = "https://oidc.tokenscope.test";

/// The node that pods are bound to. No kubelet runs on it: the tests ask for tokens in its name.
pub const NODE: &str = "node-1";

/// How long starting may take on a busy machine; 4 to 6 s are usual.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// What may be varied.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writes the audit log that [`ControlPlane::forbidden`] and [`ControlPlane::audit_events`] read.
    pub audit: bool,
    /// Leaves the folder (logs, certificates, etcd's data) in place at the end.
    pub keep: bool,
    /// More arguments of kube-apiserver.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            audit: true,
            keep: false,
            arguments: Vec::new(),
        }
    }
}

/// A running control plane. Dropping it, or the end of this process in whatever way, ends everything and removes its folder.
#[derive(Debug)]
pub struct ControlPlane {
    apiserver: Process,
    etcd: Process,
    port: u16,
    folder: PathBuf,
    watchdog: Arc<Watchdog>, // last: it removes the folder
}

impl ControlPlane {
    /// Starts one and waits until it serves, with the namespace `default` and its ServiceAccount in place and discovery
    /// of the token issuer open to everybody, as AWS has to reach it.
    pub async fn start(options: Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (etcd, apiserver) = (resolve(Tool::Etcd)?, resolve(Tool::KubeApiserver)?);
        resolve(Tool::Kubectl)?; // here, because building it later would outlast the deadline of whoever calls it
        let name = format!(
            "tokenscope-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("logs"))?;
        fs::create_dir_all(folder.join("pki"))?;
        let watchdog = Watchdog::start(&folder)?;
        if options.keep {
            watchdog.keep_folder();
        }

        let (etcd_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd = Process::start(
            Start {
                name: "etcd".to_owned(),
                program: etcd,
                arguments: vec![
                    format!("--data-dir={}", folder.join("etcd").display()),
                    format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
                    format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
                    format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                    format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
                    format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
                    "--unsafe-no-fsync".to_owned(),
                    "--quota-backend-bytes=8589934592".to_owned(), // 50,000 ServiceAccounts and pods fit
                    "--log-level=warn".to_owned(),
                ],
                environment: BTreeMap::new(),
                logs: folder.join("logs"),
                observe_port: None,
            },
            &watchdog,
        )?;
        write_pki(&folder, port)?;
        wait_for_port(&etcd, etcd_port).await?;
        let apiserver = Process::start(
            Start {
                name: "kube-apiserver".to_owned(),
                program: apiserver,
                arguments: apiserver_arguments(&folder, port, etcd_port, &options)?,
                environment: BTreeMap::new(),
                logs: folder.join("logs"),
                observe_port: None,
            },
            &watchdog,
        )?;
        let control_plane = Self {
            apiserver,
            etcd,
            port,
            folder,
            watchdog,
        };
        control_plane.wait_ready().await?;
        control_plane.prepare().await?;
        Ok(control_plane)
    }

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

    /// The API server, for faults.
    pub fn apiserver(&self) -> &Process {
        &self.apiserver
    }

    /// Its store, for faults.
    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// Kills what is started in its name at the end.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
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
        // The node authorizer learns of the binding by a watch, so its first answers may be a refusal.
        let answer = eventually(
            Duration::from_secs(10),
            "the node may ask for the pod's token",
            async || Ok(post(&node, &path, &request).await?),
        )
        .await?;
        Ok(answer["status"]["token"]
            .as_str()
            .context("a TokenRequest is answered with a token")?
            .to_owned())
    }

    /// The events of the audit log that `wanted` picks, oldest first. One a request, at its end.
    pub fn audit_events(&self, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("logs/audit.log")).context("no audit log was asked for")?;
        // The last line may be half written.
        let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        Ok(events.filter(|event| wanted(event)).collect())
    }

    /// The requests that RBAC has refused so far, as `user verb resource`, each once. Those of the node are left out: they
    /// are refused until the authorizer has seen the pod.
    pub fn forbidden(&self) -> Result<Vec<String>> {
        let refused = self.audit_events(|event| {
            event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                && !event["user"]["username"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with("system:node:")
        })?;
        let mut lines: Vec<String> = refused.iter().map(request_line).collect();
        lines.sort();
        lines.dedup();
        Ok(lines)
    }

    async fn wait_ready(&self) -> Result<()> {
        let client = self.client().await?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.apiserver.exit_status()? {
                bail!(
                    "kube-apiserver has ended with {status}:\n{}",
                    self.apiserver.log_tail(30)
                );
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > START_DEADLINE => {
                    return Err(error).with_context(|| {
                        format!(
                            "kube-apiserver isn't ready after {START_DEADLINE:?}:\n{}",
                            self.apiserver.log_tail(30)
                        )
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// What controllers would do in a whole cluster.
    async fn prepare(&self) -> Result<()> {
        let client = self.client().await?;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}},
        });
        post(&client, "/api/v1/nodes", &node).await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "issuer-discovery-for-everybody"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:service-account-issuer-discovery",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
        });
        post(
            &client,
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &binding,
        )
        .await?;
        // The API server makes its own namespaces shortly after it is ready.
        eventually(
            Duration::from_secs(20),
            "the namespaces default and kube-system are there",
            async || {
                get_json(&client, "/api/v1/namespaces/kube-system").await?;
                Ok(get_json(&client, "/api/v1/namespaces/default").await?)
            },
        )
        .await?;
        self.create_service_account("default", "default", &[]).await?;
        self.create_service_account("kube-system", "default", &[]).await?;
        // An idle node would be tainted by nobody here, but say that it is fine, as a kubelet does.
        let mut node = get_json(&client, &format!("/api/v1/nodes/{NODE}")).await?;
        node["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
        put(&client, &format!("/api/v1/nodes/{NODE}/status"), &node).await?;
        Ok(())
    }
}

/// A client of a kubeconfig file.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn write_pki(folder: &Path, port: u16) -> Result<()> {
    let pki = folder.join("pki");
    let authority = Authority::new("tokenscope-tests-ca")?;
    fs::write(pki.join("ca.crt"), authority.certificate())?;
    let names = [
        "127.0.0.1",
        "localhost",
        "oidc.tokenscope.test",
        "kubernetes.default.svc",
    ];
    authority.server(&names)?.write(&pki, "apiserver")?;
    write_signing_key(&pki, "service-account")?;
    for (file, user, group) in [
        ("admin", "admin", "system:masters"),
        ("node", &format!("system:node:{NODE}"), "system:nodes"),
    ] {
        authority.client(user, group)?.write(&pki, file)?;
        let user = json!({
            "client-certificate": pki.join(format!("{file}.crt")), "client-key": pki.join(format!("{file}.key")),
        });
        write_kubeconfig(&folder.join(format!("{file}.kubeconfig")), folder, port, &user)?;
    }
    Ok(())
}

/// A kubeconfig of one cluster and one user. It is written as JSON, which is YAML.
fn write_kubeconfig(file: &Path, folder: &Path, port: u16, user: &Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tokenscope",
        "clusters": [{"name": "tokenscope", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": folder.join("pki/ca.crt"),
        }}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "tokenscope", "context": {"cluster": "tokenscope", "user": "user"}}],
    });
    fs::write(file, config.to_string()).with_context(|| format!("can't write {}", file.display()))
}

fn apiserver_arguments(folder: &Path, port: u16, etcd_port: u16, options: &Options) -> Result<Vec<String>> {
    let pki = folder.join("pki").display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Nobody looks for the endpoints of the Service "kubernetes", and a loopback address couldn't be one.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={pki}"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--service-account-key-file={pki}/service-account.pub"),
        format!("--service-account-signing-key-file={pki}/service-account.key"),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-jwks-uri={ISSUER}/openid/v1/jwks"),
        format!("--api-audiences={ISSUER},https://kubernetes.default.svc"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if options.audit {
        let policy = folder.join("audit-policy.json");
        let content = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "None", "nonResourceURLs": ["/readyz*", "/livez*"]}, {"level": "Metadata"}],
        });
        fs::write(&policy, content.to_string())?;
        arguments.push(format!("--audit-policy-file={}", policy.display()));
        arguments.push(format!("--audit-log-path={}", folder.join("logs/audit.log").display()));
    }
    arguments.extend(options.arguments.iter().cloned());
    Ok(arguments)
}

async fn wait_for_port(process: &Process, port: u16) -> Result<()> {
    eventually(START_DEADLINE, "etcd accepts connections", async || {
        if let Some(status) = process.exit_status()? {
            bail!("{} has ended with {status}:\n{}", process.name(), process.log_tail(30));
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?)
    })
    .await
}

/// A request of the audit log in one line: `user verb resource`, as RBAC sees it.
fn request_line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let what = if object.is_null() {
        text(&event["requestURI"])
    } else {
        let parts = [
            text(&object["apiGroup"]),
            text(&object["resource"]),
            text(&object["subresource"]),
        ];
        let resource = parts
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("/");
        [resource, text(&object["namespace"]), text(&object["name"])]
            .join(" ")
            .trim_end()
            .to_owned()
    };
    format!("{} {} {what}", text(&event["user"]["username"]), text(&event["verb"]))
}
