//! The programs of an installation: found, started with the chart's arguments and environment, and warned of if old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokenscope_fixtures::free_port;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

use super::{Options, issuer_authority};
use crate::control_plane::{ControlPlane, NODE};
use crate::helm::NAMESPACE;
use crate::process::{ServerProcess, Start};

/// The operator's flag of the longest time from a pod's review to its creation.
const REVIEW_MARGIN: &str = "--review-margin";

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

/// The programs of an installation, and what they authenticate by.
pub(super) struct Programs<'a> {
    pub(super) control_plane: &'a ControlPlane,
    pub(super) objects: &'a [Value],
    /// Where they are.
    pub(super) folder: &'a Path,
    /// Where the webhook listens if it is the only one.
    pub(super) only_port: u16,
    pub(super) options: &'a Options,
    /// By ServiceAccount.
    kubeconfigs: BTreeMap<String, PathBuf>,
}

impl<'a> Programs<'a> {
    /// Applies the ServiceAccounts among these objects and asks for their tokens: before there are policies, which may refuse such requests
    /// to anybody but kubelets.
    pub(super) async fn new(
        control_plane: &'a ControlPlane,
        objects: &'a [Value],
        folder: &'a Path,
        only_port: u16,
        options: &'a Options,
    ) -> Result<Self> {
        let accounts = objects.iter().filter(|object| object["kind"] == "ServiceAccount");
        let accounts: Vec<Value> = accounts.cloned().collect();
        control_plane.apply(&accounts, NAMESPACE).await?;
        let mut kubeconfigs = BTreeMap::new();
        for account in &accounts {
            let name = account["metadata"]["name"].as_str().context("an account has a name")?;
            kubeconfigs.insert(name.to_owned(), control_plane.config_as(NAMESPACE, name).await?);
        }
        Ok(Self {
            control_plane,
            objects,
            folder,
            only_port,
            options,
            kubeconfigs,
        })
    }

    /// Starts the program of a Deployment, as often as asked for; each with the port it serves on.
    pub(super) fn start(&self, name: &str) -> Result<Vec<(ServerProcess, u16)>> {
        let Self {
            control_plane,
            objects,
            only_port,
            options,
            ..
        } = *self;
        let pod = pod_of(objects, name)?;
        let account = pod["serviceAccountName"]
            .as_str()
            .context("the Deployment names its ServiceAccount")?;
        let container = &pod["containers"][0];
        let program = program_at(self.folder, name, options)?;
        let kubeconfig = self
            .kubeconfigs
            .get(account)
            .context("the chart has the ServiceAccount")?;
        let (count, more) = match name {
            "tokenscope-webhook" => (options.webhooks, options.webhook_arguments.as_slice()),
            "tokenscope-issuer" => (options.issuers, [].as_slice()),
            _ => (options.operators, options.operator_arguments.as_slice()),
        };
        let is_alone = name == "tokenscope-webhook" && count == 1 && options.service.is_none();
        let mut processes = Vec::new();
        for number in 0..count {
            let (port, observe) = (if is_alone { only_port } else { free_port()? }, free_port()?);
            let mut own = vec![
                format!("--observe=127.0.0.1:{observe}"),
                format!("--kubeconfig={}", kubeconfig.display()),
            ];
            own.extend(addresses(&program, name, port, only_port)?);
            if options.has_issuer() && knows(&program, "--issuer-ca-file")? {
                own.push(format!(
                    "--issuer-ca-file={}",
                    issuer_authority(control_plane).display()
                ));
            }
            own.extend(pod_identity_file(control_plane, objects, container)?);
            // No other webhook holds pods up here, and tests create pods as soon as what grants them a role is there.
            if name == "tokenscope-operator" && knows(&program, REVIEW_MARGIN)? {
                own.push(format!("{REVIEW_MARGIN}=0"));
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
            processes.push((ServerProcess::start(start, control_plane.watchdog())?, port));
        }
        Ok(processes)
    }
}

/// The flag of the file that the kubelet would mount of the ConfigMap for EKS Pod Identity, if the program has one.
fn pod_identity_file(control_plane: &ControlPlane, objects: &[Value], container: &Value) -> Result<Option<String>> {
    const FLAG: &str = "--eks-pod-identity-config=";
    let mut arguments = container["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    if !arguments.any(|argument| argument.starts_with(FLAG)) {
        return Ok(None);
    }
    let mut maps = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    let map = maps.find(|map| map["metadata"]["name"] == "tokenscope-eks-pod-identity");
    let text = map.and_then(|map| map["data"]["config.json"].as_str());
    let file = control_plane.folder().join("eks-pod-identity.json");
    std::fs::write(&file, text.context("the chart has no ConfigMap for EKS Pod Identity")?)?;
    Ok(Some(format!("{FLAG}{}", file.display())))
}

/// The pod of a Deployment.
fn pod_of<'a>(objects: &'a [Value], name: &str) -> Result<&'a Value> {
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name);
    Ok(&deployment.with_context(|| format!("the chart has no Deployment {name}"))?["spec"]["template"]["spec"])
}

fn program_at(folder: &Path, name: &str, options: &Options) -> Result<PathBuf> {
    let program = folder.join(name);
    ensure!(
        program.exists(),
        "{} is missing: build the programs first (cargo build --workspace --bins), or run `cargo xtask test`",
        program.display()
    );
    if options.programs.is_none() {
        warn_if_old(&program)?;
    }
    Ok(program)
}

/// Where a program serves, or where the operator finds the webhook at `webhook_port`.
fn addresses(program: &Path, name: &str, port: u16, webhook_port: u16) -> Result<Vec<String>> {
    if name != "tokenscope-operator" {
        return Ok(vec![format!("--listen=127.0.0.1:{port}")]);
    }
    let mut flags = vec!["--extra-serving-name=127.0.0.1".to_owned()];
    if knows(program, "--issuer-extra-serving-name")? {
        flags.push("--issuer-extra-serving-name=127.0.0.1".to_owned());
    }
    if knows(program, "--webhook-address")? {
        flags.push(format!("--webhook-address=127.0.0.1:{webhook_port}"));
    }
    Ok(flags)
}

/// True if a program has a flag: that of an earlier release may not.
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
    use serde_json::json;

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
