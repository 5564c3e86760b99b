//! The start of a control plane, and what controllers would have made in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokenscope_fixtures::free_port;
use tokenscope_xtask::tools::{Tool, locate, resolve};

use super::files::{apiserver_arguments, etcd_arguments, write_pki};
use super::{ControlPlane, NODE, Options};
use crate::process::{ServerProcess, Start, Watchdog};
use crate::{eventually, get_json, post, put};

/// How long starting may take on a busy machine; 4 to 6 s are usual.
const START_DEADLINE: Duration = Duration::from_secs(240);

impl ControlPlane {
    /// Starts one and waits until it serves, with the namespace `default` and its ServiceAccount in place and discovery
    /// of the token issuer open to everybody, as AWS has to reach it.
    pub async fn start(options: Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let tool = if options.older {
            Tool::OlderKubeApiserver
        } else {
            Tool::KubeApiserver
        };
        let (etcd, found) = (resolve(Tool::Etcd)?, locate(tool)?);
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

        let (etcd_port, port) = (free_port()?, free_port()?);
        let start = |name: &str, program, arguments| Start {
            name: name.to_owned(),
            program,
            arguments,
            environment: BTreeMap::new(),
            logs: folder.join("logs"),
            observe_port: None,
        };
        let etcd = ServerProcess::start(
            start("etcd", etcd, etcd_arguments(&folder, etcd_port, free_port()?)),
            &watchdog,
        )?;
        write_pki(&folder, port)?;
        wait_for_port(&etcd, etcd_port).await?;
        let arguments = apiserver_arguments(&folder, port, etcd_port, &options)?;
        let apiserver = ServerProcess::start(start("kube-apiserver", found.path, arguments), &watchdog)?;
        let control_plane = Self {
            apiserver,
            etcd,
            port,
            folder,
            version: found.version,
            watchdog,
        };
        control_plane.wait_ready().await?;
        control_plane.prepare().await?;
        Ok(control_plane)
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
            START_DEADLINE,
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

async fn wait_for_port(process: &ServerProcess, port: u16) -> Result<()> {
    eventually(START_DEADLINE, "etcd accepts connections", async || {
        if let Some(status) = process.exit_status()? {
            bail!("{} has ended with {status}:\n{}", process.name(), process.log_tail(30));
        }
        Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?)
    })
    .await
}
