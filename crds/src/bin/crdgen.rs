//! Writes what is generated from the types: `crdgen --root DIR [--check]`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokenscope_crds::FOLDER;

/// Writes the custom resource definitions of tokenscope and the reference about them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The root of the checkout.
    #[arg(long)]
    root: PathBuf,
    /// Change nothing; fail if a file isn't what would be written.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { root, check } = Arguments::parse();
    let mut generated = BTreeSet::new();
    let mut stale = Vec::new();
    for (path, content) in tokenscope_crds::files()? {
        if fs::read_to_string(root.join(&path)).ok().as_ref() != Some(&content) {
            if !check {
                fs::write(root.join(&path), content)?;
            }
            stale.push(path.clone());
        }
        generated.insert(root.join(path));
    }
    for entry in fs::read_dir(root.join(FOLDER))? {
        let path = entry?.path();
        if !generated.contains(&path) {
            if !check {
                fs::remove_file(&path)?;
            }
            stale.push(path.strip_prefix(&root).unwrap_or(&path).display().to_string());
        }
    }
    if check && !stale.is_empty() {
        eprintln!(
            "not what the Rust types say: {}. Run `cargo xtask crds` and commit the result",
            stale.join(", ")
        );
        return Ok(ExitCode::FAILURE);
    }
    match stale.as_slice() {
        [] => println!("✓ every generated file is as the Rust types say"),
        paths => paths.iter().for_each(|path| println!("✓ written: {path}")),
    }
    Ok(ExitCode::SUCCESS)
}
