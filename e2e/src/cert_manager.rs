//! The real cert-manager beside a control plane: its controller and its cainjector.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::control_plane::ControlPlane;
use crate::process::{ServerProcess, Start};

impl ControlPlane {
    /// Starts cert-manager in the namespace of its chart, with its two ServiceAccounts and the rights of an administrator.
    pub async fn start_cert_manager(&self) -> Result<Vec<ServerProcess>> {
        let program = resolve(Tool::CertManager)?;
        let definitions = program.parent().context("a program is in a folder")?.join("crds");
        let definitions = definitions.to_str().context("the cache's path is text")?;
        self.kubectl(&["apply", "--server-side", "--filename", definitions], "")?;
        let established = [
            "wait",
            "--for=condition=Established",
            "--timeout=120s",
            "--filename",
            definitions,
        ];
        self.kubectl(&established, "")?;
        self.create_namespace("cert-manager", &[]).await?;
        let mut processes = Vec::new();
        for (part, account) in [
            ("controller", "cert-manager"),
            ("cainjector", "cert-manager-cainjector"),
        ] {
            self.create_service_account("cert-manager", account, &[]).await?;
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": account},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "cert-manager", "name": account}],
            });
            self.apply(&[binding], "cert-manager").await?;
            let kubeconfig = self.config_as("cert-manager", account).await?;
            let start = Start {
                name: account.to_owned(),
                program: program.clone(),
                arguments: vec![part.to_owned()],
                environment: BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig.display().to_string())]),
                logs: self.folder().join("logs"),
                observe_port: None,
            };
            processes.push(ServerProcess::start(start, self.watchdog())?);
        }
        Ok(processes)
    }
}
