//! The section on EKS Pod Identity: its commands, with the real helm, hand the EKS webhook's file on as it is.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::get_json;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_xtask::root;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::document::{block, section};

/// A user's folder with the charts, and a PATH with kubectl and helm.
struct Desk<'a> {
    control_plane: &'a ControlPlane,
}

impl<'a> Desk<'a> {
    fn of(control_plane: &'a ControlPlane) -> Self {
        let desk = Self { control_plane };
        std::fs::create_dir_all(desk.folder().join("bin")).unwrap();
        symlink(root().join("charts"), desk.folder().join("charts")).unwrap();
        for (name, tool) in [("kubectl", Tool::Kubectl), ("helm", Tool::Helm)] {
            let program = resolve(tool).unwrap();
            symlink(program, desk.folder().join("bin").join(name)).unwrap();
        }
        desk
    }

    fn folder(&self) -> PathBuf {
        self.control_plane.folder().join("desk")
    }

    fn run(&self, commands: &str) {
        let folder = self.folder();
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(&folder)
            .env("PATH", path)
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .env("HOME", &folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {errors}");
    }
}

/// The arguments of a Deployment's only container.
async fn arguments(client: &kube::Client, name: &str) -> String {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}");
    let deployment = get_json(client, &path).await.unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_section_on_eks_pod_identity_hand_the_other_webhooks_file_on() {
    let section = section("EKS Pod Identity");
    let (commands, file) = (block(&section, "sh"), block(&section, "json"));
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let client = control_plane.client().await.unwrap();
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "container-credentials", "namespace": "kube-system"},
        "data": {"config.json": file},
    });
    control_plane.apply(&[theirs], "kube-system").await.unwrap();
    let desk = Desk::of(&control_plane);
    for (chart, more) in [
        ("tokenscope-crds", "--create-namespace"),
        ("tokenscope", "--set eksCompatible=true"),
    ] {
        desk.run(&format!(
            "helm install {chart} charts/{chart} --namespace {NAMESPACE} {more}"
        ));
    }
    let flag = "--eks-pod-identity-config=";
    assert!(!arguments(&client, "tokenscope-webhook").await.contains(flag));

    desk.run(&commands);

    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/tokenscope-eks-pod-identity");
    let map = get_json(&client, &path).await.unwrap();
    let handed_on: Value = serde_json::from_str(map["data"]["config.json"].as_str().unwrap()).unwrap();
    assert_eq!(handed_on, serde_json::from_str::<Value>(&file).unwrap());
    for program in ["tokenscope-webhook", "tokenscope-operator"] {
        let arguments = arguments(&client, program).await;
        assert!(arguments.contains(flag), "{program}: {arguments}");
    }
}
