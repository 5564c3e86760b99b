//! The webhook's flags. Each is also an environment variable: `--listen` is `TOKENSCOPE_LISTEN`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokenscope_core::sidecar::SidecarSettings;
use tokenscope_core::{Audience, Settings};
use tokenscope_index::eks_pod_identity::PodIdentityArgs;
use tokenscope_index::settings::{SettingsArgs, image};
use tokenscope_platform::args::{CommonArgs, seconds};

use crate::check::CheckArguments;
use crate::endpoint_args::EndpointArgs;
pub use crate::sidecar_args::SidecarArgs;

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

/// An https URL that can be an audience. The issuer itself checks it further.
fn issuer_url(text: &str) -> Result<String, &'static str> {
    let is_url = text.len() > "https://".len() && text.starts_with("https://") && !text.contains(['?', '#']);
    if !is_url || text.parse::<Audience>().is_err() {
        return Err("it should be an https URL without a query, such as https://tokens.example.com");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokenscope_core::sidecar::{Readiness, WorkloadApi};

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
