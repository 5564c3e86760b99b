//! The real kube-controller-manager beside a control plane, for tests in which a Deployment or a Job makes the pods.

use std::collections::BTreeMap;

use anyhow::Result;
use tokenscope_fixtures::free_port;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::control_plane::ControlPlane;
use crate::process::{ServerProcess, Start};

impl ControlPlane {
    /// Starts these controllers, such as `deployment-controller`, each with the rights of its own ServiceAccount.
    pub fn start_controllers(&self, names: &[&str]) -> Result<ServerProcess> {
        let pki = self.folder().join("pki");
        let start = Start {
            name: "kube-controller-manager".to_owned(),
            program: resolve(Tool::KubeControllerManager)?,
            arguments: vec![
                format!("--kubeconfig={}", self.kubeconfig().display()),
                format!("--controllers={}", names.join(",")),
                format!("--root-ca-file={}", pki.join("ca.crt").display()),
                format!(
                    "--service-account-private-key-file={}",
                    pki.join("service-account.key").display()
                ),
                "--use-service-account-credentials=true".to_owned(),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", free_port()?),
                format!("--cert-dir={}", pki.display()),
            ],
            environment: BTreeMap::new(),
            logs: self.folder().join("logs"),
            observe_port: None,
        };
        ServerProcess::start(start, self.watchdog())
    }
}
