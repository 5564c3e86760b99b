//! The operator's flags. Each is also an environment variable: `--ca-secret` is `TOKENSCOPE_CA_SECRET`.

use crate::{
    certificates::{Names, RotationSettings, ServingNames},
    probe::ClientCertificate,
};
use clap::ArgAction::Set;
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};
use tokenscope_index::settings::SettingsArgs;
use tokenscope_platform::args::{CommonArgs, seconds};

/// Keeps the state of policies, the certificates of the webhook and its configuration true.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct OperatorArguments {
    /// Those of every process
    #[command(flatten)]
    pub common: CommonArgs,

    /// Those that decide about pods; the same as the webhook's
    #[command(flatten)]
    pub settings: SettingsArgs,

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

    /// The Service of the issuer, where there is one: it gets a serving certificate of the same authority
    #[arg(long, env = "TOKENSCOPE_ISSUER_SERVICE", value_name = "NAME")]
    pub issuer_service: Option<String>,

    /// The Secret of the issuer's serving certificate
    #[arg(
        long,
        env = "TOKENSCOPE_ISSUER_SERVING_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-issuer-tls"
    )]
    pub issuer_serving_secret: String,

    /// The Lease that only one operator holds at a time
    #[arg(
        long,
        env = "TOKENSCOPE_LEASE",
        value_name = "NAME",
        default_value = "tokenscope-operator"
    )]
    pub lease: String,

    /// How many seconds after its last sign of life another operator takes over
    #[arg(long, env = "TOKENSCOPE_LEASE_DURATION", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub lease_duration: Duration,

    /// The issuer of the cluster's ServiceAccount tokens [default: what the API server says]
    #[arg(long, env = "TOKENSCOPE_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,

    /// The issuer of the tokens that the SPIFFE provider signs [default: policies with source SPIFFE get no trust policies]
    #[arg(long, env = "TOKENSCOPE_SPIFFE_ISSUER", value_name = "URL")]
    pub spiffe_issuer: Option<String>,

    /// Whether pods that match no ClusterSPIFFEID are told of, where spire-controller-manager's definitions are in the cluster
    #[arg(long, env = "TOKENSCOPE_WATCH_CLUSTER_SPIFFE_IDS", value_name = "BOOL", default_value_t = true, action = Set)]
    pub watch_cluster_spiffe_ids: bool,

    /// Only ClusterSPIFFEIDs of this class count [default: all]
    #[arg(long, env = "TOKENSCOPE_SPIFFE_CLASS_NAME", value_name = "NAME")]
    pub spiffe_class_name: Option<String>,

    /// How many seconds a certificate authority lives; it is replaced after two thirds
    #[arg(long, env = "TOKENSCOPE_CA_LIFETIME", value_name = "SECONDS", default_value = "31536000", value_parser = seconds)]
    pub ca_lifetime: Duration,

    /// How many seconds a serving certificate lives; it is replaced after two thirds
    #[arg(long, env = "TOKENSCOPE_SERVING_LIFETIME", value_name = "SECONDS", default_value = "2592000", value_parser = seconds)]
    pub serving_lifetime: Duration,

    /// How many seconds API servers, then webhooks, get to notice a new certificate authority before the old one goes
    #[arg(long, env = "TOKENSCOPE_ROTATION_OVERLAP", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub rotation_overlap: Duration,

    /// A DNS name or IP address beside the Service's that the serving certificate is for; may be given more than once
    #[arg(
        long,
        env = "TOKENSCOPE_EXTRA_SERVING_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub extra_serving_name: Vec<String>,

    /// After how many seconds everything is looked at again without a change
    #[arg(long, env = "TOKENSCOPE_RESYNC", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub resync: Duration,

    /// Whether running pods that should have been injected and were not are evicted
    #[arg(long, env = "TOKENSCOPE_EVICT_MISSED", value_name = "BOOL", default_value_t = false, action = Set)]
    pub evict_missed: bool,

    /// Whether running pods are evicted whose policy says onExpiry: Evict and has expired, is disabled or outside its schedule
    #[arg(long, env = "TOKENSCOPE_EVICT_EXPIRED", value_name = "BOOL", default_value_t = false, action = Set)]
    pub evict_expired: bool,

    /// Where the webhook is asked whether it works before a pod is evicted: HOST:PORT [default: its Service]
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

/// Who makes the webhook's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CertificatesProvider {
    /// The operator.
    Operator,
    /// cert-manager, with its CA injector: the operator has no right to Secrets and changes no configuration.
    CertManager,
}

impl OperatorArguments {
    /// Where the webhook is asked whether it works, as the API server finds it.
    pub(crate) fn webhook_address(&self) -> String {
        let (service, namespace) = (&self.webhook_service, &self.common.namespace);
        let service = || format!("{service}.{namespace}.svc:443");
        self.webhook_address.clone().unwrap_or_else(service)
    }

    /// What the operator shows the webhook.
    pub(crate) fn webhook_client_certificate(&self) -> Option<ClientCertificate> {
        Some(ClientCertificate {
            certificate: self.webhook_client_certificate.clone()?,
            key: self.webhook_client_key.clone()?,
        })
    }

    /// How long certificates live.
    pub(crate) fn certificate_settings(&self) -> RotationSettings {
        RotationSettings::new(self.ca_lifetime, self.serving_lifetime, self.rotation_overlap)
    }

    /// What the Secrets are called, and what the serving certificates are for.
    pub(crate) fn certificate_names(&self) -> Names {
        let issuer = self.issuer_service.as_ref();
        let webhook = (&self.webhook_service, &self.serving_secret);
        let served = std::iter::once(webhook).chain(issuer.map(|service| (service, &self.issuer_serving_secret)));
        Names {
            authority_secret: self.ca_secret.clone(),
            serving: served
                .map(|(service, secret)| ServingNames {
                    secret: secret.clone(),
                    hosts: self.hosts(service),
                })
                .collect(),
        }
    }

    /// The names of a Service's certificate.
    fn hosts(&self, service: &str) -> Vec<String> {
        let namespace = &self.common.namespace;
        let mut names = BTreeSet::from([
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]);
        for name in &self.extra_serving_name {
            // As they are read back from a certificate.
            names.insert(match name.parse::<IpAddr>() {
                Ok(address) => address.to_string(),
                Err(_) => name.to_ascii_lowercase(),
            });
        }
        names.into_iter().collect()
    }
}
