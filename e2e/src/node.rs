//! A cluster with a node, where pods run: started for a test program or the demo, and ended with it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::cluster::{Cluster, obstacle};
use tokenscope_xtask::oci::Written;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::{images, run_with_input};

use crate::helm::{NAMESPACE, chart};
use crate::process::Memory;

/// How long a command may take, in seconds: longer than any that waits by itself for pods, so that this one says what it waited for.
const COMMAND_DEADLINE: &str = "600";

/// How long Helm may wait for pods of new images, on a busy machine.
const HELM_DEADLINE: &str = "--timeout=300s";

/// How long a process in the cluster may take to learn of a change by its watch, to listen or to end, on a busy machine.
pub const NOTICED: Duration = Duration::from_secs(180);

/// How long pods may take to be created, to start and to do what is waited for, on a busy machine.
pub const STARTED: Duration = Duration::from_secs(300);

/// `0` skips the tests that need a cluster, for whoever is in a hurry.
const WANTED: &str = "TOKENSCOPE_CLUSTER_TESTS";

/// True if tests that need a cluster run here: says so if not.
///
/// They run wherever there can be one, and are skipped elsewhere, or where `TOKENSCOPE_CLUSTER_TESTS=0` says so. With
/// `CI=true` nothing is skipped: fails then with what is missing.
pub fn is_possible() -> Result<bool> {
    let unwanted = std::env::var(WANTED).is_ok_and(|value| value == "0");
    let reason = if unwanted {
        Some(format!("{WANTED}=0"))
    } else {
        obstacle()
    };
    match reason {
        None => Ok(true),
        Some(reason) if is_ci() => {
            bail!("CI=true, so no test in a cluster is skipped, and there can't be one: {reason}")
        }
        Some(reason) => {
            say(&format!("skipped, because it needs a cluster: {reason}"));
            Ok(false)
        }
    }
}

/// True if `CI=true`: nothing may be left out then.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The images of tokenscope: quickly compiled ones, or those that are published with `TOKENSCOPE_CLUSTER_IMAGES=dist`.
pub fn built_images() -> Result<Vec<Written>> {
    let profile = std::env::var("TOKENSCOPE_CLUSTER_IMAGES");
    images::build(profile.as_deref().unwrap_or("dev"), &[])
}

/// A running cluster. It ends when this is dropped, or this process ends in whichever way.
#[derive(Debug)]
pub struct Node {
    cluster: Cluster,
    helper: PathBuf,
    guard: Child,
}

impl Node {
    /// Starts a cluster; what there was under its name is ended first. `helper` is the program `cluster_helper`.
    pub fn start(name: &str, helper: &Path) -> Result<Self> {
        let cluster = Cluster::named(name)?;
        cluster.down()?;
        let guard = Command::new(helper)
            .args(["guard", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for us
            .spawn()
            .with_context(|| format!("can't run {}", helper.display()))?;
        let node = Self {
            cluster,
            helper: helper.to_owned(),
            guard,
        };
        node.cluster.up()?;
        Ok(node)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The program `cluster_helper`.
    pub fn helper(&self) -> &Path {
        &self.helper
    }

    /// Runs a program inside. Returns what it printed; fails with what it wrote to standard error.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.try_run(program, arguments, input)?;
        ensure!(
            output.status.success(),
            "{program} {} ended with {}: {}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes images known to it; pods use them by their names, without a pull.
    pub fn load(&self, images: &[Written]) -> Result<()> {
        images.iter().try_for_each(|image| self.cluster.load(&image.path))
    }

    /// The same for a program that may fail.
    pub fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = self.cluster.command("timeout")?;
        command.args([COMMAND_DEADLINE, program]).args(arguments);
        run_with_input(&mut command, input)
    }

    /// Runs a server inside, which ends with the cluster. Its outputs are in the cluster's logs.
    pub fn serve(&self, name: &str, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let log = File::create(self.cluster.folder().join(format!("log/{name}.log")))?;
        let mut command = self.cluster.command("env")?;
        command
            .args(environment.iter().map(|(name, value)| format!("{name}={value}")))
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("can't run {name}"))?;
        // It ends with the cluster, by a signal from there; somebody has to look at it then.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// kubectl, as administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run("kubectl", arguments, "")
    }

    /// kubectl in a namespace.
    pub fn kubectl_in(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", namespace];
        all.extend(arguments);
        self.kubectl(&all)
    }

    /// An object as JSON: `["pod", "orders", "--namespace=shop"]`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "--output=json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Applies objects. Fails with the API server's words.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.run("kubectl", &["apply", "--filename=-"], &list.to_string())?;
        Ok(())
    }

    /// helm with values (an object, or `null`).
    pub fn helm(&self, arguments: &[&str], values: &Value) -> Result<String> {
        let mut all = arguments.to_vec();
        let text = values.to_string();
        if !values.is_null() {
            all.extend(["--values", "-"]);
        }
        self.run("helm", &all, &text)
    }

    /// Installs both charts, or upgrades them to other values, and waits until all pods are ready.
    pub fn install(&self, values: &Value) -> Result<()> {
        for (release, values) in [("tokenscope-crds", &Value::Null), ("tokenscope", values)] {
            let folder = chart(release).display().to_string();
            self.helm(
                &[
                    "upgrade",
                    "--install",
                    "--reset-values", // those of the time before would stay where none are given
                    release,
                    &folder,
                    "--namespace",
                    NAMESPACE,
                    "--create-namespace",
                    "--wait",
                    HELM_DEADLINE,
                ],
                values,
            )?;
        }
        Ok(())
    }

    /// A namespace that admits only pods of the Pod Security level "restricted", with a ServiceAccount.
    pub fn namespace(&self, name: &str, service_account: &str) -> Result<()> {
        self.apply(&[
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
            }),
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": service_account, "namespace": name},
            }),
        ])
    }

    /// Tries until it succeeds; fails with the last error.
    pub fn eventually<T>(&self, deadline: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if started.elapsed() > deadline => {
                    return Err(error.context(format!("waited {deadline:?} in vain until {what}")));
                }
                // A look starts a kubectl, which takes what it waits for the processor.
                Err(_) => std::thread::sleep(Duration::from_millis(400)),
            }
        }
    }

    /// The trust policy for a role, as it stands in a policy's status.
    pub fn trust_policy(&self, namespace: &str, policy: &str, role: &str) -> Result<String> {
        self.eventually(NOTICED, "the status has the trust policy", || {
            let policy = self.get(&["tokenscopepolicy", policy, "--namespace", namespace])?;
            let entries = policy["status"]["trustPolicies"].as_array();
            let mut entries = entries.into_iter().flatten();
            let entry = entries.find(|entry| entry["roleArn"] == role);
            let document = entry.and_then(|entry| entry["document"].as_str());
            Ok(document
                .with_context(|| format!("status: {}", policy["status"]))?
                .to_owned())
        })
    }

    /// Waits until a pod has ended. Returns whether well, and its first container's log.
    pub fn ended(&self, namespace: &str, pod: &str) -> Result<(bool, String)> {
        let phase = self.eventually(Duration::from_secs(420), &format!("pod {pod} has ended"), || {
            let phase = self.kubectl_in(namespace, &["get", "pod", pod, "--output=jsonpath={.status.phase}"])?;
            if phase != "Succeeded" && phase != "Failed" {
                let events = self.kubectl_in(namespace, &["get", "events", "--sort-by=.lastTimestamp"])?;
                bail!("it is {phase}; events:\n{events}");
            }
            Ok(phase)
        })?;
        Ok((phase == "Succeeded", self.kubectl_in(namespace, &["logs", pod])?))
    }

    /// The processes of a program in the cluster, pods' included, by their numbers outside of it. `program` is cut to 15
    /// characters by the kernel.
    pub fn processes(&self, program: &str) -> Result<Vec<u32>> {
        let cgroup = format!("/tokenscope-cluster-{}/", self.cluster.name());
        let name: String = program.chars().take(15).collect();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            // A zombie still has a name and cgroups, and no namespaces.
            let lives = || fs::read_link(entry.path().join("ns/net")).is_ok();
            if read("comm").trim() == name
                && read("cgroup").lines().any(|line| format!("{line}/").contains(&cgroup))
                && lives()
                && let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                found.push(number);
            }
        }
        Ok(found)
    }

    /// The memory of each process of a program.
    pub fn memory_of(&self, program: &str) -> Result<Vec<Memory>> {
        let memory = |process: u32| Memory::of(process).ok();
        Ok(self.processes(program)?.into_iter().filter_map(memory).collect())
    }

    /// Kills (SIGKILL) every process of a program, and returns how many there were once they are gone.
    pub fn kill(&self, program: &str) -> Result<usize> {
        let processes = self.processes(program)?;
        for process in &processes {
            // One that has ended by itself meanwhile is no failure.
            let process = process.to_string();
            Command::new("kill")
                .args(["-KILL", &process])
                .stderr(Stdio::null())
                .status()?;
        }
        self.eventually(NOTICED, &format!("{program} is gone"), || {
            let left = self.processes(program)?;
            ensure!(left.iter().all(|process| !processes.contains(process)), "{left:?}");
            Ok(())
        })?;
        Ok(processes.len())
    }

    /// The value of a limit of the cgroup of a container's process, for example `memory.max`; on cgroup v1, `controller` and
    /// the file `v1` say where.
    pub fn limit(&self, process: u32, v2: &str, (controller, v1): (&str, &str)) -> Result<String> {
        let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let path = |wanted: &str| {
            cgroups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                let path = fields.next()?.trim_start_matches('/');
                controllers
                    .split(',')
                    .any(|controller| controller == wanted)
                    .then_some(path)
            })
        };
        let file = match path(controller) {
            Some(path) => Path::new("/sys/fs/cgroup").join(controller).join(path).join(v1),
            None => Path::new("/sys/fs/cgroup")
                .join(path("").context("a process has a cgroup")?)
                .join(v2),
        };
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Ends it now, and says if that fails.
    pub fn end(mut self) -> Result<()> {
        self.close();
        self.cluster.down()?;
        Ok(())
    }

    fn close(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close();
    }
}
