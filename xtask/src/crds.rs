//! `crds`: the custom resource definitions, from the Rust types into crds/yaml, the chart and docs/reference.md.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

use tokenscope_xtask::cargo;

/// Writes the files or, with `check`, fails and names those that differ.
pub(crate) fn run(check: bool) -> Result<()> {
    let (generated, reference) = generate()?;
    let mut stale = Vec::new();
    let document = root().join("docs/reference.md");
    if fs::read_to_string(&document).ok().as_ref() != Some(&reference) {
        if !check {
            fs::write(&document, &reference)?;
        }
        stale.push(document);
    }
    for folder in [root().join("crds/yaml"), root().join("charts/tokenscope-crds/files")] {
        stale.extend(differences(&folder, &generated)?);
        if !check {
            write(&folder, &generated)?;
        }
    }
    let names: Vec<_> = stale
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap_or(path).display().to_string())
        .collect();
    if check && !names.is_empty() {
        bail!(
            "not what the Rust types say: {}. Run `cargo xtask crds` and commit the result",
            names.join(", ")
        );
    }
    match names.as_slice() {
        [] => say("✓ every custom resource definition is as the Rust types say"),
        names => names.iter().for_each(|name| say(&format!("✓ written: {name}"))),
    }
    Ok(())
}

/// What crdgen makes of the types: the definitions by file name, and the reference.
fn generate() -> Result<(BTreeMap<OsString, String>, String)> {
    let folder = std::env::temp_dir().join(format!("tokenscope-crds-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let status = cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "tokenscope-crds",
        "--bin",
        "crdgen",
        "--",
        "--out",
    ])
    .arg(&folder)
    .status()
    .context("can't run cargo")?;
    let files = read(&folder);
    let reference = fs::read_to_string(folder.join("reference.md"));
    fs::remove_dir_all(&folder)?;
    ensure!(status.success(), "crdgen ended with {status}");
    let files = files?;
    ensure!(!files.is_empty(), "crdgen wrote nothing");
    Ok((files, reference.context("crdgen wrote no reference.md")?))
}

/// The YAML files of a folder, which need not exist.
fn read(folder: &Path) -> Result<BTreeMap<OsString, String>> {
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let (Some(name), Some("yaml")) = (
            path.file_name(),
            path.extension().and_then(|extension| extension.to_str()),
        ) {
            files.insert(name.to_owned(), fs::read_to_string(&path)?);
        }
    }
    Ok(files)
}

fn differences(folder: &Path, generated: &BTreeMap<OsString, String>) -> Result<Vec<PathBuf>> {
    let present = read(folder)?;
    let wrong = generated
        .iter()
        .filter(|(name, text)| present.get(*name) != Some(text))
        .map(|(name, _)| name);
    let left_over = present.keys().filter(|name| !generated.contains_key(*name));
    Ok(wrong.chain(left_over).map(|name| folder.join(name)).collect())
}

fn write(folder: &Path, generated: &BTreeMap<OsString, String>) -> Result<()> {
    fs::create_dir_all(folder)?;
    for path in differences(folder, generated)? {
        match path.file_name().and_then(|name| generated.get(name)) {
            Some(text) => fs::write(&path, text)?,
            None => fs::remove_file(&path)?,
        }
    }
    Ok(())
}
