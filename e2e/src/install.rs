//! tokenscope as its charts say, with its real programs running outside the cluster.
//!
//! Everything comes from what helm renders: custom resource definitions, RBAC, the guard, the webhook configuration, and
//! the programs' arguments and environment from the Deployments. Only what being outside a cluster needs is different: the
//! webhook is reached by an address instead of a Service, and the programs listen on ports of their own and authenticate
//! by a kubeconfig with the token of the chart's ServiceAccount.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

use crate::admission::try_pod;
use crate::control_plane::{ControlPlane, NODE};
use crate::forward::Forward;
use crate::helm::{NAMESPACE, chart, template_of};
use crate::issuer::authority;
use crate::process::{Process, Start, free_port};
use crate::{eventually, get_json};

/// How long the programs may take to become ready on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// What may be varied.
#[derive(Clone, Debug)]
pub struct Options {
    /// Values for charts/tokenscope; `null` for its defaults.
    pub values: Value,
    /// How many webhooks run. With more than one, the API server reaches them through a [`Forward`].
    pub webhooks: usize,
    /// How many operators run.
    pub operators: usize,
    /// How many issuers run; the values must have one then. The operator makes their certificate.
    pub issuers: usize,
    /// Arguments that replace or add to the chart's, such as `--drain=1`.
    pub webhook_arguments: Vec<String>,
    /// The same for the operator.
    pub operator_arguments: Vec<String>,
    /// The folder of the project's programs; where this program is if left out.
    pub programs: Option<PathBuf>,
    /// The folder of the charts; the project's own if left out.
    pub charts: Option<PathBuf>,
    /// What stands for the webhook's Service where the test decides who is behind it: the webhooks are added once they are
    /// ready.
    pub service: Option<Forward>,
    /// Whether this is an upgrade of (or the way back to) what is installed: the chart looks at the cluster.
    pub upgrade: bool,
    /// What the processes' names begin with: two installations in one cluster differ in it.
    pub prefix: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        let none = Vec::new;
        Self {
            values: Value::Null,
            webhooks: 1,
            operators: 1,
            issuers: 0,
            webhook_arguments: none(),
            operator_arguments: none(),
            programs: None,
            charts: None,
            service: None,
            upgrade: false,
            prefix: "",
        }
    }
}

/// An installed and running tokenscope. Dropping it ends its programs; what is in the cluster stays.
#[derive(Debug)]
pub struct Installed {
    webhooks: Vec<Process>,
    operators: Vec<Process>,
    issuers: Vec<(Process, u16)>,
    webhook_ports: Vec<u16>,
    port: u16,
    objects: Vec<Value>,
}

/// Installs into [`NAMESPACE`] and waits until a pod that asks is answered by the webhook.
pub async fn install(control_plane: &ControlPlane, options: Options) -> Result<Installed> {
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => own_programs()?,
    };
    let port = match &options.service {
        Some(service) => service.port(),
        None => free_port()?,
    };
    let client = control_plane.client().await?;
    if get_json(&client, &format!("/api/v1/namespaces/{NAMESPACE}"))
        .await
        .is_err()
    {
        control_plane.create_namespace(NAMESPACE, &[]).await?;
    }
    let objects = objects(control_plane, &options, port)?;
    control_plane.apply(&objects, NAMESPACE).await?;

    let operators = run(
        control_plane,
        &objects,
        &programs,
        "tokenscope-operator",
        port,
        &options,
    )
    .await?;
    let issuers = if options.issuers > 0 {
        std::fs::write(issuer_authority(control_plane), made_authority(&client).await?)?;
        run(control_plane, &objects, &programs, "tokenscope-issuer", port, &options).await?
    } else {
        Vec::new()
    };
    let webhooks = run(control_plane, &objects, &programs, "tokenscope-webhook", port, &options).await?;
    let webhook_ports: Vec<u16> = webhooks.iter().map(|(_, port)| *port).collect();
    let service = match options.service {
        None if webhooks.len() > 1 => Some(Forward::listen(port)?),
        given => given,
    };
    if let Some(service) = service {
        for (webhook, port) in &webhooks {
            webhook.wait_ready(READY_DEADLINE).await?;
            service.add(*port);
        }
    }
    let installed = Installed {
        webhooks: webhooks.into_iter().map(|(process, _)| process).collect(),
        operators: operators.into_iter().map(|(process, _)| process).collect(),
        issuers,
        webhook_ports,
        port,
        objects,
    };
    installed.wait_ready(control_plane).await?;
    Ok(installed)
}

/// Everything that helm installs, custom resource definitions first. The accounts come before the webhook configuration: the
/// programs' tokens are of theirs.
fn objects(control_plane: &ControlPlane, options: &Options, port: u16) -> Result<Vec<Value>> {
    let folder = |name: &str| match &options.charts {
        Some(charts) => charts.join(name),
        None => chart(name),
    };
    let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());
    let flags = ["--is-upgrade", "--dry-run=server", &kubeconfig];
    let flags = if options.upgrade { flags.as_slice() } else { &[] };
    let mut objects = template_of(&folder("tokenscope"), flags, &options.values)?;
    for object in &mut objects {
        reach_by_address(object, port);
    }
    objects.sort_by_key(|object| object["kind"] == "MutatingWebhookConfiguration");
    let mut all = template_of(&folder("tokenscope-crds"), &[], &Value::Null)?;
    all.append(&mut objects);
    Ok(all)
}

impl Installed {
    /// The n-th webhook, from 0.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn webhook(&self, number: usize) -> &Process {
        &self.webhooks[number]
    }

    /// The n-th operator, from 0.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn operator(&self, number: usize) -> &Process {
        &self.operators[number]
    }

    /// The n-th issuer, from 0, and the port on 127.0.0.1 where it listens.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn issuer(&self, number: usize) -> (&Process, u16) {
        let (process, port) = &self.issuers[number];
        (process, *port)
    }

    /// Every program of it.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let issuers = self.issuers.iter().map(|(process, _)| process);
        self.webhooks.iter().chain(&self.operators).chain(issuers)
    }

    /// The port on 127.0.0.1 where the API server reaches the webhooks, by TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1 where the n-th webhook itself listens.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn webhook_port(&self, number: usize) -> u16 {
        self.webhook_ports[number]
    }

    /// What the chart rendered, as it was applied: to apply it again after a test has damaged something.
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// Waits until all programs are ready and a pod that asks for a role is answered by the webhook.
    pub async fn wait_ready(&self, control_plane: &ControlPlane) -> Result<()> {
        for process in self.processes() {
            process.wait_ready(READY_DEADLINE).await?;
        }
        let client = control_plane.client().await?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "is-tokenscope-there", "namespace": "default",
                "annotations": {"tokenscope.io/role-arn": "arn:aws:iam::111122223333:role/nobody-allows-this"},
            },
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        eventually(
            READY_DEADLINE,
            "a pod that asks for a role is answered by the webhook",
            async || {
                let answer = try_pod(&client, &pod).await?;
                let metadata = &answer.body["metadata"];
                let reviewed = metadata["labels"]["tokenscope.io/reviewed"].is_string()
                    || metadata["annotations"]["tokenscope.io/reviewed"].is_string(); // by version 0.1.0
                // Without the webhook it is refused as well: because it can't be called, or by the guard.
                let refused = answer.message().contains("tokenscope.io\" denied the request");
                ensure!(reviewed || refused, "{} {}", answer.status, answer.body);
                Ok(())
            },
        )
        .await
    }
}

/// Where the authority of the issuers' certificate is, which the kubelet mounts into the webhook otherwise.
fn issuer_authority(control_plane: &ControlPlane) -> PathBuf {
    control_plane.folder().join("issuer-ca.crt")
}

/// That authority, PEM, once the operator has made it.
async fn made_authority(client: &Client) -> Result<String> {
    eventually(
        READY_DEADLINE,
        "the operator makes the issuer's certificate",
        async || authority(client).await,
    )
    .await
}

/// The folder of the programs that Cargo built beside this one.
pub(crate) fn own_programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?;
    // A test program is in target/debug/deps, a binary of this crate in target/debug.
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    }
    .to_owned())
}

/// Outside a cluster there is no Service; the certificate is checked in the same way, so it is for the address as well.
fn reach_by_address(object: &mut Value, port: u16) {
    if object["kind"] == "Certificate" && object["spec"]["dnsNames"].is_array() {
        object["spec"]["ipAddresses"] = json!(["127.0.0.1"]);
    }
    if object["kind"] != "MutatingWebhookConfiguration" {
        return;
    }
    for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
        let path = webhook["clientConfig"]["service"]["path"]
            .as_str()
            .unwrap_or("/")
            .to_owned();
        let mut reached = json!({"url": format!("https://127.0.0.1:{port}{path}")});
        if let Some(bundle) = webhook["clientConfig"].get("caBundle") {
            reached["caBundle"] = bundle.clone();
        }
        webhook["clientConfig"] = reached;
    }
}

/// Starts the program of a Deployment, as often as asked for; each with the port it serves on, `only_port` if it is alone.
async fn run(
    control_plane: &ControlPlane,
    objects: &[Value],
    programs: &Path,
    name: &str,
    only_port: u16,
    options: &Options,
) -> Result<Vec<(Process, u16)>> {
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name);
    let pod = &deployment.with_context(|| format!("the chart has no Deployment {name}"))?["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"]
        .as_str()
        .context("the Deployment names its ServiceAccount")?;
    let container = &pod["containers"][0];
    let program = programs.join(name);
    ensure!(
        program.exists(),
        "{} is missing: build the programs first (cargo build --workspace --bins), or run `cargo xtask test`",
        program.display()
    );
    if options.programs.is_none() {
        warn_if_old(&program)?;
    }
    let kubeconfig = control_plane.config_as(NAMESPACE, account).await?;
    let none = Vec::new();
    let (count, more) = match name {
        "tokenscope-webhook" => (options.webhooks, &options.webhook_arguments),
        "tokenscope-issuer" => (options.issuers, &none),
        _ => (options.operators, &options.operator_arguments),
    };
    let is_alone = name == "tokenscope-webhook" && count == 1 && options.service.is_none();
    let mut processes = Vec::new();
    for number in 0..count {
        let (port, observe) = (if is_alone { only_port } else { free_port()? }, free_port()?);
        let mut own = vec![
            format!("--observe=127.0.0.1:{observe}"),
            format!("--kubeconfig={}", kubeconfig.display()),
        ];
        match name {
            "tokenscope-operator" => {
                own.push("--extra-serving-name=127.0.0.1".to_owned());
                if knows(&program, "--webhook-address")? {
                    own.push(format!("--webhook-address=127.0.0.1:{only_port}"));
                }
            }
            _ => own.push(format!("--listen=127.0.0.1:{port}")),
        }
        if options.issuers > 0 && knows(&program, "--issuer-ca-file")? {
            own.push(format!(
                "--issuer-ca-file={}",
                issuer_authority(control_plane).display()
            ));
        }
        let instance = format!("{}{name}-{number}", options.prefix);
        let environment = environment(container, &instance)?;
        let start = Start {
            name: instance,
            program: program.clone(),
            arguments: arguments(container, &environment, own.iter().chain(more)),
            environment,
            logs: control_plane.folder().join("logs"),
            observe_port: Some(observe),
        };
        processes.push((Process::start(start, control_plane.watchdog())?, port));
    }
    Ok(processes)
}

/// Whether a program has a flag: that of an earlier release may not.
fn knows(program: &Path, flag: &str) -> Result<bool> {
    let output = Command::new(program).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(flag))
}

/// The container's environment, with what the downward API would say.
fn environment(container: &Value, instance: &str) -> Result<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    for entry in container["env"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().context("a variable has a name")?;
        let value = match (
            entry["value"].as_str(),
            entry["valueFrom"]["fieldRef"]["fieldPath"].as_str(),
        ) {
            (Some(value), _) => value,
            (None, Some("metadata.namespace")) => NAMESPACE,
            (None, Some("metadata.name")) => instance,
            (None, Some("spec.nodeName")) => NODE,
            (None, Some("status.podIP" | "status.hostIP")) => "127.0.0.1",
            _ => bail!("the harness can't give {name} its value: {entry}"),
        };
        environment.insert(name.to_owned(), value.to_owned());
    }
    Ok(environment)
}

/// The container's arguments, `$(VARIABLE)` expanded, with `own` in place of those of the same flag.
fn arguments<'a>(
    container: &Value,
    environment: &BTreeMap<String, String>,
    own: impl Iterator<Item = &'a String> + Clone,
) -> Vec<String> {
    let flag = |argument: &str| argument.split_once('=').map_or(argument, |(flag, _)| flag).to_owned();
    let mut arguments = Vec::new();
    for argument in container["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let expanded = environment.iter().fold(argument.to_owned(), |text, (name, value)| {
            text.replace(&format!("$({name})"), value)
        });
        if !own.clone().any(|own| flag(own) == flag(&expanded)) {
            arguments.push(expanded);
        }
    }
    arguments.extend(own.cloned());
    arguments
}

/// Cargo builds programs for `cargo test` only in their own package, so here they may be older than their source.
fn warn_if_old(program: &Path) -> Result<()> {
    let built = program.metadata()?.modified()?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let own = name.strip_prefix("tokenscope-").unwrap_or_default();
    for folder in ["core", "crds", "platform", "index", own] {
        if let Some(newer) = newer_source(&root().join(folder).join("src"), built)? {
            say(&format!(
                "warning: {} is older than {}; `cargo build --workspace --bins` builds it",
                program.display(),
                newer.display()
            ));
            return Ok(());
        }
    }
    Ok(())
}

fn newer_source(folder: &Path, built: SystemTime) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let newer = if entry.file_type()?.is_dir() {
            newer_source(&entry.path(), built)?
        } else {
            (entry.metadata()?.modified()? > built).then(|| entry.path())
        };
        if newer.is_some() {
            return Ok(newer);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_arguments_stand_in_place_of_the_charts() {
        let container = json!({
            "args": ["--listen=0.0.0.0:8443", "--drain=20", "--name=$(POD)"],
            "env": [
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "TOKENSCOPE_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            ],
        });
        let environment = environment(&container, "tokenscope-webhook-0").unwrap();
        assert_eq!(environment["TOKENSCOPE_NAMESPACE"], NAMESPACE);
        let own = ["--listen=127.0.0.1:1".to_owned(), "--extra=2".to_owned()];
        assert_eq!(
            arguments(&container, &environment, own.iter()),
            [
                "--drain=20",
                "--name=tokenscope-webhook-0",
                "--listen=127.0.0.1:1",
                "--extra=2"
            ]
        );
    }

    #[test]
    fn a_variable_that_the_harness_does_not_know_is_an_error() {
        let container = json!({"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]});
        assert!(environment(&container, "any").unwrap_err().to_string().contains("KEY"));
    }
}
