//! A real Kubernetes cluster of one node on this machine, for tests and the demo.
//!
//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, containerd and kube-proxy run in mount, network,
//! process, UTS, IPC and cgroup namespaces of their own, and CoreDNS as a pod. The machine's interfaces, firewall and
//! mounts stay as they are, and nothing in the cluster reaches another network. Everything in it is in cgroups of its own:
//! what ends it needs neither the process that started it nor a file with process numbers.
//!
//! A cluster's folder is `/tmp/tokenscope-clusters-<uid>/<name>`, open to its owner only. It isn't taken from the environment
//! (`XDG_RUNTIME_DIR` and `TMPDIR` differ between a login, sudo and CI, and the former is emptied at logout), so that every
//! later call finds the cluster.

mod cgroups;
mod files;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::oci::Image;
use crate::progress::{Step, say};
use crate::run_with_input;
use crate::tools::{self, Tool, locate, resolve};

/// How long a cluster may take to be ready once everything that it runs is built.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// The name that is meant if none is given.
pub const DEFAULT_NAME: &str = "main";

/// What pid 1 of the namespaces runs.
const NODE_SCRIPT: &str = include_str!("node.sh");

/// Joins the cgroups listed in the file that is its name, then becomes the command.
const JOIN: &str = r#"while read -r cgroup; do echo $$ >"$cgroup/cgroup.procs" || exit 125; done <"$0"; exec "$@""#;

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

/// Says once how a process ended.
type Ended = mpsc::Receiver<std::io::Result<ExitStatus>>;

/// A cluster, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    folder: PathBuf,
}

/// What a cluster is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether its start has ended well and its first process lives.
    pub ready: bool,
    /// When its start began, by the machine's clock.
    pub started: SystemTime,
    /// How many processes it has, those of pods too.
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
    /// rights, and when it isn't ready within [two minutes](READY_DEADLINE); it is then left as it is, to be looked at.
    pub fn up(&self) -> Result<()> {
        let Prepared {
            cni,
            programs,
            archives,
        } = prepare()?;

        let started = Instant::now();
        if self.folder.exists() {
            let _held = self.lock()?;
            if self.status()?.is_some_and(|status| status.ready) {
                bail!("the cluster {:?} runs already", self.name);
            }
            say("  removing what an interrupted start left");
            self.remove()?;
        }
        self.make_folder()?;
        let _lock = self.lock()?;

        let step = Step::start("certificates and configuration", None);
        let (kind, hierarchies) = cgroups::hierarchies()?;
        let lines: String = hierarchies.iter().map(cgroups::Hierarchy::line).collect();
        files::write(&self.folder, kind, &lines, &cni)?;
        fs::write(self.folder.join("node.sh"), NODE_SCRIPT)?;
        for (name, program) in &programs {
            symlink(program, self.folder.join("bin").join(name))?;
        }
        for archive in &archives {
            let name = archive.file_name().context("an archive has a name")?;
            symlink(archive, self.folder.join("images").join(name))?;
        }
        // On disk before the first of them is made, so that whatever happens now can be undone.
        let own = format!("tokenscope-cluster-{}", self.name);
        let cgroups: Vec<PathBuf> = hierarchies.iter().map(|each| each.cgroup(kind, &own)).collect();
        self.write_list("cgroups", &cgroups, "")?;
        let (outermost, inside) = match kind {
            cgroups::Kind::Unified => ("outer", "node/init"),
            cgroups::Kind::Hybrid => ("", ""),
        };
        self.write_list("join-starter", &cgroups, outermost)?;
        self.write_list("join", &cgroups, inside)?;
        cgroups::make(kind, &hierarchies, &cgroups, &base()?.join("handed-down"))?;
        step.done("");

        let step = Step::start("etcd and kube-apiserver", None);
        let first = self.spawn()?;
        self.wait(&first, started, &step, "kube-apiserver", |cluster| {
            cluster.is_marked("kube-apiserver")
        })?;
        step.done("");

        let step = Step::start("node", None);
        self.apply(files::COREDNS)?;
        let ready = r"jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.wait(&first, started, &step, "kubelet", |cluster| {
            cluster.is_marked("images")
                && cluster.kubectl_says(&["get", "node", files::NODE, "-o", ready], "True")
                && cluster.kubectl_says(
                    &["get", "serviceaccount", "default", "-o", "name"],
                    "serviceaccount/default",
                )
        })?;
        step.done("");

        let step = Step::start("CoreDNS", None);
        let available = "jsonpath={.status.availableReplicas}";
        self.wait(&first, started, &step, "kubelet", |cluster| {
            cluster.kubectl_says(
                &[
                    "get",
                    "deployment",
                    "coredns",
                    "--namespace=kube-system",
                    "-o",
                    available,
                ],
                "1",
            )
        })?;
        step.done("");
        fs::write(self.folder.join("marks/ready"), "")?;
        Ok(())
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

    /// What it is doing; `None` if there is no such cluster.
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
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kubectl_says(&self, arguments: &[&str], expected: &str) -> bool {
        let Ok(mut command) = self.command("kubectl") else {
            return false;
        };
        let output = command.arg("--request-timeout=5s").args(arguments).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
    }

    fn is_marked(&self, mark: &str) -> bool {
        self.folder.join("marks").join(mark).exists()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.folder.join("cgroups")).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    fn write_list(&self, name: &str, cgroups: &[PathBuf], below: &str) -> Result<()> {
        let lines: Vec<String> = cgroups
            .iter()
            .map(|cgroup| format!("{}\n", cgroup.join(below).display()))
            .collect();
        fs::write(self.folder.join(name), lines.concat())?;
        Ok(())
    }

    fn make_folder(&self) -> Result<()> {
        loop {
            make_base()?;
            match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
                // The end of the last other cluster took the common folder away just now.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => return result.with_context(|| format!("can't make {}", self.folder.display())),
            }
        }
    }

    /// Held during a start or a stop; the kernel releases it however the holder ends.
    fn lock(&self) -> Result<File> {
        let folder = File::open(&self.folder).with_context(|| format!("can't open {}", self.folder.display()))?;
        if folder.try_lock().is_err() {
            say("  waiting for another process that starts or stops this cluster");
            folder.lock()?;
        }
        Ok(folder)
    }

    fn remove(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(()); // another process did it while this one waited for the lock
        }
        cgroups::end(&self.cgroups())?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("can't remove {}", self.folder.display()))?;
        if Self::all()?.is_empty() {
            let base = base()?;
            cgroups::restore(&base.join("handed-down"))?;
            // Not empty: a cluster is being started just now.
            let _ = fs::remove_dir(base);
        }
        Ok(())
    }
}

/// Builds and installs what clusters need, so that the next start takes as long as a start takes.
pub fn warm_up() -> Result<()> {
    prepare().map(|_| ())
}

/// Why no cluster can run here, if so: it takes root's rights and cgroups that can be made.
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
    let own = match cgroups::hierarchies() {
        Ok((kind, found)) => found
            .into_iter()
            .map(move |each| each.cgroup(kind, &format!("tokenscope-try-{}", std::process::id()))),
        Err(error) => return Some(format!("{error:#}")),
    };
    for cgroup in own {
        if let Err(error) = fs::create_dir(&cgroup).and_then(|()| fs::remove_dir(&cgroup)) {
            return Some(format!("no cgroup can be made: {}: {error}", cgroup.display()));
        }
    }
    None
}

/// What a start uses.
struct Prepared {
    cni: PathBuf,
    programs: Vec<(&'static str, PathBuf)>,
    archives: [PathBuf; 2],
}

fn prepare() -> Result<Prepared> {
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

/// Where clusters have their folders.
fn base() -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/tmp/tokenscope-clusters-{}", user()?)))
}

/// Everybody may write to /tmp, so a folder that somebody else put there is refused.
fn make_base() -> Result<()> {
    let base = base()?;
    let made = fs::DirBuilder::new().mode(0o700).create(&base);
    let found = fs::symlink_metadata(&base).with_context(|| format!("can't make {}: {made:?}", base.display()))?;
    ensure!(
        found.is_dir() && found.uid() == user()? && found.mode() & 0o777 == 0o700,
        "{} isn't a folder that only you can use; remove it",
        base.display()
    );
    Ok(())
}

fn user() -> Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

fn ensure_root(what: &str) -> Result<()> {
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
    if archive.exists() {
        return Ok(archive);
    }
    fs::create_dir_all(&folder)?;
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
    image.write(&archive)?;
    fs::remove_file(program)?;
    Ok(archive)
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
