//! The flags of the sidecar that keeps tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenscope_core::sidecar::{Readiness, SidecarSettings, WorkloadApi};

/// The most namespaces that have their own resources of the sidecar.
const MOST_NAMESPACES: usize = 256;

/// The sidecar's resources in pods of single namespaces, a JSON object each.
type NamespaceResources = BTreeMap<Box<str>, Box<str>>;

/// The flags of the sidecar that keeps tokens from SPIFFE; its image is in [`SettingsArgs`](tokenscope_index::settings::SettingsArgs).
#[derive(Clone, Debug, clap::Args)]
pub struct SidecarArgs {
    /// When the kubelet pulls the sidecar's image: Always, IfNotPresent or Never
    #[arg(long, env = "TOKENSCOPE_SIDECAR_PULL_POLICY", value_name = "POLICY", default_value = "IfNotPresent",
          value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,

    /// The sidecar's resources, a JSON object as in a container [default: a few millicores and MiB]
    #[arg(long, env = "TOKENSCOPE_SIDECAR_RESOURCES", value_name = "JSON", value_parser = json_object)]
    pub sidecar_resources: Option<String>,

    /// The same for pods of single namespaces, a JSON object from their names to resources, at most 256 [default: none]
    #[arg(long, env = "TOKENSCOPE_SIDECAR_NAMESPACE_RESOURCES", value_name = "JSON", value_parser = namespace_resources)]
    pub sidecar_namespace_resources: Option<NamespaceResources>,

    /// A Secret that the sidecar's image is pulled with, in the pod's namespace; may be given more than once
    #[arg(long, env = "TOKENSCOPE_SIDECAR_PULL_SECRET", value_name = "NAME", value_delimiter = ',', value_parser = secret_name)]
    pub sidecar_pull_secret: Vec<String>,

    /// Seconds between two runs of the sidecar's readiness probe, which fails once a token has expired; 0: no probe
    #[arg(long, env = "TOKENSCOPE_SIDECAR_READINESS_PERIOD", value_name = "SECONDS", default_value_t = Readiness::default().period_seconds,
          value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub sidecar_readiness_period: u32,

    /// Failures of that probe in a row after which the pod is not ready; each failure is an Event of the pod
    #[arg(long, env = "TOKENSCOPE_SIDECAR_READINESS_FAILURES", value_name = "TIMES", default_value_t = Readiness::default().failures,
          value_parser = clap::value_parser!(u32).range(1..=2_147_483_647))]
    pub sidecar_readiness_failures: u32,

    /// The sidecar's security context, a JSON object as in a container [default: what Pod Security "restricted" demands]
    #[arg(long, env = "TOKENSCOPE_SIDECAR_SECURITY_CONTEXT", value_name = "JSON", value_parser = json_object)]
    pub sidecar_security_context: Option<String>,

    /// The level of the sidecar's logs
    #[arg(long, env = "TOKENSCOPE_SIDECAR_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          value_parser = ["off", "error", "warn", "info", "debug"])]
    pub sidecar_log_level: String,

    /// The CSI driver whose volumes have the socket of the SPIFFE Workload API
    #[arg(
        long,
        env = "TOKENSCOPE_SPIFFE_CSI_DRIVER",
        value_name = "NAME",
        default_value = "csi.spiffe.io"
    )]
    pub spiffe_csi_driver: String,

    /// The folder on the nodes that has that socket, in place of the CSI driver's volume
    #[arg(long, env = "TOKENSCOPE_SPIFFE_HOST_PATH", value_name = "FOLDER", value_parser = absolute)]
    pub spiffe_host_path: Option<String>,

    /// The socket's file in that volume or folder
    #[arg(long, env = "TOKENSCOPE_SPIFFE_SOCKET_FILE", value_name = "FILE", default_value = "spire-agent.sock", value_parser = file_name)]
    pub spiffe_socket_file: String,
}

impl SidecarArgs {
    pub(crate) fn sidecar(&self, defaults: SidecarSettings, unsupported: Option<String>) -> SidecarSettings {
        let given = |text: &Option<String>, default| text.as_deref().map_or(default, Into::into);
        SidecarSettings {
            pull_policy: self.sidecar_pull_policy.as_str().into(),
            workload_api: match &self.spiffe_host_path {
                Some(path) => WorkloadApi::HostPath {
                    path: path.as_str().into(),
                },
                None => WorkloadApi::Csi {
                    driver: self.spiffe_csi_driver.as_str().into(),
                },
            },
            socket_file: self.spiffe_socket_file.as_str().into(),
            resources: given(&self.sidecar_resources, defaults.resources),
            namespace_resources: self.sidecar_namespace_resources.clone().unwrap_or_default(),
            pull_secrets: self
                .sidecar_pull_secret
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            readiness: (self.sidecar_readiness_period > 0).then_some(Readiness {
                period_seconds: self.sidecar_readiness_period,
                failures: self.sidecar_readiness_failures,
            }),
            security_context: given(&self.sidecar_security_context, defaults.security_context),
            log_level: self.sidecar_log_level.as_str().into(),
            unsupported: unsupported.map(Into::into),
            ..defaults
        }
    }
}

/// A JSON object, checked here because patches contain it unchanged.
fn json_object(text: &str) -> Result<String, String> {
    serde_json::from_str::<Map<String, Value>>(text)
        .map(|object| Value::Object(object).to_string())
        .map_err(|error| format!("it should be a JSON object, such as {{\"limits\":{{\"memory\":\"32Mi\"}}}}: {error}"))
}

/// Resources that go into patches as they are, by the names of namespaces.
fn namespace_resources(text: &str) -> Result<NamespaceResources, String> {
    let given = serde_json::from_str::<BTreeMap<Box<str>, Map<String, Value>>>(text).map_err(|error| {
        format!("it should be a JSON object from namespaces to resources, such as {{\"shop\":{{\"limits\":{{\"memory\":\"32Mi\"}}}}}}: {error}")
    })?;
    if given.len() > MOST_NAMESPACES {
        return Err(format!(
            "it has {} namespaces, and at most {MOST_NAMESPACES} can have resources of their own",
            given.len()
        ));
    }
    let text = |resources| Value::Object(resources).to_string().into();
    Ok(given
        .into_iter()
        .map(|(namespace, resources)| (namespace, text(resources)))
        .collect())
}

fn secret_name(text: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    if text.is_empty() || text.len() > 253 || !text.bytes().all(allowed) {
        return Err("it should be the name of a Secret, such as registry-credentials");
    }
    Ok(text.to_owned())
}

fn absolute(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err("it should be the absolute path of a folder, such as /run/spire/agent-sockets");
    }
    Ok(text.to_owned())
}

fn file_name(text: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || text == "." || text == ".." || !text.bytes().all(allowed) {
        return Err("it should be the name of a file, such as spire-agent.sock");
    }
    Ok(text.to_owned())
}
