//! The operator's flags. Each is also an environment variable: `--ca-secret` is `TOKENSCOPE_CA_SECRET`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction::Set;
use tokenscope_core::sidecar::SidecarSettings;
use tokenscope_core::{ClusterName, Settings};
use tokenscope_index::eks_pod_identity::PodIdentityArgs;
use tokenscope_index::settings::SettingsArgs;
use tokenscope_platform::args::{CommonArgs, seconds};

use crate::certificates::{Names, RotationSettings, Trusting};
use crate::probe::ClientCertificate;

/// Keeps the state of policies, the certificates of the webhook and its configuration true.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct OperatorArguments {
    /// The flags of every process
    #[command(flatten)]
    pub common: CommonArgs,

    /// The settings for all pods; the same as the webhook's
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// The ServiceAccounts whose pods get their credentials from the agent of EKS Pod Identity.
    #[command(flatten)]
    pub pod_identity: PodIdentityArgs,

    /// The MutatingWebhookConfiguration whose caBundle is kept
    #[arg(
        long,
        env = "TOKENSCOPE_WEBHOOK_CONFIGURATION",
        value_name = "NAME",
        default_value = "tokenscope"
    )]
    pub webhook_configuration: String,

    /// Who makes the serving certificate and writes the caBundle of the webhook configuration
    #[arg(
        long,
        env = "TOKENSCOPE_CERTIFICATES_PROVIDER",
        value_name = "PROVIDER",
        default_value = "operator"
    )]
    pub certificates_provider: CertificatesProvider,

    /// The Service that the serving certificate is for
    #[arg(
        long,
        env = "TOKENSCOPE_WEBHOOK_SERVICE",
        value_name = "NAME",
        default_value = "tokenscope-webhook"
    )]
    pub webhook_service: String,

    /// The Secret of the certificate authority
    #[arg(
        long,
        env = "TOKENSCOPE_CA_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-ca"
    )]
    pub ca_secret: String,

    /// The Secret of the serving certificate
    #[arg(
        long,
        env = "TOKENSCOPE_SERVING_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-webhook-tls"
    )]
    pub serving_secret: String,

    /// The Service of the issuer, where there is one: it gets a certificate authority and a serving certificate of its own
    #[arg(long, env = "TOKENSCOPE_ISSUER_SERVICE", value_name = "NAME")]
    pub issuer_service: Option<String>,

    /// The Secret of the issuer's certificate authority
    #[arg(
        long,
        env = "TOKENSCOPE_ISSUER_CA_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-issuer-ca"
    )]
    pub issuer_ca_secret: String,

    /// The Secret of the issuer's serving certificate
    #[arg(
        long,
        env = "TOKENSCOPE_ISSUER_SERVING_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-issuer-tls"
    )]
    pub issuer_serving_secret: String,

    /// File with the CA certificates of the issuer that the webhook tells pods of (its --issuer-ca-file), where cert-manager makes them
    #[arg(long, env = "TOKENSCOPE_ISSUER_CA_FILE", value_name = "PATH")]
    pub issuer_ca_file: Option<PathBuf>,

    /// The Lease that only one operator holds at a time
    #[arg(
        long,
        env = "TOKENSCOPE_LEASE",
        value_name = "NAME",
        default_value = "tokenscope-operator"
    )]
    pub lease: String,

    /// Seconds after the last sign of life of the operator that leads, until another one takes over
    #[arg(long, env = "TOKENSCOPE_LEASE_DURATION", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub lease_duration: Duration,

    /// The issuer of the cluster's ServiceAccount tokens [default: what the API server says]
    #[arg(long, env = "TOKENSCOPE_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,

    /// The issuer of the tokens that the SPIFFE provider signs [default: policies with source SPIFFE get no trust policies]
    #[arg(long, env = "TOKENSCOPE_SPIFFE_ISSUER", value_name = "URL")]
    pub spiffe_issuer: Option<String>,

    /// The URL of tokenscope's own issuer, where the installation runs one [default: policies with source Issuer are not accepted]
    #[arg(long, env = "TOKENSCOPE_ISSUER_URL", value_name = "URL", value_parser = issuer_url)]
    pub issuer_url: Option<String>,

    /// The image of the sidecar that exchanges tokens at that issuer, as the webhook has it
    #[arg(long, env = "TOKENSCOPE_ISSUER_SIDECAR_IMAGE", value_name = "IMAGE", default_value_t = SidecarSettings::default().issuer_image.into())]
    pub issuer_sidecar_image: String,

    /// The name of this cluster before the subjects of that issuer's tokens: the issuer's --cluster-name
    #[arg(long, env = "TOKENSCOPE_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<ClusterName>,

    /// Report pods that match no ClusterSPIFFEID, where spire-controller-manager's definitions are in the cluster
    #[arg(long, env = "TOKENSCOPE_WATCH_CLUSTER_SPIFFE_IDS", value_name = "BOOL", default_value_t = true, action = Set)]
    pub watch_cluster_spiffe_ids: bool,

    /// Only ClusterSPIFFEIDs of this class count [default: all]
    #[arg(long, env = "TOKENSCOPE_SPIFFE_CLASS_NAME", value_name = "NAME")]
    pub spiffe_class_name: Option<String>,

    /// Seconds that a certificate authority is valid; it is replaced after two thirds
    #[arg(long, env = "TOKENSCOPE_CA_LIFETIME", value_name = "SECONDS", default_value = "31536000", value_parser = seconds)]
    pub ca_lifetime: Duration,

    /// Seconds that the issuer's certificate authority is valid; it is replaced after two thirds. No pod may run longer than the last third
    #[arg(long, env = "TOKENSCOPE_ISSUER_CA_LIFETIME", value_name = "SECONDS", default_value = "315360000", value_parser = seconds)]
    pub issuer_ca_lifetime: Duration,

    /// Seconds that a serving certificate is valid; it is replaced after two thirds
    #[arg(long, env = "TOKENSCOPE_SERVING_LIFETIME", value_name = "SECONDS", default_value = "2592000", value_parser = seconds)]
    pub serving_lifetime: Duration,

    /// Seconds that API servers, and then webhooks, get to notice a new certificate authority before the old one goes
    #[arg(long, env = "TOKENSCOPE_ROTATION_OVERLAP", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub rotation_overlap: Duration,

    /// A DNS name or IP address beside the Service's that the webhook's certificate is for, and nobody else's; may be given more than once
    #[arg(
        long,
        env = "TOKENSCOPE_EXTRA_SERVING_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub extra_serving_name: Vec<String>,

    /// A DNS name or IP address beside the Service's that the issuer's certificate is for, and nobody else's; may be given more than once
    #[arg(
        long,
        env = "TOKENSCOPE_ISSUER_EXTRA_SERVING_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub issuer_extra_serving_name: Vec<String>,

    /// Seconds after which everything is looked at again without a change
    #[arg(long, env = "TOKENSCOPE_RESYNC", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub resync: Duration,

    /// Seconds between a pod's review and its creation at most. What is not older than a pod by as much does not prove that the pod was meant
    /// to be injected: it may be missed, and is not evicted. The default is the time in which the API server waits for a webhook that names no
    /// timeoutSeconds. Where several slow webhooks are asked after this one, take the sum of theirs; 60, the API server's --request-timeout,
    /// bounds all of them
    #[arg(long, env = "TOKENSCOPE_REVIEW_MARGIN", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub review_margin: Duration,

    /// Evict running pods that should have been injected and were not
    #[arg(long, env = "TOKENSCOPE_EVICT_MISSED", value_name = "BOOL", default_value_t = false, action = Set)]
    pub evict_missed: bool,

    /// Evict running pods whose policy says onExpiry: Evict and has expired, is disabled or outside its schedule
    #[arg(long, env = "TOKENSCOPE_EVICT_EXPIRED", value_name = "BOOL", default_value_t = false, action = Set)]
    pub evict_expired: bool,

    /// The HOST:PORT at which the webhook must show that it works before a pod is evicted [default: its Service]
    #[arg(long, env = "TOKENSCOPE_WEBHOOK_ADDRESS", value_name = "ADDRESS")]
    pub webhook_address: Option<String>,

    /// A PEM file with the certificate to show the webhook, where it asks its clients for one
    #[arg(
        long,
        env = "TOKENSCOPE_WEBHOOK_CLIENT_CERTIFICATE",
        value_name = "FILE",
        requires = "webhook_client_key"
    )]
    pub webhook_client_certificate: Option<PathBuf>,

    /// A PEM file with that certificate's key
    #[arg(
        long,
        env = "TOKENSCOPE_WEBHOOK_CLIENT_KEY",
        value_name = "FILE",
        requires = "webhook_client_certificate"
    )]
    pub webhook_client_key: Option<PathBuf>,
}

/// The maker of the webhook's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CertificatesProvider {
    /// The operator.
    Operator,
    /// cert-manager, with its CA injector: the operator has no right to Secrets and changes no configuration.
    CertManager,
}

/// A URL that a trust policy and the tokens can name. The issuer itself checks that AWS takes it.
fn issuer_url(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/".contains(&b);
    if rest.is_empty() || text.len() > 255 || !rest.bytes().all(allowed) || rest.ends_with('/') {
        return Err(
            "it should be an https URL of at most 255 characters, without query and without a slash at its end",
        );
    }
    Ok(text.to_owned())
}

impl OperatorArguments {
    /// The installation's settings for all pods.
    pub(crate) fn settings(&self) -> Settings {
        let settings = self.settings.settings();
        Settings {
            issuer: self.issuer_url.as_deref().map(Into::into),
            sidecar: SidecarSettings {
                issuer_image: self.issuer_sidecar_image.as_str().into(),
                ..settings.sidecar
            },
            ..settings
        }
    }

    /// The address at which the webhook is asked if it works, as the API server finds it.
    pub(crate) fn webhook_address(&self) -> String {
        let (service, namespace) = (&self.webhook_service, &self.common.namespace);
        let service = || format!("{service}.{namespace}.svc:443");
        self.webhook_address.clone().unwrap_or_else(service)
    }

    /// The certificate that the operator shows the webhook.
    pub(crate) fn webhook_client_certificate(&self) -> Option<ClientCertificate> {
        Some(ClientCertificate {
            certificate: self.webhook_client_certificate.clone()?,
            key: self.webhook_client_key.clone()?,
        })
    }

    /// The lifetimes of the webhook's certificates.
    pub(crate) fn certificate_settings(&self) -> RotationSettings {
        RotationSettings::new(self.ca_lifetime, self.serving_lifetime, self.rotation_overlap)
    }

    /// The lifetimes of the issuer's certificates.
    pub(crate) fn issuer_certificate_settings(&self) -> RotationSettings {
        RotationSettings::new(self.issuer_ca_lifetime, self.serving_lifetime, self.rotation_overlap)
    }

    /// The names of the webhook's Secrets, and the hosts of its certificate.
    pub(crate) fn certificate_names(&self) -> Names {
        Names {
            trusting: Trusting::ApiServers,
            authority_secret: self.ca_secret.clone(),
            serving_secret: self.serving_secret.clone(),
            hosts: self.hosts(&self.webhook_service, &self.extra_serving_name),
        }
    }

    /// The same of the issuer, where there is one.
    pub(crate) fn issuer_certificate_names(&self) -> Option<Names> {
        Some(Names {
            trusting: Trusting::Pods,
            authority_secret: self.issuer_ca_secret.clone(),
            serving_secret: self.issuer_serving_secret.clone(),
            hosts: self.hosts(self.issuer_service.as_ref()?, &self.issuer_extra_serving_name),
        })
    }

    /// The names of a Service's certificate: its own, and further ones.
    fn hosts(&self, service: &str, further: &[String]) -> Vec<String> {
        let namespace = &self.common.namespace;
        let mut names = BTreeSet::from([
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]);
        for name in further {
            // As they are read back from a certificate.
            names.insert(match name.parse::<IpAddr>() {
                Ok(address) => address.to_string(),
                Err(_) => name.to_ascii_lowercase(),
            });
        }
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokenscope_core::TokenSource;

    use super::*;

    fn parse(flags: &[&str]) -> Result<OperatorArguments, clap::Error> {
        let required = [
            "tokenscope-operator",
            "--namespace=tokenscope-system",
            "--pod-name=operator-1",
        ];
        OperatorArguments::try_parse_from(required.iter().chain(flags))
    }

    #[test]
    fn with_the_issuers_url_policies_may_have_source_issuer() {
        let has_it = |arguments: &OperatorArguments| arguments.settings().has_source(TokenSource::Issuer);
        assert!(!has_it(&parse(&[]).unwrap()));
        let arguments = parse(&["--issuer-url=https://tokens.example.com/eu", "--cluster-name=eu-1"]).unwrap();
        assert!(has_it(&arguments));
        assert_eq!(
            arguments.settings().issuer.as_deref(),
            Some("https://tokens.example.com/eu")
        );
        assert_eq!(arguments.cluster_name.unwrap().as_str(), "eu-1");
    }

    #[test]
    fn an_extra_name_is_for_the_one_certificate_that_it_is_given_for() {
        let arguments = parse(&[
            "--issuer-service=tokenscope-issuer",
            "--extra-serving-name=Webhook.example.com",
            "--issuer-extra-serving-name=tokens.example.com,10.0.0.7",
        ])
        .unwrap();
        let (webhook, issuer) = (
            arguments.certificate_names(),
            arguments.issuer_certificate_names().unwrap(),
        );
        let names = |service: &str| {
            let service = format!("{service}.tokenscope-system.svc");
            [service.clone(), format!("{service}.cluster.local")]
        };
        let sorted = |mut hosts: Vec<String>, more: &[&str]| {
            hosts.extend(more.iter().map(|name| (*name).to_owned()));
            hosts.sort();
            hosts
        };
        let of_webhook = sorted(names("tokenscope-webhook").into(), &["webhook.example.com"]);
        let of_issuer = sorted(names("tokenscope-issuer").into(), &["10.0.0.7", "tokens.example.com"]);
        assert_eq!((webhook.hosts, issuer.hosts), (of_webhook, of_issuer));
    }

    #[test]
    fn what_is_no_https_url_is_a_usage_error_that_names_the_flag() {
        for url in [
            "",
            "https://",
            "http://a.test",
            "https://a.test/",
            "https://a.test?x",
            "https://*.test",
        ] {
            let error = parse(&[&format!("--issuer-url={url}")]).unwrap_err().to_string();
            assert!(error.contains("--issuer-url"), "{error}");
        }
    }
}
