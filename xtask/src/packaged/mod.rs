//! Servers that come as packages and not as Go modules: Keycloak from Maven's repository, Ceph from Debian's.
//!
//! Looked up in this order: the variable of [`Packaged::variable`], which names a folder, and else taken once by this
//! machine's package manager, as it is configured, into `$XDG_CACHE_HOME/tokenscope/tools/<name>-<version>/`. Nothing is
//! installed: packages are only unpacked there, so neither root nor a change of the machine is needed. The pinned versions
//! stand in `tools/keycloak/keycloak.txt` and `tools/ceph/packages.txt`.
//!
//! Measured on two cores beside other builds: Keycloak takes 60 s (17 s for 165 MB, 7 s to unpack, 36 s for its own build)
//! and 190 MB, Ceph 10 s and 260 MB.

mod fetch;
mod programs;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use programs::run;
pub use programs::{Ceph, java};
pub use server::Packaged;

use crate::once::{beside, make_once};
use crate::progress::Step;
use crate::tools::{Resolved, ServerOrigin, cache};

/// The folder of a server, fetched first where it isn't there. Blocks for up to some minutes.
///
/// Fails if the variable names a folder without the server, or if what fetching needs is missing.
pub fn resolve(server: Packaged) -> Result<PathBuf> {
    locate(server).map(|resolved| resolved.path)
}

/// As [`resolve`], with the version and where it came from.
pub fn locate(server: Packaged) -> Result<Resolved> {
    let (name, version) = (server.name(), server.pinned_version()?);
    let variable = server.variable();
    let named = std::env::var_os(variable).filter(|folder| !folder.is_empty());
    let (path, origin) = if let Some(folder) = named.map(PathBuf::from) {
        check(server, &folder)
            .with_context(|| format!("{variable} names {}, which doesn't work as {name}", folder.display()))?;
        (folder, ServerOrigin::Variable(variable.to_owned()))
    } else {
        let folder = cache()?.join(format!("{name}-{version}"));
        let made_now = make_once(&folder, &folder, name, || fetch(server, &version, &folder))?;
        (folder, ServerOrigin::kept(made_now))
    };
    Ok(Resolved {
        name,
        version,
        origin,
        path,
    })
}

fn fetch(server: Packaged, version: &str, folder: &Path) -> Result<()> {
    let partial = beside(folder, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let step = Step::start(
        &format!("fetching {} {version}, once", server.name()),
        Some(server.usual()),
    );
    match server {
        Packaged::Keycloak => fetch::keycloak(&partial, version, &step)?,
        Packaged::Ceph => fetch::ceph(&partial, &step)?,
    }
    check(server, &partial)?;
    fs::rename(&partial, folder)?;
    step.done("");
    Ok(())
}

/// Whether the folder holds a server of the pinned version that can be started.
fn check(server: Packaged, folder: &Path) -> Result<()> {
    let pinned = server.pinned_version()?;
    let version = match server {
        Packaged::Keycloak => {
            java()?;
            let built = folder.join("lib/quarkus/build-system.properties");
            ensure!(built.exists(), "{} is missing: it is not built", built.display());
            fs::read_to_string(folder.join("version.txt")).context("it has no version.txt")?
        }
        Packaged::Ceph => {
            let ceph = Ceph::in_folder(folder)?;
            let mut command = Command::new(ceph.program("radosgw"));
            let output = run(
                command.arg("--version").env("LD_LIBRARY_PATH", ceph.library_path()),
                "radosgw is not there",
            )?;
            String::from_utf8(output.stdout)?
        }
    };
    let is_pinned = version.split_whitespace().any(|word| word == pinned);
    ensure!(is_pinned, "it is {:?} and should be {pinned}", version.trim());
    Ok(())
}
