//! The requirements of a cluster to the machine: rights, programs, CNI plugins and images.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::{cgroups, files, succeeded};
use crate::oci::Image;
use crate::once::make_once;
use crate::progress::Step;
use crate::tools::{self, Tool, locate, resolve};

/// Programs that come with the distribution: the program, and Debian's package.
pub const FROM_DISTRIBUTION: [(&str, &str); 13] = [
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"), // the portmap plugin and the kubelet
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("bash", "bash"),
    ("mount", "mount"),
    ("hostname", "hostname"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("env", "coreutils"),
];

/// CNI plugins that the pods' network is made with; all in Debian's `containernetworking-plugins`.
const CNI_PLUGINS: [&str; 4] = ["ptp", "host-local", "loopback", "portmap"];

/// The programs and files that a start uses.
pub(super) struct Prepared {
    pub(super) cni: PathBuf,
    pub(super) programs: Vec<(&'static str, PathBuf)>,
    pub(super) archives: [PathBuf; 2],
}

/// Builds and installs what clusters need, so that the next start takes as long as a start takes.
pub fn warm_up() -> Result<()> {
    prepare().map(|_| ())
}

/// The attempts of this process to make a cgroup. Tests of one program ask side by side, so each attempt has a name of its own.
static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

/// The reason why no cluster can run here, if there is one: it takes root's rights and cgroups that can be made.
pub fn obstacle() -> Option<String> {
    if let Err(error) = ensure_root("start a cluster") {
        return Some(error.to_string());
    }
    let unshared = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "true"])
        .output();
    if !unshared.is_ok_and(|output| output.status.success()) {
        return Some("this process may not make namespaces".to_owned());
    }
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let name = format!("tokenscope-try-{}-{attempt}", std::process::id());
    let own = match cgroups::hierarchies() {
        Ok((kind, found)) => found.into_iter().map(move |each| each.cgroup(kind, &name)),
        Err(error) => return Some(format!("{error:#}")),
    };
    for cgroup in own {
        if let Err(error) = fs::create_dir(&cgroup).and_then(|()| fs::remove_dir(&cgroup)) {
            return Some(format!("no cgroup can be made: {}: {error}", cgroup.display()));
        }
    }
    None
}

pub(super) fn prepare() -> Result<Prepared> {
    ensure_root("start a cluster")?;
    ensure_installed()?;
    Ok(Prepared {
        cni: cni_folder().context("the CNI plugins were installed, and aren't there")?,
        programs: Tool::CLUSTER
            .into_iter()
            .map(|tool| Ok((tool.name(), resolve(tool)?)))
            .collect::<Result<_>>()?,
        archives: [pause_archive()?, coredns_archive()?],
    })
}

pub(super) fn user() -> Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

pub(super) fn ensure_root(what: &str) -> Result<()> {
    ensure!(
        user()? == 0,
        "only root can {what}, because it makes namespaces, mounts and cgroups (which it keeps apart from the machine's \
         own); try: sudo -E cargo xtask cluster …"
    );
    Ok(())
}

/// Installs what comes with the distribution, or says what is missing.
fn ensure_installed() -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if on_path("apt-get").is_none() {
        bail!(
            "install what is missing; in Debian's names: {list} (programs: {}; CNI plugins in /opt/cni/bin, \
             /usr/lib/cni or $TOKENSCOPE_CNI)",
            FROM_DISTRIBUTION.map(|(program, _)| program).join(", ")
        );
    }
    let step = Step::start(&format!("installing {list}"), None);
    let run = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Another one may be installing just now, and a mirror may fail once.
            .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"])
            .args(["-y", "-qq", "--no-install-recommends"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        succeeded("apt-get", &output)
    };
    run(&["update"])?;
    let mut install = vec!["install"];
    install.extend(&missing);
    run(&install).with_context(|| format!("install yourself: {list}"))?;
    step.done("");
    let left = missing_packages();
    ensure!(
        left.is_empty(),
        "{} installed, and something of it isn't found",
        left.join(" ")
    );
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<&str> = FROM_DISTRIBUTION
        .into_iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(_, package)| package)
        .collect();
    missing.dedup();
    if cni_folder().is_none() {
        missing.push("containernetworking-plugins");
    }
    missing
}

fn cni_folder() -> Option<PathBuf> {
    let named = std::env::var_os("TOKENSCOPE_CNI").map(PathBuf::from);
    let usual = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(PathBuf::from);
    let has_all = |folder: &PathBuf| CNI_PLUGINS.iter().all(|plugin| folder.join(plugin).is_file());
    named.into_iter().chain(usual).find(has_all)
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The image of the process that holds a pod's namespaces.
fn pause_archive() -> Result<PathBuf> {
    let folder = tools::cache()?.join("cluster-images");
    let archive = folder.join("pause.tar");
    make_once(&archive, &archive, "the image of pause", || {
        make_pause(&folder, &archive)
    })?;
    Ok(archive)
}

fn make_pause(folder: &Path, archive: &Path) -> Result<()> {
    let program = folder.join(format!("pause.{}", std::process::id()));
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-Copt-level=s", "-Cstrip=symbols", "-Cpanic=abort"])
        .arg("-Ctarget-feature=+crt-static")
        .arg("-o")
        .arg(&program)
        .arg(crate::root().join("xtask/src/cluster/pause.rs"))
        .output()
        .context("can't run rustc")?;
    succeeded("rustc", &output)?;
    let mut image = Image::of_program(files::PAUSE_IMAGE, &program)?;
    image.files = vec![(program.clone(), "/pause".to_owned())];
    image.entrypoint = vec!["/pause".to_owned()];
    image.write(archive)?;
    fs::remove_file(program)?;
    Ok(())
}

fn coredns_archive() -> Result<PathBuf> {
    let coredns = locate(Tool::CoreDns)?;
    let archive = tools::cache()?.join("cluster-images/coredns.tar");
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    if !changed(&archive).is_ok_and(|written| changed(&coredns.path).is_ok_and(|built| built < written)) {
        Image::of_program(files::COREDNS_IMAGE, &coredns.path)?.write(&archive)?;
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_cluster_can_run_is_found_out_side_by_side() {
        let alone = obstacle();
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..20).map(|_| obstacle()).collect::<Vec<_>>()))
                .collect();
            for thread in asking {
                let found = thread.join().expect("no thread panics");
                assert!(found.iter().all(|each| *each == alone), "{alone:?}: {found:?}");
            }
        });
    }
}
