//! `crds`: what is generated from the Rust types, the chart's custom resource definitions and docs/reference.md.

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::{cargo, root};

/// Writes the files or, with `check`, fails and names those that differ.
pub(crate) fn run(check: bool) -> Result<()> {
    let status = cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "tokenscope-crds",
        "--bin",
        "crdgen",
        "--",
        "--root",
    ])
    .arg(root())
    .args(check.then_some("--check"))
    .status()
    .context("can't run cargo")?;
    ensure!(status.success(), "crdgen ended with {status}");
    Ok(())
}
