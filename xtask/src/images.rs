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

/// An image of one of our programs.
#[derive(Clone, Copy, Debug)]
pub struct ProgramImage {
    /// Its repository, without a registry.
    pub name: &'static str,
    /// The program in it; its package has the same name.
    pub program: &'static str,
    /// The package's features that a release has, separated by commas, in place of those that it has by itself.
    features: Option<&'static str>,
}

/// All images. The program of the sidecar is in three: a client for TLS is half of one that needs it.
pub const IMAGES: [ProgramImage; 6] = [
    of_program("tokenscope-issuer"),
    of_program("tokenscope-operator"),
    ProgramImage {
        name: SIDECAR,
        program: SIDECAR,
        features: Some("observe"),
    },
    ProgramImage {
        name: "tokenscope-sidecar-endpoint",
        program: SIDECAR,
        features: Some("observe,issuer,endpoint"),
    },
    ProgramImage {
        name: "tokenscope-sidecar-issuer",
        program: SIDECAR,
        features: Some("observe,issuer"),
    },
    of_program("tokenscope-webhook"),
];

const SIDECAR: &str = "tokenscope-sidecar";

const fn of_program(name: &'static str) -> ProgramImage {
    ProgramImage {
        name,
        program: name,
        features: None,
    }
}

/// The profile that releases are built with: small and fast programs, and minutes to compile.
pub const RELEASE_PROFILE: &str = "dist";

/// The profile that the sidecar's releases are built with instead: it is in every pod, so it is to be small before all.
const RELEASE_PROFILE_OF_SIDECAR: &str = "sidecar";

/// Builds the named images, or all where none is named, into `target/images/`, or a folder there for another profile than `dist`.
/// `profile` is one of Cargo's: `dist` for what is published, `dev` for tests. Fails if there is no image of a name.
///
/// The programs are linked with glibc statically. Only the last step of the build differs for that, so everything that a
/// usual build of the profile has compiled is used again.
pub fn build(profile: &str, names: &[&str]) -> Result<Vec<Written>> {
    for name in names {
        ensure!(
            IMAGES.iter().any(|image| image.name == *name),
            "there is no image {name:?}"
        );
    }
    let mut folder = target().join("images");
    if profile != RELEASE_PROFILE {
        folder.push(profile); // a test must not replace what is about to be published
    }
    IMAGES
        .into_iter()
        .filter(|image| names.is_empty() || names.contains(&image.name))
        .map(|ProgramImage { name, .. }| {
            let started = Instant::now();
            say(&format!("  building {name} for its image, profile {profile} …"));
            // Two images may have one program, so each is written before the next one is compiled.
            let (path, version, license) = compile(name, profile)?;
            let mut image = Image::of_program(&format!("localhost/{name}:{version}"), &path)?;
            image.labels = [("title", name), ("version", &version), ("licenses", &license)]
                .map(|(label, value)| (format!("org.opencontainers.image.{label}"), value.to_owned()))
                .to_vec();
            let written = image.write(&folder.join(format!("{name}.tar")))?;
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

/// Compiles the program of an image as the image carries it; returns it with its version and license.
///
/// Only a release leaves features of the package out. In tests a program is one file with all of them, for whoever uses it at the time.
pub fn compile(image: &str, profile: &str) -> Result<(PathBuf, String, String)> {
    let found = IMAGES.into_iter().find(|known| known.name == image);
    let ProgramImage { program, features, .. } = found.with_context(|| format!("there is no image {image}"))?;
    let features = features.filter(|_| profile == RELEASE_PROFILE);
    let profile = match (program, profile) {
        (SIDECAR, RELEASE_PROFILE) => RELEASE_PROFILE_OF_SIDECAR,
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
        .args(
            features
                .iter()
                .flat_map(|features| ["--no-default-features", "--features", features]),
        )
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
