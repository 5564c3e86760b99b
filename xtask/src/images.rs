//! `cargo xtask images`: our programs as container images of one static file each.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::oci::{Image, Written};
use crate::progress::say;
use crate::{cargo, root};

/// The programs that become images; the package of each has the same name.
pub const PROGRAMS: [&str; 4] = [
    "tokenscope-issuer",
    "tokenscope-operator",
    "tokenscope-sidecar",
    "tokenscope-webhook",
];

/// The profile that releases are built with: small and fast programs, and minutes to compile.
pub const RELEASE_PROFILE: &str = "dist";

/// The profile that the sidecar's releases are built with instead: it is in every pod, so it is to be small before all.
const RELEASE_PROFILE_OF_SIDECAR: &str = "sidecar";

/// Builds every image into `target/images/`, or a folder there for another profile than `dist`. `profile` is one of Cargo's: `dist` for what is published, `dev` for tests.
///
/// The programs are linked with glibc statically. Only the last step of the build differs for that, so everything that a
/// usual build of the profile has compiled is used again.
pub fn build(profile: &str) -> Result<Vec<Written>> {
    let mut folder = target().join("images");
    if profile != RELEASE_PROFILE {
        folder.push(profile); // a test must not replace what is about to be published
    }
    PROGRAMS
        .into_iter()
        .map(|program| {
            let started = Instant::now();
            say(&format!("  building {program} for its image, profile {profile} …"));
            let (path, version, license) = compile(program, profile)?;
            let mut image = Image::of_program(&format!("localhost/{program}:{version}"), &path)?;
            image.labels = [("title", program), ("version", &version), ("licenses", &license)]
                .map(|(label, value)| (format!("org.opencontainers.image.{label}"), value.to_owned()))
                .to_vec();
            let written = image.write(&folder.join(format!("{program}.tar")))?;
            say(&format!(
                "✓ {} ({:.1} s)",
                written.name,
                started.elapsed().as_secs_f64()
            ));
            Ok(written)
        })
        .collect()
}

/// Makes images known to a running cluster's node.
pub fn load(images: &[Written], cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    for image in images {
        cluster.load(&image.path)?;
    }
    say(&format!(
        "✓ loaded into the cluster {:?} ({:.1} s)",
        cluster.name(),
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Prints name, size and digest of each.
pub fn print(images: &[Written]) {
    println!("{:<36} {:>9}  {:<71}  ARCHIVE", "IMAGE", "SIZE", "DIGEST");
    for image in images {
        println!(
            "{:<36} {:>5.1} MiB  {}  {}",
            image.name,
            image.size as f64 / f64::from(1 << 20),
            image.digest,
            image.path.display()
        );
    }
}

/// Compiles a program as an image carries it; returns it with its version and license.
pub fn compile(program: &str, profile: &str) -> Result<(PathBuf, String, String)> {
    let profile = match (program, profile) {
        ("tokenscope-sidecar", RELEASE_PROFILE) => RELEASE_PROFILE_OF_SIDECAR,
        _ => profile,
    };
    let metadata = cargo(&["metadata", "--no-deps", "--format-version=1", "--locked"]).output()?;
    ensure!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let package = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == program))
        .with_context(|| format!("the workspace has no package {program}"))?;
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();

    let output = cargo(&["rustc", "--locked", "--package", program, "--bin", program])
        .args(["--profile", profile, "--message-format=json-render-diagnostics", "--"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        // What a static program relocates at its start takes a bit for each place instead of 24 bytes.
        .args(["-C", "link-arg=-Wl,-z,pack-relative-relocs"])
        .stderr(Stdio::inherit())
        .output()
        .context("can't run cargo")?;
    ensure!(
        output.status.success(),
        "building {program} ended with {}",
        output.status
    );
    let path = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {program}"))?;
    Ok((path, text("version"), text("license")))
}

/// The target folder, wherever it is.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}
