//! A real Kubernetes cluster of one node on this machine, for tests and the demo.
//!
//! Not kind or k3d: both need Docker and images from a registry, and here neither is needed.
//!
//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, containerd and kube-proxy run in mount, network,
//! process, UTS, IPC and cgroup namespaces of their own, and CoreDNS as a pod. The machine's interfaces, firewall and
//! mounts stay as they are, and nothing in the cluster reaches another network. Everything in it is in cgroups of its own:
//! what ends it needs neither the process that started it nor a file with process numbers.
//!
//! A cluster's folder is `/tmp/tokenscope-clusters-<uid>/<name>`, open to its owner only. It isn't taken from the environment
//! (`XDG_RUNTIME_DIR` and `TMPDIR` differ between a login, sudo and CI, and the former is emptied at logout), so that every
//! later call finds the cluster.

mod folder;
mod machine;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use self::folder::base;
use self::machine::ensure_root;
pub use self::machine::{FROM_DISTRIBUTION, obstacle, warm_up};
use crate::run_with_input;
use crate::tools::Tool;

mod cgroups;

mod files;

/// The name that is meant if none is given.
pub const DEFAULT_NAME: &str = "main";

/// Joins the cgroups listed in the file that is its name, then becomes the command.
const JOIN: &str = r#"while read -r cgroup; do echo $$ >"$cgroup/cgroup.procs" || exit 125; done <"$0"; exec "$@""#;

/// A cluster, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    folder: PathBuf,
}

/// The state of a cluster.
#[derive(Clone, Debug)]
pub struct Status {
    /// True if its start has ended well and its first process lives.
    pub ready: bool,
    /// The time when its start began, by the machine's clock.
    pub started: SystemTime,
    /// The number of its processes, those of pods too.
    pub processes: usize,
    /// The servers: name and process number.
    pub servers: Vec<(String, u32)>,
}

impl Cluster {
    /// The cluster of a name: 1 to 30 small letters, digits and dashes.
    pub fn named(name: &str) -> Result<Self> {
        let fits = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
        ensure!(
            (1..=30).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-'),
            "{name:?} can't be a cluster's name: it takes 1 to 30 small letters, digits and dashes"
        );
        Ok(Self {
            name: name.to_owned(),
            folder: base()?.join(name),
        })
    }

    /// Every cluster that there is a trace of.
    pub fn all() -> Result<Vec<Self>> {
        let mut names: Vec<String> = fs::read_dir(base()?)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.iter().map(|name| Self::named(name)).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder: certificates, configuration and `log/`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An administrator's kubeconfig. The server in it is reachable inside the cluster only, see [`Cluster::command`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("conf/admin.kubeconfig")
    }

    /// Ends it and removes every trace of it. Returns whether there was one.
    pub fn down(&self) -> Result<bool> {
        if !self.folder.exists() {
            return Ok(false);
        }
        ensure_root("stop a cluster")?;
        let _lock = self.lock()?;
        self.remove()?;
        Ok(true)
    }

    /// Its state; `None` if there is no such cluster.
    pub fn status(&self) -> Result<Option<Status>> {
        let Ok(started) = fs::metadata(self.folder.join("node.sh")).and_then(|file| file.modified()) else {
            return Ok(None);
        };
        let cgroups = self.cgroups();
        let members = cgroups::members(&cgroups);
        let mut servers: Vec<(String, u32)> = members
            .iter()
            .filter_map(|process| {
                let program = fs::read_link(format!("/proc/{process}/exe")).ok()?;
                let name = program.file_name()?.to_str()?;
                let server = Tool::CLUSTER.into_iter().find(|tool| tool.name() == name)?;
                let is_client = matches!(server, Tool::Kubectl | Tool::Ctr | Tool::Helm | Tool::ContainerdShim);
                (!is_client).then(|| (name.to_owned(), *process))
            })
            .collect();
        servers.sort();
        Ok(Some(Status {
            ready: self.is_marked("ready") && cgroups::first_process(&cgroups).is_some(),
            started,
            processes: members.len(),
            servers,
        }))
    }

    /// A command that runs inside, as root, with `KUBECONFIG` set and `kubectl`, `helm` and `ctr` first on PATH, in the
    /// current folder. It ends with the cluster at the latest.
    ///
    /// Fails if the cluster doesn't run.
    pub fn command(&self, program: &str) -> Result<Command> {
        ensure_root("enter a cluster")?;
        let first = cgroups::first_process(&self.cgroups()).with_context(|| {
            format!(
                "the cluster {:?} doesn't run: cargo xtask cluster up --name {0}",
                self.name
            )
        })?;
        let folder = std::env::current_dir()?;
        let mut search = vec![self.folder.join("bin")];
        search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("sh");
        command
            .args(["-c", JOIN])
            .arg(self.folder.join("join"))
            .args(["nsenter", "--target", &first.to_string()])
            .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--"])
            // The working folder by its path in the new mount namespace, not the mount of the old one.
            .args(["env", "--chdir"])
            .arg(folder)
            .arg(program)
            .env("PATH", std::env::join_paths(search)?)
            .env("KUBECONFIG", self.kubeconfig())
            .env("CONTAINERD_NAMESPACE", "k8s.io");
        Ok(command)
    }

    /// Makes an image known to the node; pods use it by its name, without a pull.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let archive = fs::canonicalize(archive).with_context(|| format!("can't read {}", archive.display()))?;
        let output = self
            .command("ctr")?
            .args(["images", "import"])
            .arg(&archive)
            .output()
            .context("can't run ctr")?;
        succeeded("ctr images import", &output)
    }

    /// Applies manifests, by server-side apply.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut kubectl = self.command("kubectl")?;
        kubectl.args(["apply", "--server-side", "--filename=-"]);
        succeeded("kubectl apply", &run_with_input(&mut kubectl, manifests)?)
    }
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{what} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_lead_out_of_the_folder_is_refused() {
        for name in ["", "..", "a/b", "A", "-a", "a b", &"a".repeat(31)] {
            assert!(Cluster::named(name).is_err(), "{name:?}");
        }
        assert!(Cluster::named("one-2").is_ok());
    }
}
