//! The real servers and clients that the tests and the demo run, and where they come from.
//!
//! Looked up in this order: `TOKENSCOPE_<TOOL>` (a path), `KUBEBUILDER_ASSETS` (a folder with kube-apiserver, etcd and
//! kubectl), `PATH` (where the version fits the pinned one), and else built once with Go from the modules pinned in
//! `tools/` into `$XDG_CACHE_HOME/tokenscope/tools/<name>-<version>/` (`~/.cache` without that variable).
//! The pinned versions are those of `tools/*/go.mod` and `tools/python/requirements.txt`; they are written nowhere else.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::progress::{Step, say};
use crate::root;

/// How long `--version` of something found on PATH may take.
const VERSION_DEADLINE: Duration = Duration::from_secs(15);

/// The oldest kubectl taken from PATH: server-side apply with strict field validation is settled since long before it.
const OLDEST_KUBECTL: (u32, u32) = (1, 30);

/// A server or client that the tests and the demo run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The Kubernetes API server.
    KubeApiserver,
    /// Its store.
    Etcd,
    /// The command line client.
    Kubectl,
    /// Renders and checks the charts.
    Helm,
    /// A Python interpreter that can `import boto3`, the AWS SDK for Python.
    Boto3,
    /// Runs the built-in controllers: Deployments, ServiceAccounts, endpoints.
    KubeControllerManager,
    /// Gives pods their node.
    KubeScheduler,
    /// Runs the pods of a node.
    Kubelet,
    /// Makes Services reachable.
    KubeProxy,
    /// Holds images and containers for the kubelet.
    Containerd,
    /// Its client, which imports images.
    Ctr,
    /// What containerd starts for each pod.
    ContainerdShim,
    /// The cluster's DNS server, which runs as a pod.
    CoreDns,
    /// An S3, IAM and STS server, which runs in a cluster's network.
    VersityGateway,
    /// Gives workloads their SPIFFE identities: its server, which signs.
    SpireServer,
    /// Its agent, which looks who asks and serves the Workload API.
    SpireAgent,
    /// Publishes its keys as an OIDC issuer does.
    SpireOidcDiscoveryProvider,
    /// cert-manager's controller and cainjector; its custom resource definitions are in the folder `crds` beside it.
    CertManager,
}

/// Where a tool was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment variable of this name.
    Variable(String),
    /// A folder of PATH.
    Path,
    /// Built before from the pinned source.
    Cache,
    /// Built just now from the pinned source.
    Built,
}

/// A tool that can be run.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Which one.
    pub tool: Tool,
    /// What it says of itself, without a leading `v`.
    pub version: String,
    /// Where it was found.
    pub origin: Origin,
    /// The program.
    pub path: PathBuf,
}

/// The program of a tool, built first where nothing fitting is installed. Blocks; building takes up to some minutes.
///
/// Fails if a variable names something that can't be run, or if building needs Go (or Python) and it is missing.
pub fn resolve(tool: Tool) -> Result<PathBuf> {
    locate(tool).map(|resolved| resolved.path)
}

/// As [`resolve`], with the version and where it came from. Found once in the life of a process.
pub fn locate(tool: Tool) -> Result<Resolved> {
    static FOUND: Mutex<BTreeMap<Tool, Resolved>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(resolved) = found.get(&tool) {
        return Ok(resolved.clone());
    }
    let resolved = search(tool)?;
    found.insert(tool, resolved.clone());
    Ok(resolved)
}

fn search(tool: Tool) -> Result<Resolved> {
    if let Some(found) = from_environment(tool)? {
        return Ok(found);
    }
    if let Some(found) = from_path(tool)? {
        return Ok(found);
    }
    let version = tool.pinned_version()?;
    let folder = cache()?.join(format!("{}-{version}", tool.pin().folder_name));
    let path = folder.join(tool.pin().program);
    let resolved = |origin| Resolved {
        tool,
        version: version.clone(),
        origin,
        path: path.clone(),
    };
    if path.exists() {
        return Ok(resolved(Origin::Cache));
    }
    fs::create_dir_all(cache()?)?;
    let _lock = lock(&beside(&folder, "lock"), tool)?;
    if path.exists() {
        return Ok(resolved(Origin::Cache)); // the other process has built it meanwhile
    }
    match tool {
        Tool::Boto3 => build_python(&folder, &version)?,
        _ => build_go(tool, &folder, &version)?,
    }
    Ok(resolved(Origin::Built))
}

/// The folder that built tools are kept in; it need not exist yet.
pub fn cache() -> Result<PathBuf> {
    let caches = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
        _ => Path::new(&std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(caches.join("tokenscope").join("tools"))
}

impl Tool {
    /// What an API server without a node, and its clients, need; in the order in which they are built: what is needed
    /// first comes first.
    pub const BASIC: [Self; 5] = [Self::Etcd, Self::KubeApiserver, Self::Kubectl, Self::Helm, Self::Boto3];

    /// What `cargo xtask cluster` runs.
    pub const CLUSTER: [Self; 12] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::Helm,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::Ctr,
        Self::ContainerdShim,
        Self::CoreDns,
    ];

    /// What gives SPIFFE identities.
    pub const SPIRE: [Self; 3] = [Self::SpireServer, Self::SpireAgent, Self::SpireOidcDiscoveryProvider];

    /// Every tool.
    pub const ALL: [Self; 18] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::Helm,
        Self::Boto3,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::Ctr,
        Self::ContainerdShim,
        Self::CoreDns,
        Self::VersityGateway,
        Self::SpireServer,
        Self::SpireAgent,
        Self::SpireOidcDiscoveryProvider,
        Self::CertManager,
    ];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Boto3 => "boto3",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Containerd => "containerd",
            Self::Ctr => "ctr",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::CoreDns => "coredns",
            Self::VersityGateway => "versitygw",
            Self::SpireServer => "spire-server",
            Self::SpireAgent => "spire-agent",
            Self::SpireOidcDiscoveryProvider => "oidc-discovery-provider",
            Self::CertManager => "cert-manager",
        }
    }

    /// The environment variable that names the program to take.
    pub fn variable(self) -> String {
        format!("TOKENSCOPE_{}", self.name().to_uppercase().replace('-', "_"))
    }

    /// The version that `tools/` pins, without a leading `v`.
    pub fn pinned_version(self) -> Result<String> {
        let Pin { source, module, .. } = self.pin();
        let file = root().join("tools").join(source);
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let version = text.lines().find_map(|line| {
            let line = line.trim();
            let rest = line.strip_prefix("require ").unwrap_or(line).strip_prefix(module)?;
            let version = rest.strip_prefix(" v").or_else(|| rest.strip_prefix("=="))?;
            version.split_whitespace().next()
        });
        Ok(version
            .with_context(|| format!("{} pins no version of {module}", file.display()))?
            .to_owned())
    }

    fn pin(self) -> Pin {
        match self {
            Self::KubeApiserver => Pin {
                source: "kubernetes/go.mod",
                module: "k8s.io/kubernetes",
                package: "k8s.io/kubernetes/cmd/kube-apiserver",
                folder_name: "kubernetes",
                program: "kube-apiserver",
                usual: "7 min on two cores",
            },
            Self::Kubectl => Pin {
                package: "k8s.io/kubernetes/cmd/kubectl",
                program: "kubectl",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Etcd => Pin {
                source: "etcd/go.mod",
                module: "go.etcd.io/etcd/server/v3",
                package: "go.etcd.io/etcd/server/v3",
                folder_name: "etcd",
                program: "etcd",
                usual: "1 min on two cores",
            },
            Self::Helm => Pin {
                source: "helm/go.mod",
                module: "helm.sh/helm/v4",
                package: "helm.sh/helm/v4/cmd/helm",
                folder_name: "helm",
                program: "helm",
                usual: "3 min on two cores",
            },
            Self::Boto3 => Pin {
                source: "python/requirements.txt",
                module: "boto3",
                package: "boto3",
                folder_name: "boto3",
                program: "bin/python",
                usual: "15 s",
            },
            Self::KubeControllerManager => Pin {
                package: "k8s.io/kubernetes/cmd/kube-controller-manager",
                program: "kube-controller-manager",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::KubeScheduler => Pin {
                package: "k8s.io/kubernetes/cmd/kube-scheduler",
                program: "kube-scheduler",
                usual: "20 s on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Kubelet => Pin {
                package: "k8s.io/kubernetes/cmd/kubelet",
                program: "kubelet",
                usual: "1 min on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::KubeProxy => Pin {
                package: "k8s.io/kubernetes/cmd/kube-proxy",
                program: "kube-proxy",
                usual: "20 s on two cores",
                ..Self::KubeApiserver.pin()
            },
            Self::Containerd => Pin {
                source: "containerd/go.mod",
                module: "github.com/containerd/containerd/v2",
                package: "github.com/containerd/containerd/v2/cmd/containerd",
                folder_name: "containerd",
                program: "containerd",
                usual: "1 min on two cores",
            },
            Self::Ctr => Pin {
                package: "github.com/containerd/containerd/v2/cmd/ctr",
                program: "ctr",
                usual: "20 s on two cores",
                ..Self::Containerd.pin()
            },
            Self::ContainerdShim => Pin {
                package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                program: "containerd-shim-runc-v2",
                usual: "10 s on two cores",
                ..Self::Containerd.pin()
            },
            Self::CoreDns => Pin {
                source: "coredns/go.mod",
                module: "github.com/coredns/coredns",
                package: "github.com/coredns/coredns",
                folder_name: "coredns",
                program: "coredns",
                usual: "2 min on two cores",
            },
            Self::VersityGateway => Pin {
                source: "versity/go.mod",
                module: "github.com/versity/versitygw",
                package: "github.com/versity/versitygw/cmd/versitygw",
                folder_name: "versitygw",
                program: "versitygw",
                usual: "1 min on two cores",
            },
            Self::SpireServer => Pin {
                source: "spire/go.mod",
                module: "github.com/spiffe/spire",
                package: "github.com/spiffe/spire/cmd/spire-server",
                folder_name: "spire",
                program: "spire-server",
                usual: "8 min on two cores",
            },
            Self::SpireAgent => Pin {
                package: "github.com/spiffe/spire/cmd/spire-agent",
                program: "spire-agent",
                usual: "20 s on two cores",
                ..Self::SpireServer.pin()
            },
            Self::SpireOidcDiscoveryProvider => Pin {
                package: "github.com/spiffe/spire/support/oidc-discovery-provider",
                program: "oidc-discovery-provider",
                usual: "10 s on two cores",
                ..Self::SpireServer.pin()
            },
            Self::CertManager => Pin {
                source: "cert-manager/go.mod",
                module: "github.com/cert-manager/cert-manager",
                package: ".",
                folder_name: "cert-manager",
                program: "cert-manager",
                usual: "3 min on two cores",
            },
        }
    }

    /// Build tags: containerd without the snapshotters that need C libraries or file systems which nobody has here.
    fn tags(self) -> &'static str {
        match self {
            Self::Containerd | Self::Ctr | Self::ContainerdShim => "no_btrfs,no_devmapper,no_zfs",
            _ => "",
        }
    }

    /// The command that prints the version.
    fn version_command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::KubeApiserver
            | Self::Etcd
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::Containerd
            | Self::Ctr
            | Self::VersityGateway
            | Self::SpireServer
            | Self::SpireAgent
            | Self::SpireOidcDiscoveryProvider
            | Self::CertManager => command.arg("--version"),
            Self::ContainerdShim => command.arg("-v"),
            Self::CoreDns => command.arg("-version"),
            Self::Kubectl => command.args(["version", "--client"]),
            Self::Helm => command.args(["version", "--template", "{{.Version}}"]),
            Self::Boto3 => command.args(["-c", "import boto3; print(boto3.__version__)"]),
        };
        command
    }

    /// Whether something on PATH of this version behaves like the pinned one.
    fn accepts(self, found: &str, pinned: &str) -> bool {
        match self {
            Self::Kubectl => minor(found).is_some_and(|version| version >= OLDEST_KUBECTL && version.0 == 1),
            _ => minor(found).is_some() && minor(found) == minor(pinned),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(formatter, "${name}"),
            Self::Path => formatter.write_str("PATH"),
            Self::Cache => formatter.write_str("built before"),
            Self::Built => formatter.write_str("built now"),
        }
    }
}

/// What is built, and from where.
struct Pin {
    /// The file under tools/ that pins the version.
    source: &'static str,
    /// The name that the version stands behind in that file.
    module: &'static str,
    /// What Go builds.
    package: &'static str,
    /// The first part of the name of the folder in the cache.
    folder_name: &'static str,
    /// The program's path in that folder.
    program: &'static str,
    /// About how long building takes, for who has no "last time" yet.
    usual: &'static str,
}

fn from_environment(tool: Tool) -> Result<Option<Resolved>> {
    let taken = |variable: String, path: PathBuf| {
        let version = version_of(tool, &path).with_context(|| {
            format!(
                "{variable} names {}, which doesn't work as {}",
                path.display(),
                tool.name()
            )
        })?;
        Ok(Some(Resolved {
            tool,
            version,
            origin: Origin::Variable(variable),
            path,
        }))
    };
    if let Some(path) = std::env::var_os(tool.variable()).filter(|path| !path.is_empty()) {
        return taken(tool.variable(), PathBuf::from(path));
    }
    if !matches!(tool, Tool::KubeApiserver | Tool::Etcd | Tool::Kubectl) {
        return Ok(None);
    }
    match std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        Some(folder) => taken("KUBEBUILDER_ASSETS".to_owned(), Path::new(&folder).join(tool.name())),
        None => Ok(None),
    }
}

fn from_path(tool: Tool) -> Result<Option<Resolved>> {
    // Those become images, for which a program of this machine may lack what it is linked with; the shim must be of the same
    // build as containerd; and cert-manager's own programs have other names.
    if matches!(
        tool,
        Tool::CoreDns
            | Tool::VersityGateway
            | Tool::SpireServer
            | Tool::SpireAgent
            | Tool::SpireOidcDiscoveryProvider
            | Tool::ContainerdShim
            | Tool::CertManager
    ) {
        return Ok(None);
    }
    let program = if tool == Tool::Boto3 { "python3" } else { tool.name() };
    let pinned = tool.pinned_version()?;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .filter(|path| path.is_file());
    for path in found {
        // What doesn't start, or hangs, is as good as absent.
        if let Ok(version) = version_of(tool, &path)
            && tool.accepts(&version, &pinned)
        {
            return Ok(Some(Resolved {
                tool,
                version,
                origin: Origin::Path,
                path,
            }));
        }
    }
    Ok(None)
}

fn version_of(tool: Tool, program: &Path) -> Result<String> {
    let mut command = tool.version_command(program);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", program.display()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > VERSION_DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} gave no answer in {} s", VERSION_DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // A version is a few lines and fits into the pipe, so reading it after the end can't have blocked the child.
    let mut text = String::new();
    child
        .stdout
        .take()
        .context("standard output is piped")?
        .read_to_string(&mut text)?;
    // SPIRE's programs print it there.
    child
        .stderr
        .take()
        .context("standard error is piped")?
        .read_to_string(&mut text)?;
    ensure!(status.success(), "{command:?} ended with {status}");
    version_in(&text).with_context(|| format!("{command:?} printed no version"))
}

/// The first `1.2` or `1.2.3` in a text, with what is attached to it (`1.32.4-gke.1`), without a leading `v`.
fn version_in(text: &str) -> Option<String> {
    let word = |word: &str| {
        let word = word.strip_prefix("CoreDNS-").unwrap_or(word);
        let word = word.strip_prefix('v').unwrap_or(word);
        minor(word).map(|_| word.to_owned())
    };
    text.split(|character: char| character.is_whitespace() || character == ',')
        .find_map(word)
}

/// Major and minor of `1.36.3` or `1.36`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Held while one process builds; the kernel releases it however that process ends.
fn lock(path: &Path, tool: Tool) -> Result<File> {
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    if file.try_lock().is_err() {
        let step = Step::start(
            &format!("waiting for another process that builds {}", tool.name()),
            None,
        );
        file.lock().with_context(|| format!("can't lock {}", path.display()))?;
        step.done("");
    }
    Ok(file)
}

fn build_go(tool: Tool, folder: &Path, version: &str) -> Result<()> {
    let Pin {
        source,
        module,
        package,
        program,
        ..
    } = tool.pin();
    let sources = root().join("tools").join(source);
    let sources = sources.parent().context("a go.mod is in a folder")?;
    let partial = beside(folder, &format!("{program}.partial"));
    let mut flags = String::from("-s -w");
    let mut needs_c = "0";
    match tool {
        Tool::KubeApiserver
        | Tool::Kubectl
        | Tool::KubeControllerManager
        | Tool::KubeScheduler
        | Tool::Kubelet
        | Tool::KubeProxy => {
            let (major, minor) = minor(version).with_context(|| format!("{version} is no version"))?;
            let variable = "k8s.io/component-base/version";
            flags = format!(
                "{flags} -X {variable}.gitVersion=v{version} -X {variable}.gitMajor={major} -X {variable}.gitMinor={minor}"
            );
        }
        Tool::Helm => flags = format!("{flags} -X {module}/internal/version.version=v{version}"),
        Tool::Containerd | Tool::Ctr | Tool::ContainerdShim => {
            flags = format!("{flags} -X {module}/version.Version=v{version}");
        }
        Tool::VersityGateway => flags = format!("{flags} -X main.Version=v{version}"),
        Tool::CertManager => flags = format!("{flags} -X {module}/pkg/util.AppVersion=v{version}"),
        Tool::SpireServer | Tool::SpireAgent | Tool::SpireOidcDiscoveryProvider => {
            // Static, so that each is the only file of its image. The server's SQLite is C; the others are compiled the
            // same way, because what they share is then compiled once.
            flags = format!(
                "{flags} -linkmode=external -extldflags=-static -X {module}/pkg/common/version.gittag={version}"
            );
            needs_c = "1";
        }
        Tool::Etcd | Tool::CoreDns | Tool::Boto3 => {} // carry their version in their source
    }
    let mut command = Command::new("go");
    command
        .current_dir(sources)
        .env("CGO_ENABLED", needs_c)
        .env_remove("GOOS") // a program for this machine, whatever else is being built
        .env_remove("GOARCH")
        .env_remove("GOWORK")
        .args(["build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false"])
        .arg(format!("-ldflags={flags}"))
        .arg(format!("-tags={}", tool.tags()))
        .arg("-o")
        .arg(&partial)
        .arg(package);
    let missing = format!(
        "{} {version} isn't installed and has to be built, and there is no Go. Install Go {} or newer \
         (https://go.dev/doc/install), or name a program with {} or KUBEBUILDER_ASSETS",
        tool.name(),
        go_version(sources).unwrap_or_else(|| "1.26".to_owned()),
        tool.variable(),
    );
    run_build(tool, version, &mut command, &missing)?;
    fs::create_dir_all(folder)?;
    if tool == Tool::CertManager {
        copy_definitions(
            &module_folder(sources, module)?.join("deploy/crds"),
            &folder.join("crds"),
        )?;
    }
    fs::rename(&partial, folder.join(program))?;
    Ok(())
}

/// The folder where Go keeps the sources of a module.
fn module_folder(sources: &Path, module: &str) -> Result<PathBuf> {
    let output = Command::new("go")
        .current_dir(sources)
        .env_remove("GOWORK")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module])
        .output()
        .context("can't run go list")?;
    ensure!(
        output.status.success(),
        "go list {module}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Copies the YAML files of one folder to another.
fn copy_definitions(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't list {}", from.display()))? {
        let path = entry?.path();
        if let (Some(name), Some("yaml")) = (
            path.file_name(),
            path.extension().and_then(|extension| extension.to_str()),
        ) {
            fs::write(to.join(name), fs::read(&path)?)?; // not a copy: sources of modules are read-only
        }
    }
    Ok(())
}

/// The Go that the module asks for.
fn go_version(sources: &Path) -> Option<String> {
    let text = fs::read_to_string(sources.join("go.mod")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("go "))
        .map(str::to_owned)
}

fn build_python(folder: &Path, version: &str) -> Result<()> {
    let partial = beside(folder, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let missing = "boto3 needs Python 3 with its venv module (Debian: python3-venv), or name an interpreter that has \
                   boto3 with TOKENSCOPE_BOTO3";
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&partial)
        .output()
        .context(missing)?;
    ensure!(
        made.status.success(),
        "{missing}:\n{}",
        String::from_utf8_lossy(&made.stdout)
    );
    let mut install = Command::new(partial.join("bin/python"));
    install
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
            "-r",
        ])
        .arg(root().join("tools").join(Tool::Boto3.pin().source));
    run_build(Tool::Boto3, version, &mut install, missing)?;
    // The interpreter finds its packages by its own place, so the folder may move.
    fs::rename(&partial, folder)?;
    Ok(())
}

/// Runs a build with its progress, and keeps how long it took.
fn run_build(tool: Tool, version: &str, command: &mut Command, missing: &str) -> Result<()> {
    let durations = cache()?.join("durations.json");
    let mut last = read_durations(&durations);
    let expected = match last.get(tool.name()) {
        Some(seconds) => format!("last time {seconds} s"),
        None => format!("usually {}", tool.pin().usual),
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing.to_owned())?;
    let step = Step::start(&format!("building {} {version}, once", tool.name()), Some(&expected));
    let mut tail = VecDeque::new();
    let mut packages = 0_u32;
    for line in BufReader::new(child.stderr.take().context("standard error is piped")?).lines() {
        let line = line?;
        packages += 1;
        step.detail(&format!("{packages} packages, {line}"));
        tail.push_back(line);
        if tail.len() > 20 {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        step.failed("");
        for line in tail {
            say(&format!("    {line}"));
        }
        bail!("building {} {version} ended with {status}: {command:?}", tool.name());
    }
    last.insert(tool.name().to_owned(), step.done("").as_secs().max(1));
    // Only a figure to show the next time: what can't be kept is no failure.
    let _ = fs::write(&durations, serde_json::json!(last).to_string());
    Ok(())
}

fn read_durations(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The sibling that has this added to its name.
fn beside(path: &Path, addition: &str) -> PathBuf {
    PathBuf::from(format!("{}.{addition}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_pinned_version() {
        for tool in Tool::ALL {
            let version = tool.pinned_version().unwrap();
            assert!(minor(&version).is_some(), "{}: {version}", tool.name());
        }
    }

    #[test]
    fn versions_are_found_in_what_the_tools_print() {
        let cases = [
            ("Kubernetes v1.36.3\n", "1.36.3"),
            ("etcd Version: 3.7.3\nGit SHA: Not provided\n", "3.7.3"),
            (
                "Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n",
                "1.32.4-dispatcher",
            ),
            ("v4.3.1", "4.3.1"),
            ("v4.3", "4.3"),
            ("containerd github.com/containerd/containerd/v2 v2.4.2 \n", "2.4.2"),
            ("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, \n", "1.15.0"),
        ];
        for (text, expected) in cases {
            assert_eq!(version_in(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(version_in("no such thing"), None);
    }

    #[test]
    fn only_the_same_minor_version_is_taken_from_path_and_of_kubectl_any_recent_one() {
        assert!(Tool::KubeApiserver.accepts("1.36.0", "1.36.3"));
        assert!(!Tool::KubeApiserver.accepts("1.35.3", "1.36.3"));
        assert!(!Tool::Helm.accepts("3.19.0", "4.3.1"));
        assert!(Tool::Kubectl.accepts("1.32.4-dispatcher", "1.36.3"));
        assert!(!Tool::Kubectl.accepts("1.21.0", "1.36.3"));
    }
}
