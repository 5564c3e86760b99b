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

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use self::folder::{base, lock_base};
pub use self::machine::{FROM_DISTRIBUTION, obstacle, warm_up};
use self::machine::{Prepared, ensure_root, prepare};
use crate::progress::{Step, say};
use crate::run_with_input;
use crate::tools::Tool;

mod cgroups;

mod files;

/// The longest time that a cluster may take to be ready once everything that it runs is built. Tests start up to three of them at once,
/// beside other programs, on two cores.
const READY_DEADLINE: Duration = Duration::from_secs(300);

/// The name that is meant if none is given.
pub const DEFAULT_NAME: &str = "main";

/// What pid 1 of the namespaces runs.
const NODE_SCRIPT: &str = include_str!("node.sh");

/// Joins the cgroups listed in the file that is its name, then becomes the command.
const JOIN: &str = r#"while read -r cgroup; do echo $$ >"$cgroup/cgroup.procs" || exit 125; done <"$0"; exec "$@""#;

/// Says once how a process ended.
type Ended = mpsc::Receiver<std::io::Result<ExitStatus>>;

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

    /// Starts it: builds or installs what is missing, and returns once the node is ready and CoreDNS answers.
    ///
    /// What is left of an earlier start that was interrupted is removed first. Fails if it runs already, without root's
    /// rights, and when it isn't ready within [five minutes](READY_DEADLINE); it is then left as it is, to be looked at.
    pub fn up(&self) -> Result<()> {
        let prepared = prepare()?;

        let started = Instant::now();
        self.remove_interrupted()?;
        self.make_folder()?;
        let _lock = self.lock()?;

        let step = Step::start("certificates and configuration", None);
        self.write_files(&prepared)?;
        step.done("");

        let step = Step::start("etcd and kube-apiserver", None);
        let first = self.spawn()?;
        self.wait(&first, started, &step, "kube-apiserver", |cluster| {
            cluster.is_marked("kube-apiserver")
        })?;
        step.done("");

        let step = Step::start("node", None);
        self.apply(files::COREDNS)?;
        self.wait(&first, started, &step, "kubelet", Self::node_is_ready)?;
        step.done("");

        let step = Step::start("CoreDNS", None);
        self.wait(&first, started, &step, "kubelet", Self::dns_is_available)?;
        step.done("");
        fs::write(self.folder.join("marks/ready"), "")?;
        Ok(())
    }

    /// Removes what an interrupted start left. Fails if the cluster runs.
    fn remove_interrupted(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _held = self.lock()?;
        if self.status()?.is_some_and(|status| status.ready) {
            bail!("the cluster {:?} runs already", self.name);
        }
        say("  removing what an interrupted start left");
        self.remove()
    }

    /// Writes all that the servers read, and makes the cgroups that they will be in.
    fn write_files(&self, prepared: &Prepared) -> Result<()> {
        let (kind, hierarchies) = cgroups::hierarchies()?;
        let lines: String = hierarchies.iter().map(cgroups::Hierarchy::line).collect();
        files::write(&self.folder, kind, &lines, &prepared.cni)?;
        fs::write(self.folder.join("node.sh"), NODE_SCRIPT)?;
        for (name, program) in &prepared.programs {
            symlink(program, self.folder.join("bin").join(name))?;
        }
        for archive in &prepared.archives {
            let name = archive.file_name().context("an archive has a name")?;
            symlink(archive, self.folder.join("images").join(name))?;
        }
        // On disk before the first of them is made, so that whatever happens now can be undone.
        let own = format!("tokenscope-cluster-{}", self.name);
        let cgroups: Vec<PathBuf> = hierarchies.iter().map(|each| each.cgroup(kind, &own)).collect();
        self.write_list("cgroups", &cgroups, "")?;
        let (outermost, inside) = match kind {
            cgroups::CgroupKind::Unified => ("outer", "node/init"),
            cgroups::CgroupKind::Hybrid => ("", ""),
        };
        self.write_list("join-starter", &cgroups, outermost)?;
        self.write_list("join", &cgroups, inside)?;
        let _alone = lock_base()?;
        cgroups::make(kind, &hierarchies, &cgroups, &base()?.join("handed-down"))
    }

    fn node_is_ready(&self) -> bool {
        let ready = r"jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.is_marked("images")
            && self.kubectl_says(&["get", "node", files::NODE, "-o", ready], "True")
            && self.kubectl_says(
                &["get", "serviceaccount", "default", "-o", "name"],
                "serviceaccount/default",
            )
    }

    fn dns_is_available(&self) -> bool {
        let available = "jsonpath={.status.availableReplicas}";
        let deployment = ["get", "deployment", "coredns", "--namespace=kube-system", "-o"];
        self.kubectl_says(&[&deployment[..], &[available]].concat(), "1")
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

    /// Starts the outermost process; its end is told through the channel.
    fn spawn(&self) -> Result<Ended> {
        let log = File::create(self.folder.join("log/node.log"))?;
        let mut command = Command::new("setsid"); // the terminal's signals are the starter's
        command
            .args(["sh", "-c", JOIN])
            .arg(self.folder.join("join-starter"))
            .args([
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "private", "bash"])
            .arg(self.folder.join("node.sh"))
            .arg(&self.folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command.spawn().context("can't run setsid")?;
        let (ended, receiver) = mpsc::channel();
        // Whoever ends the cluster, its outermost process is our child as long as we live, and has to be looked at.
        std::thread::spawn(move || {
            let _ = ended.send(child.wait());
        });
        Ok(receiver)
    }

    /// Waits for something, as long as the cluster's first process lives and the deadline allows.
    fn wait(
        &self,
        first: &Ended,
        started: Instant,
        step: &Step,
        log: &str,
        is_there: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        loop {
            if is_there(self) {
                return Ok(());
            }
            let logs = self.folder.join("log");
            if let Ok(ended) = first.try_recv() {
                bail!(
                    "the cluster's first process ended with {}:\n{}",
                    ended?,
                    tail(&logs.join("node.log"))
                );
            }
            ensure!(
                started.elapsed() < READY_DEADLINE,
                "not there after {} s; the end of {}:\n{}",
                READY_DEADLINE.as_secs(),
                logs.join(format!("{log}.log")).display(),
                tail(&logs.join(format!("{log}.log")))
            );
            step.detail(&format!("logs in {}", logs.display()));
            std::thread::sleep(Duration::from_millis(300)); // each look takes what the servers need to start
        }
    }

    fn kubectl_says(&self, arguments: &[&str], expected: &str) -> bool {
        let Ok(mut command) = self.command("kubectl") else {
            return false;
        };
        let output = command.arg("--request-timeout=5s").args(arguments).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
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

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|content| String::from_utf8_lossy(&content).into_owned());
    let text = text.unwrap_or_else(|error| format!("can't read {}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
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
