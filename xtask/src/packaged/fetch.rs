//! Fetching packaged servers by this machine's package managers, as they are configured, into a folder.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::programs::{java, run};
use super::server::Packaged;
use crate::fetching::{fetch_quietly, is_there};
use crate::progress::Step;

/// What Keycloak is built with, once; it starts with `start --optimized` then. The database is in memory and there is no
/// cluster, so that processes share nothing. The feature (a preview one) takes a foreign issuer's tokens from clients.
const KEYCLOAK_BUILD: [&str; 3] = ["--db=dev-mem", "--cache=local", "--features=client-auth-federated"];

/// Keycloak, unpacked and built.
pub(super) fn keycloak(folder: &Path, version: &str, step: &Step) -> Result<()> {
    java()?;
    let server = Packaged::Keycloak;
    let text = server.text()?;
    let expected = text.lines().find_map(|line| line.strip_prefix("sha256="));
    let expected = expected.with_context(|| format!("{} has no checksum", server.file().display()))?;
    let variable = server.variable();
    step.detail("downloading");
    let mut maven = Command::new("mvn");
    maven
        .args(["--quiet", "--batch-mode", "--strict-checksums"])
        .arg("org.apache.maven.plugins:maven-dependency-plugin:2.8:copy")
        .arg(format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{version}:zip"))
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .current_dir(folder);
    ensure!(
        is_there(&maven),
        "Keycloak is fetched by Maven (Debian: maven), or name a folder with {variable}"
    );
    fetch_quietly(&maven)?;
    let archive = folder.join(format!("keycloak-quarkus-dist-{version}.zip"));
    let found = checksum(&archive)?;
    ensure!(
        found == expected,
        "Maven's repository gave a Keycloak {version} with the checksum {found}, and {} has {expected}",
        server.file().display()
    );
    step.detail("unpacking");
    run(
        Command::new("unzip").arg("-q").arg(&archive).arg("-d").arg(folder),
        "Keycloak is unpacked by unzip (Debian: unzip), which keeps the modes of files",
    )?;
    fs::remove_file(&archive)?;
    let unpacked = folder.join(format!("keycloak-{version}"));
    for entry in fs::read_dir(&unpacked)? {
        let entry = entry?;
        fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    fs::remove_dir(&unpacked)?;
    step.detail("building");
    run(
        Command::new("sh")
            .arg(folder.join("bin/kc.sh"))
            .arg("build")
            .args(KEYCLOAK_BUILD),
        "there is no shell",
    )?;
    Ok(())
}

/// Said where there is no apt-get.
const NO_APT: &str =
    "Ceph is fetched by apt-get, which is not there: name the root folder of an installed Ceph with TOKENSCOPE_CEPH";

/// Ceph's packages and what they depend on, unpacked.
pub(super) fn ceph(folder: &Path, step: &Step) -> Result<()> {
    let server = Packaged::Ceph;
    let archives = folder.join("apt/archives");
    fs::create_dir_all(archives.join("partial"))?;
    fs::create_dir_all(folder.join("apt/lists/partial"))?;
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    let apt = |arguments: &mut dyn Iterator<Item = String>| {
        let mut command = Command::new("apt-get");
        command
            // Nothing is installed, so it needs no lock, and therefore no root.
            .args(["-o", "Debug::NoLocking=1"])
            .args(["-o", "APT::Sandbox::User="])
            .args(["-o", &option("Dir::Cache", &folder.join("apt"))])
            .args(["-o", &option("Dir::Log", &folder.join("apt"))])
            .args(["-o", &option("Dir::State::lists", &folder.join("apt/lists"))])
            .args(arguments);
        ensure!(is_there(&command), NO_APT);
        fetch_quietly(&command)
    };
    // The machine's own lists may be older than what the archive still has.
    step.detail("reading the lists of packages");
    let packages = server
        .pins()?
        .into_iter()
        .map(|(name, version)| format!("{name}={version}*"));
    // What is installed already is fetched too, so that all of it is in one place.
    let download = [
        "install",
        "--download-only",
        "--yes",
        "--quiet",
        "--no-install-recommends",
        "--reinstall",
    ];
    apt(&mut ["update", "--quiet"].map(str::to_owned).into_iter())
        .and_then(|_| {
            step.detail("downloading");
            apt(&mut download.map(str::to_owned).into_iter().chain(packages))
        })
        .with_context(|| {
            format!(
                "can't fetch Ceph: it is taken from the packages of Debian 12; elsewhere, install that version and name its root folder \
                 with {}, such as {}=/",
                server.variable(),
                server.variable()
            )
        })?;
    step.detail("unpacking");
    for entry in fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run(
                Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder),
                "packages are unpacked by dpkg-deb",
            )?;
        }
    }
    fs::remove_dir_all(folder.join("apt"))?;
    Ok(())
}

/// SHA-256 of a file, in hexadecimal digits.
fn checksum(path: &Path) -> Result<String> {
    use std::fmt::Write as _;
    let mut file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = io::Read::read(&mut file, &mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        digest.update(read);
    }
    let mut text = String::new();
    for byte in digest.finalize() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}
