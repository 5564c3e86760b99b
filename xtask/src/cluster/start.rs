//! The start of a cluster, and the wait until it is ready.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::folder::{base, lock_base};
use super::machine::{Prepared, prepare};
use super::{Cluster, JOIN, cgroups, files};
use crate::progress::{Step, say};

/// The longest time that a cluster may take to be ready once everything that it runs is built. Tests start up to three of them at once,
/// beside other programs, on two cores.
const READY_DEADLINE: Duration = Duration::from_secs(300);

/// The script of process 1 of the namespaces.
const NODE_SCRIPT: &str = include_str!("node.sh");

/// Says once how a process ended.
type Ended = mpsc::Receiver<std::io::Result<ExitStatus>>;

impl Cluster {
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

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|content| String::from_utf8_lossy(&content).into_owned());
    let text = text.unwrap_or_else(|error| format!("can't read {}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
