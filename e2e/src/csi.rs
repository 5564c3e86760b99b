//! CSI drivers of ours in a cluster with a node: `e2e/csi-driver`. One stands for the SPIFFE CSI driver, whose Go module can't be
//! had, and one gets service account tokens from the kubelet, as drivers of secrets do.
//!
//! It is in Go since a kubelet calls plugins with the path of their socket as the authority, which servers in Rust refuse.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::fetching::fetch_quietly;
use tokenscope_xtask::root;

use crate::node::{NOTICED, Node};

/// The name of the driver that stands for SPIFFE's.
pub const DRIVER: &str = "csi.spiffe.io";

/// Starts a driver whose inline volumes have the pod's tokens for an audience, in the file `tokens` as the kubelet brings them:
/// an object by audience. It ends with the cluster.
pub fn start_token_driver(node: &Node, name: &str, audience: &str) -> Result<()> {
    let requests = json!([{"audience": audience, "expirationSeconds": 3600}]);
    start(node, name, None, json!({"tokenRequests": requests}))
}

/// Starts a driver and makes it known to the cluster, with what its CSIDriver has beside what all of them have.
pub(crate) fn start(node: &Node, name: &str, sockets: Option<&str>, mut spec: Value) -> Result<()> {
    let kubelet = node.cluster().folder().join("data/kubelet").display().to_string();
    let arguments: Vec<&str> = [name, &kubelet].into_iter().chain(sockets).collect();
    node.serve(&format!("csi-driver-{name}"), &program()?, &arguments, &[])?;
    for (member, value) in [
        ("attachRequired", json!(false)),
        ("podInfoOnMount", json!(true)),
        ("fsGroupPolicy", json!("None")),
        ("volumeLifecycleModes", json!(["Ephemeral"])),
    ] {
        spec[member] = value;
    }
    node.apply(&[json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": name}, "spec": spec,
    })])?;
    node.eventually(NOTICED, "the kubelet knows the CSI driver", || {
        let nodes = node.get(&["csinodes"])?;
        let drivers = &nodes["items"][0]["spec"]["drivers"];
        let mut known = drivers.as_array().into_iter().flatten();
        ensure!(known.any(|driver| driver["name"] == name), "{drivers}");
        Ok(())
    })
}

/// Builds the program, which takes a name, the kubelet's folder, and the one that it mounts if it does. Go builds only what has changed.
fn program() -> Result<PathBuf> {
    let folder = root().join("target/csi-driver");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?; // another run may be building it; the kernel releases it
    let program = folder.join("csi-driver");
    fetch_quietly(
        Command::new("go")
            .current_dir(root().join("e2e/csi-driver"))
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
            .arg(&program),
    )
    .context("building the CSI driver")?;
    Ok(program)
}
