//! `cargo xtask cluster`: what it starts ends without a trace, however the starter ended, and clusters don't meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokenscope_e2e::node::is_possible;
use tokenscope_xtask::cluster::{Cluster, warm_up};
use tokenscope_xtask::progress::say;

/// Names the cluster that the helper below starts.
const STARTED: &str = "TOKENSCOPE_TEST_STARTS_CLUSTER";

#[test]
fn a_cluster_that_ends_leaves_the_machine_as_it_was() -> Result<()> {
    if !is_possible()? {
        return Ok(());
    }
    warm_up()?;

    let cluster = Cluster::named("test-ends")?;
    cluster.down()?;
    let before = Machine::now(&["test-ends"])?;
    for round in 0..3 {
        let started = Instant::now();
        cluster.up()?;
        let up = started.elapsed();
        let inside = Machine::now(&["test-ends"])?;
        assert_eq!(inside.mounts, before.mounts, "round {round}: a mount is seen outside");
        assert_eq!(
            inside.interfaces, before.interfaces,
            "round {round}: an interface is seen outside"
        );
        assert!(inside.processes > 8 && inside.cgroups > 0, "round {round}: {inside:?}");
        if round == 2 {
            // The namespaces' first process ends with the one that made them, and everything with it.
            let (_, server) = cluster.status()?.context("it runs")?.servers.swap_remove(0);
            kill(maker_of_namespaces(server)?)?;
        }
        let started = Instant::now();
        assert!(cluster.down()?);
        say(&format!(
            "  up {:.1} s, down {:.1} s",
            up.as_secs_f64(),
            started.elapsed().as_secs_f64()
        ));
        before.comes_back(&["test-ends"])?;
    }
    assert!(!cluster.down()?, "nothing is left to stop");

    for milliseconds in [0, 20, 300, 1_000, 3_000, 5_000] {
        let mut starter = Command::new(std::env::current_exe()?)
            .args(["--exact", "starts_a_cluster", "--ignored", "--nocapture"])
            .env(STARTED, "test-ends")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Counted from the first trace: on a busy machine it takes a while until there is one.
        wait_for(cluster.folder())?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        starter.kill()?;
        starter.wait()?;
        assert!(cluster.down()?, "there was something to end");
        before
            .comes_back(&["test-ends"])
            .with_context(|| format!("the starter was killed after {milliseconds} ms"))?;
    }
    Ok(())
}

#[test]
fn two_clusters_run_side_by_side_and_one_ends_without_the_other() -> Result<()> {
    if !is_possible()? {
        return Ok(());
    }
    warm_up()?;
    let (left, right) = (Cluster::named("test-left")?, Cluster::named("test-right")?);
    for cluster in [&left, &right] {
        cluster.down()?;
        cluster.up()?;
        let output = cluster
            .command("kubectl")?
            .args(["create", "namespace", cluster.name()])
            .output()?;
        ensure!(output.status.success(), "{output:?}");
    }
    for (cluster, own, other) in [(&left, "test-left", "test-right"), (&right, "test-right", "test-left")] {
        let output = cluster
            .command("kubectl")?
            .args(["get", "namespaces", "-o=name"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(own) && !text.contains(other), "{own}: {text}");
    }
    assert_eq!(
        left.command("sh")?.args(["-c", "exit 7"]).status()?.code(),
        Some(7),
        "a command's exit status is passed on"
    );
    left.down()?;
    let status = right.status()?.context("the other cluster is there")?;
    assert!(status.ready && status.servers.len() == 8, "{status:?}");
    right.down()?;
    Ok(())
}

/// Run by a test above as a process that can be killed.
#[test]
#[ignore = "run, and killed, by a_cluster_that_ends_leaves_the_machine_as_it_was"]
fn starts_a_cluster() -> Result<()> {
    if let Ok(name) = std::env::var(STARTED) {
        Cluster::named(&name)?.up()?;
    }
    Ok(())
}

fn wait_for(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !path.exists() {
        ensure!(Instant::now() < deadline, "{} isn't there", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The process outside of the namespaces that a server within them descends from.
fn maker_of_namespaces(server: u32) -> Result<u32> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid"));
    let own = namespace("self")?;
    let mut process = server;
    while namespace(&process.to_string())? != own {
        process = parent(process)?;
    }
    Ok(process)
}

fn parent(process: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(parent.context("a process has a parent")?.trim().parse()?)
}

fn kill(process: u32) -> Result<()> {
    let status = Command::new("kill").args(["-KILL", &process.to_string()]).status()?;
    ensure!(status.success(), "kill ended with {status}");
    Ok(())
}

/// What a cluster could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    /// Rules of the firewall, without counters; empty where nft says nothing.
    firewall: String,
    /// Settings of the kernel that servers of a cluster like to change.
    settings: BTreeMap<&'static str, String>,
    /// Folders that servers of a cluster like to make.
    folders: BTreeSet<&'static str>,
    /// Processes of the named clusters, dead ones included.
    processes: usize,
    /// Cgroups of the named clusters, and of pods.
    cgroups: usize,
    /// Namespaces of the named clusters' processes, or kept by files.
    namespaces: usize,
    /// The named clusters' folders.
    state: BTreeSet<PathBuf>,
}

/// Settings of the kernel that servers of Kubernetes like to change.
const SETTINGS: [&str; 8] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
];

/// Folders that servers of Kubernetes use where nobody tells them otherwise.
const FOLDERS: [&str; 14] = [
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/runc",
    "/run/netns",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// The number of processes in cgroups of these names, and their namespaces.
fn processes_of(names: &[String]) -> Result<(usize, BTreeSet<PathBuf>)> {
    let mut processes = 0;
    let mut namespaces = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if names.iter().any(|name| cgroup.contains(&format!("/{name}"))) {
            processes += 1;
            for kind in ["mnt", "net", "pid", "uts", "ipc", "cgroup"] {
                namespaces.extend(fs::read_link(entry.path().join("ns").join(kind)));
            }
        }
    }
    Ok((processes, namespaces))
}

impl Machine {
    fn now(clusters: &[&str]) -> Result<Self> {
        let names: Vec<String> = clusters
            .iter()
            .map(|name| format!("tokenscope-cluster-{name}"))
            .collect();
        let mut cgroups = 0;
        count(Path::new("/sys/fs/cgroup"), &mut cgroups, &|name| {
            names.iter().any(|wanted| wanted == name) || name.starts_with("kubepods")
        });
        let (processes, namespaces) = processes_of(&names)?;
        let own: BTreeSet<PathBuf> = ["mnt", "net", "pid", "uts", "ipc", "cgroup"]
            .iter()
            .flat_map(|kind| fs::read_link(Path::new("/proc/self/ns").join(kind)))
            .collect();
        let kept = fs::read_dir("/run/netns").into_iter().flatten().count();
        let firewall = Command::new("nft").args(["--stateless", "list", "ruleset"]).output();
        Ok(Self {
            mounts: lines("/proc/self/mountinfo")?,
            interfaces: fs::read_dir("/sys/class/net")?
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            firewall: firewall.map_or_else(
                |_| String::new(),
                |output| String::from_utf8_lossy(&output.stdout).into_owned(),
            ),
            settings: SETTINGS
                .into_iter()
                .map(|name| {
                    let path = Path::new("/proc/sys").join(name);
                    (name, fs::read_to_string(path).unwrap_or_default())
                })
                .collect(),
            folders: FOLDERS
                .into_iter()
                .filter(|folder| Path::new(folder).exists())
                .collect(),
            processes,
            cgroups,
            namespaces: namespaces.difference(&own).count() + kept,
            state: clusters
                .iter()
                .map(|name| Cluster::named(name).map(|cluster| cluster.folder().to_owned()))
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .filter(|folder| folder.exists())
                .collect(),
        })
    }

    /// Waits for the state of before; the machine's process 1 may take a moment to look at a dead process.
    fn comes_back(&self, clusters: &[&str]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let now = Self::now(clusters)?;
            if now == *self {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left behind:\n{now:#?}\nbefore:\n{self:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn lines(path: &str) -> Result<BTreeSet<String>> {
    Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

fn count(folder: &Path, found: &mut usize, counts: &dyn Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name();
            let counted = counts(&name.to_string_lossy());
            *found += usize::from(counted);
            // What is in other clusters' is theirs.
            if counted || !name.to_string_lossy().starts_with("tokenscope-cluster-") {
                count(&entry.path(), found, counts);
            }
        }
    }
}
