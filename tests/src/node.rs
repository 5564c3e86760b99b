//! A cluster with a node, where pods run: started for a test program or the demo, and ended with it.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::cluster::Cluster;

use crate::helm::{NAMESPACE, chart};
use crate::process::Memory;

/// How long a command may take, in seconds: pods of new images start within some, on a busy machine.
const COMMAND_DEADLINE: &str = "300";

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

    /// The same for a program that may fail.
    pub fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Result<Output> {
        let mut child = self
            .cluster
            .command("timeout")?
            .args([COMMAND_DEADLINE, program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A program that ends before it has read all says why on its standard error.
        let _ = child
            .stdin
            .take()
            .context("standard input is piped")?
            .write_all(input.as_bytes());
        Ok(child.wait_with_output()?)
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
                    release,
                    &folder,
                    "--namespace",
                    NAMESPACE,
                    "--create-namespace",
                    "--wait",
                    "--timeout=120s",
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
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// The trust policy for a role, as it stands in a policy's status.
    pub fn trust_policy(&self, namespace: &str, policy: &str, role: &str) -> Result<String> {
        self.eventually(Duration::from_secs(30), "the status has the trust policy", || {
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
        let phase = self.eventually(Duration::from_secs(90), &format!("pod {pod} has ended"), || {
            let phase = self.kubectl_in(namespace, &["get", "pod", pod, "--output=jsonpath={.status.phase}"])?;
            if phase != "Succeeded" && phase != "Failed" {
                let events = self.kubectl_in(namespace, &["get", "events", "--sort-by=.lastTimestamp"])?;
                bail!("it is {phase}; events:\n{events}");
            }
            Ok(phase)
        })?;
        Ok((phase == "Succeeded", self.kubectl_in(namespace, &["logs", pod])?))
    }

    /// What each process of a program takes of memory. `program` is cut to 15 characters by the kernel.
    pub fn memory_of(&self, program: &str) -> Result<Vec<Memory>> {
        let cgroup = format!("/tokenscope-cluster-{}/", self.cluster.name());
        let name: String = program.chars().take(15).collect();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            if read("comm").trim() == name && read("cgroup").contains(&cgroup) {
                let status = read("status");
                let bytes = |field: &str| -> Option<u64> {
                    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
                };
                if let (Some(resident), Some(peak)) = (bytes("VmRSS:"), bytes("VmHWM:")) {
                    found.push(Memory { resident, peak });
                }
            }
        }
        Ok(found)
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
