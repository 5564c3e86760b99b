//! A container as a kubelet would set it up: its environment, and the tokens of its projected volumes in files.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::control_plane::ControlPlane;
use crate::get_json;

/// The surroundings that a process in a container would find. Its files are below [`root`](Self::root) instead of `/`.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The variables, as the container sees them.
    pub environment: BTreeMap<String, String>,
    /// The folder with the files that the container sees below `/`.
    pub root: PathBuf,
    mounts: Vec<String>,
}

impl ControlPlane {
    /// Sets up a container of a pod, an init container included: every token that a volume projects for another audience
    /// than the API server's is requested as the kubelet does, and written where the container mounts it.
    pub async fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<ContainerView> {
        let client = self.client().await?;
        let object = get_json(&client, &format!("/api/v1/namespaces/{namespace}/pods/{pod}")).await?;
        let all =
            ["initContainers", "containers"].map(|list| object["spec"][list].as_array().cloned().unwrap_or_default());
        let found = all
            .concat()
            .into_iter()
            .find(|candidate| candidate["name"] == container);
        let found = found.with_context(|| format!("pod {pod} has no container {container}"))?;
        let root = self
            .folder()
            .join("containers")
            .join(format!("{namespace}.{pod}.{container}"));

        let mut mounts = Vec::new();
        for mount in found["volumeMounts"].as_array().into_iter().flatten() {
            let volumes = object["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"]);
            let volume = volume.with_context(|| format!("no volume for the mount {mount}"))?;
            let path = mount["mountPath"].as_str().context("a mount has a path")?.to_owned();
            for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
                let token = &source["serviceAccountToken"];
                let Some(audience) = token["audience"].as_str() else {
                    continue;
                };
                let lifetime = token["expirationSeconds"].as_i64().unwrap_or(3600);
                let text = self.pod_token(namespace, pod, audience, lifetime).await?;
                let file = token["path"].as_str().context("a projected token has a path")?;
                let folder = root.join(path.trim_start_matches('/'));
                fs::create_dir_all(&folder)?;
                fs::write(folder.join(file), text)?;
            }
            mounts.push(path);
        }
        let environment = environment(&found, &object)?;
        Ok(ContainerView {
            environment,
            root,
            mounts,
        })
    }
}

impl ContainerView {
    /// The path of a file that the container sees at `path`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A command with the container's environment and nothing else; a value that is a path in one of its volumes points
    /// to where the file really is.
    pub fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for (name, value) in &self.environment {
            if self.mounts.iter().any(|mount| value.starts_with(mount)) {
                command.env(name, self.file(value));
            } else {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a Python script with boto3, the unmodified AWS SDK, as if in the container. `more` is added to the environment,
    /// such as AWS_ENDPOINT_URL_STS. Returns what it printed; fails with its standard error.
    pub fn python(&self, script: &str, more: &[(&str, &str)]) -> Result<String> {
        let output = self
            .command(resolve(Tool::Boto3)?)
            .env("HOME", &self.root) // no ~/.aws of whoever runs the tests
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(more.iter().copied())
            .args(["-c", script])
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn environment(container: &Value, pod: &Value) -> Result<BTreeMap<String, String>> {
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for entry in container["env"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().context("a variable has a name")?;
        let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some(path) => field(pod, path)?,
            // References are to variables that stand before it.
            None => environment.iter().fold(
                entry["value"].as_str().unwrap_or_default().to_owned(),
                |text, (name, value)| text.replace(&format!("$({name})"), value),
            ),
        };
        environment.insert(name.to_owned(), value);
    }
    Ok(environment)
}

/// A field of the downward API: `metadata.name`, `metadata.labels['a']`, and the like.
fn field(pod: &Value, path: &str) -> Result<String> {
    let value = match path.split_once("['") {
        Some((map, key)) => pod
            .pointer(&pointer(map))
            .and_then(|map| map.get(key.trim_end_matches("']"))),
        None => pod.pointer(&pointer(path)),
    };
    Ok(value
        .and_then(Value::as_str)
        .with_context(|| format!("the pod has no {path}"))?
        .to_owned())
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}
