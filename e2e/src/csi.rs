//! A CSI driver that stands for the SPIFFE CSI driver, whose Go module can't be had: `e2e/csi-driver`.
//!
//! It is in Go since a kubelet calls plugins with the path of their socket as the authority, which servers in Rust refuse.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::root;

/// The driver's name.
pub const DRIVER: &str = "csi.spiffe.io";

/// Builds the program, which takes the kubelet's folder and the one that it mounts. Go builds only what has changed.
pub(crate) fn program() -> Result<PathBuf> {
    let folder = root().join("target/csi-driver");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?; // another run may be building it; the kernel releases it
    let program = folder.join("csi-driver");
    let output = Command::new("go")
        .current_dir(root().join("e2e/csi-driver"))
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
        .arg(&program)
        .stdin(Stdio::null())
        .output()
        .context("can't run go")?;
    ensure!(
        output.status.success(),
        "building the CSI driver: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}
