//! The webhook's flags. Each is also an environment variable: `--listen` is `TOKENSCOPE_LISTEN`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use tokenscope_core::sidecar::{Readiness, SidecarSettings, WorkloadApi};
use tokenscope_core::{Audience, Settings};
use tokenscope_index::eks_pod_identity::PodIdentityArgs;
use tokenscope_index::settings::{SettingsArgs, image};
use tokenscope_platform::args::{CommonArgs, seconds};

use crate::check::CheckArguments;
use crate::endpoint_args::EndpointArgs;

/// The most namespaces that have their own resources of the sidecar.
const MOST_NAMESPACES: usize = 256;

/// The sidecar's resources in pods of single namespaces, a JSON object each.
type NamespaceResources = BTreeMap<Box<str>, Box<str>>;

/// Gives pods AWS credentials as policies say: the mutating admission webhook of tokenscope
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct WebhookArguments {
    /// The command that runs in place of answering reviews.
    #[command(subcommand)]
    pub command: Option<WebhookCommand>,

    /// The flags of every process.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The settings for all pods.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// The ServiceAccounts whose pods get their credentials from the agent of EKS Pod Identity.
    #[command(flatten)]
    pub pod_identity: PodIdentityArgs,

    /// The flags of the sidecar that keeps tokens.
    #[command(flatten)]
    pub sidecar: SidecarArgs,

    /// The flags of the sidecar that serves credentials.
    #[command(flatten)]
    pub endpoint: EndpointArgs,

    /// tokenscope's own issuer, where the installation runs one.
    #[command(flatten)]
    pub issuer: IssuerArgs,

    /// The address at which reviews are answered, over TLS
    #[arg(long, env = "TOKENSCOPE_LISTEN", value_name = "ADDRESS", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// The Secret in --namespace that has the serving certificate and its key
    #[arg(
        long,
        env = "TOKENSCOPE_SERVING_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-webhook-tls"
    )]
    pub serving_secret: String,

    /// A PEM file with the authorities of client certificates: with it only clients with a certificate of theirs are answered
    #[arg(long, env = "TOKENSCOPE_CLIENT_CA_FILE", value_name = "PATH")]
    pub client_ca_file: Option<PathBuf>,

    /// A client certificate's common name or alternative name, can be given more than once [default: any of --client-ca-file]
    #[arg(
        long = "client-name",
        env = "TOKENSCOPE_CLIENT_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "client_ca_file"
    )]
    pub client_names: Vec<String>,

    /// Seconds that running reviews have to finish after SIGTERM; keep it under --stop-timeout
    #[arg(long, env = "TOKENSCOPE_DRAIN", value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub drain: Duration,
}

/// The commands that run in place of answering reviews.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum WebhookCommand {
    /// Ask an installed webhook to review a pod that wants nothing: exit status 0 if it lets the pod through, 1 if not, 2 for wrong usage
    Check(CheckArguments),
}

impl WebhookArguments {
    /// The installation's settings. `unsupported` says why this cluster can't run sidecars, if it can't.
    pub fn settings(&self, unsupported: Option<String>) -> Settings {
        let settings = self.settings.settings();
        Settings {
            sidecar: SidecarSettings {
                issuer_image: self.issuer.issuer_sidecar_image.as_str().into(),
                issuer_endpoint: self.issuer.issuer_endpoint.as_deref().map(Into::into),
                ..self
                    .endpoint
                    .sidecar(self.sidecar.sidecar(settings.sidecar, unsupported))
            },
            issuer: self.issuer.issuer_url.as_deref().map(Into::into),
            ..settings
        }
    }
}

/// tokenscope's own issuer, as pods see it.
#[derive(Clone, Debug, clap::Args)]
pub struct IssuerArgs {
    /// The issuer's URL, which is also the audience of the tokens that it takes [default: there is no issuer]
    #[arg(long, env = "TOKENSCOPE_ISSUER_URL", value_name = "URL", value_parser = issuer_url, requires = "issuer_ca_file")]
    pub issuer_url: Option<String>,

    /// The URL at which sidecars reach the issuer, if not its own
    #[arg(long, env = "TOKENSCOPE_ISSUER_ENDPOINT", value_name = "URL", value_parser = issuer_url, requires = "issuer_url")]
    pub issuer_endpoint: Option<String>,

    /// A PEM file with the authorities of the certificate that sidecars find there; it may come later, and is read again
    #[arg(long, env = "TOKENSCOPE_ISSUER_CA_FILE", value_name = "PATH")]
    pub issuer_ca_file: Option<PathBuf>,

    /// The image of the sidecar that keeps tokens of the issuer
    #[arg(long, env = "TOKENSCOPE_ISSUER_SIDECAR_IMAGE", value_name = "IMAGE", default_value_t = SidecarSettings::default().issuer_image.into(), value_parser = image)]
    pub issuer_sidecar_image: String,
}

/// The flags of the sidecar that keeps tokens from SPIFFE; its image is in [`SettingsArgs`].
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
    fn sidecar(&self, defaults: SidecarSettings, unsupported: Option<String>) -> SidecarSettings {
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

/// An https URL that can be an audience. The issuer itself checks it further.
fn issuer_url(text: &str) -> Result<String, &'static str> {
    let is_url = text.len() > "https://".len() && text.starts_with("https://") && !text.contains(['?', '#']);
    if !is_url || text.parse::<Audience>().is_err() {
        return Err("it should be an https URL without a query, such as https://tokens.example.com");
    }
    Ok(text.to_owned())
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let all = ["webhook"].iter().chain(flags);
        WebhookArguments::try_parse_from(all).unwrap().settings(None)
    }

    #[test]
    fn without_flags_the_settings_are_the_defaults() {
        assert_eq!(settings(&[]), Settings::default());
    }

    #[test]
    fn the_sidecar_is_as_the_flags_say() {
        let made = rcgen::generate_simple_self_signed(vec!["sts".to_owned()]).unwrap();
        let authorities = made.cert.pem().replace('\r', "");
        let sidecar = settings(&[
            "--sidecar-image=example.com/sidecar@sha256:0",
            "--sidecar-pull-policy=Never",
            "--sidecar-resources={ \"limits\": {\"memory\": \"1Gi\"} }",
            "--sidecar-namespace-resources={\"shop\": {\"limits\": {\"memory\": \"64Mi\"}}}",
            "--sidecar-pull-secret=one,two.of-them",
            "--sidecar-readiness-period=60",
            "--sidecar-readiness-failures=1000",
            "--sidecar-security-context={}",
            "--sidecar-log-level=debug",
            "--endpoint-sidecar-image=example.com/endpoint",
            "--endpoint-port=1024",
            "--sts-url=https://vpce-1.sts.eu-central-1.vpce.amazonaws.com",
            &format!("--sts-authorities={authorities}"),
            "--spiffe-host-path=/run/spire/agent-sockets",
            "--spiffe-socket-file=api.sock",
        ])
        .sidecar;
        let wanted = SidecarSettings {
            image: "example.com/sidecar@sha256:0".into(),
            endpoint_image: "example.com/endpoint".into(),
            endpoint_port: 1024,
            sts_url: Some("https://vpce-1.sts.eu-central-1.vpce.amazonaws.com".into()),
            sts_authorities: Some(authorities.into()),
            pull_policy: "Never".into(),
            workload_api: WorkloadApi::HostPath {
                path: "/run/spire/agent-sockets".into(),
            },
            socket_file: "api.sock".into(),
            resources: "{\"limits\":{\"memory\":\"1Gi\"}}".into(),
            namespace_resources: [("shop".into(), "{\"limits\":{\"memory\":\"64Mi\"}}".into())].into(),
            pull_secrets: vec!["one".into(), "two.of-them".into()],
            readiness: Some(Readiness {
                period_seconds: 60,
                failures: 1000,
            }),
            security_context: "{}".into(),
            log_level: "debug".into(),
            ..SidecarSettings::default()
        };
        assert_eq!(sidecar, wanted);
        assert_eq!(sidecar.resources_in("shop"), "{\"limits\":{\"memory\":\"64Mi\"}}");
        assert_eq!(sidecar.resources_in("shop2"), &*sidecar.resources);
        assert_eq!(settings(&["--sidecar-readiness-period=0"]).sidecar.readiness, None);
    }

    #[test]
    fn the_issuer_is_as_the_flags_say_and_needs_its_authorities() {
        let given = [
            "--issuer-url=https://tokens.example.com",
            "--issuer-endpoint=https://tokenscope-issuer.tokenscope-system.svc",
            "--issuer-sidecar-image=example.com/sidecar",
        ];
        let settings = settings(&[given.as_slice(), &["--issuer-ca-file=/ca.crt"]].concat());
        assert_eq!(settings.issuer.as_deref(), Some("https://tokens.example.com"));
        let endpoint = settings.sidecar.issuer_endpoint.as_deref();
        assert_eq!(endpoint, Some("https://tokenscope-issuer.tokenscope-system.svc"));
        assert_eq!(&*settings.sidecar.issuer_image, "example.com/sidecar");

        let without = ["webhook"].into_iter().chain(given);
        let error = WebhookArguments::try_parse_from(without).unwrap_err().to_string();
        assert!(error.contains("--issuer-ca-file"), "{error}");
    }

    #[test]
    fn a_bad_value_is_a_usage_error_that_names_the_flag() {
        for flag in [
            "--sidecar-resources=[]",
            "--sidecar-resources={},{}",
            "--sidecar-namespace-resources={\"shop\":[]}",
            "--sidecar-pull-secret=Not_A_Name",
            "--sidecar-readiness-period=-1",
            "--sidecar-readiness-failures=0",
            "--sidecar-security-context=none",
            "--sidecar-pull-policy=Sometimes",
            "--sidecar-log-level=trace",
            "--spiffe-host-path=run/spire",
            "--spiffe-host-path=/run/../etc",
            "--spiffe-socket-file=a/b.sock",
            "--spiffe-socket-file=..",
            "--issuer-url=http://tokens.example.com",
            "--issuer-url=https://",
            "--issuer-url=https://tokens.example.com?a",
            "--issuer-endpoint=tokens.example.com",
            "--issuer-sidecar-image=a b",
            "--endpoint-sidecar-image=a b",
            "--endpoint-port=80",
            "--endpoint-port=65536",
            "--sts-url=http://sts.example.com",
            "--sts-url=https://",
            "--sts-url=https://sts.example.com?a",
            "--sts-authorities=none",
        ] {
            let (name, value) = flag.split_once('=').unwrap();
            let parsed = WebhookArguments::try_parse_from(["webhook", flag]);
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
