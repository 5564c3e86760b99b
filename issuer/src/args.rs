//! The commands and their flags. Each flag is also an environment variable: `--listen` is `TOKENSCOPE_LISTEN`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokenscope_core::{Algorithm, ClusterName, Settings};
use tokenscope_index::settings::SettingsArgs;
use tokenscope_platform::args::{CommonArgs, seconds};

use crate::claims::MOST_LIFETIME;
use crate::issuer_url::IssuerUrl;
use crate::key_source::KeyFile;
use crate::keys::algorithm_of;
use crate::rotation::{InvalidRotation, KeyRotationSettings};

/// An OIDC issuer that exchanges a pod's projected token for one that says what its policy grants
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct IssuerCommand {
    /// The command.
    #[command(subcommand)]
    pub action: IssuerAction,
}

/// The command.
#[derive(Debug, clap::Subcommand)]
pub enum IssuerAction {
    /// Serves discovery, keys and the token exchange
    Serve(Box<ServeArgs>),
    /// Writes discovery and keys as files, for a server that AWS can reach; run it before a new key signs, at least each hour
    Publish(Box<PublishArgs>),
    /// Publishes a further key now, which signs once it was published for --publish-wait
    Rotate(Box<RotateArgs>),
    /// Removes a leaked key at once and prints what ends the sessions that were made with it
    RevokeKey(Box<RevokeArgs>),
}

impl IssuerCommand {
    /// The flags of every process.
    pub fn common(&self) -> &CommonArgs {
        match &self.action {
            IssuerAction::Serve(arguments) => &arguments.common,
            IssuerAction::Publish(arguments) => &arguments.common,
            IssuerAction::Rotate(arguments) => &arguments.common,
            IssuerAction::RevokeKey(arguments) => &arguments.common,
        }
    }
}

/// The issuer's URL.
#[derive(Clone, Debug, clap::Args)]
pub struct UrlArgs {
    /// The issuer, as the tokens' iss has it: byte for byte the URL of the IAM provider
    #[arg(long, env = "TOKENSCOPE_ISSUER_URL", value_name = "URL")]
    pub issuer_url: IssuerUrl,

    /// Let the URL name a port, which AWS does not take and other relying parties do
    #[arg(long, env = "TOKENSCOPE_ISSUER_ALLOW_PORT", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub issuer_allow_port: bool,
}

impl UrlArgs {
    /// The URL, if it may have its port.
    pub fn url(&self) -> Result<IssuerUrl, PortNotAllowed> {
        if self.issuer_url.has_port() && !self.issuer_allow_port {
            return Err(PortNotAllowed(self.issuer_url.clone()));
        }
        Ok(self.issuer_url.clone())
    }
}

/// The URL names a port.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} names a port, and AWS takes no issuer with one: leave it out, or set --issuer-allow-port for other relying parties"
)]
pub struct PortNotAllowed(IssuerUrl);

/// The Secret of the keys.
#[derive(Clone, Debug, clap::Args)]
pub struct KeysSecretArgs {
    /// The Secret in --namespace with the issuer's keys
    #[arg(
        long,
        env = "TOKENSCOPE_KEYS_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-issuer-keys"
    )]
    pub keys_secret: String,
}

/// The place of the keys.
#[derive(Clone, Debug, clap::Args)]
pub struct KeysArgs {
    /// The Secret of the keys.
    #[command(flatten)]
    pub secret: KeysSecretArgs,

    /// Whether keys are published with a certificate of themselves (x5c), for relying parties that read nothing else, such as Ceph's radosgw
    #[arg(long, env = "TOKENSCOPE_X5C", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub x5c: bool,

    /// A file with the keys in place of the Secret: its entry keyring.json, or private keys in PEM (PKCS #8)
    #[arg(long, env = "TOKENSCOPE_KEYS_FILE", value_name = "PATH")]
    pub keys_file: Option<PathBuf>,

    /// A file with identities of age (AGE-SECRET-KEY-1…), where --keys-file is encrypted for one of them
    #[arg(long, env = "TOKENSCOPE_KEYS_IDENTITY", value_name = "PATH", requires = "keys_file")]
    pub keys_identity: Option<PathBuf>,
}

impl KeysArgs {
    /// The file with the keys, where it takes the place of the Secret.
    pub fn file(&self) -> Option<KeyFile> {
        Some(KeyFile {
            path: self.keys_file.clone()?,
            identities: self.keys_identity.clone(),
        })
    }
}

/// Serves discovery, keys and the token exchange.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The flags of every process.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The settings for all pods.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// The issuer.
    #[command(flatten)]
    pub url: UrlArgs,

    /// The place of the keys.
    #[command(flatten)]
    pub keys: KeysArgs,

    /// The address at which everything is served, over TLS
    #[arg(long, env = "TOKENSCOPE_LISTEN", value_name = "ADDRESS", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// The Secret in --namespace that has the serving certificate and its key
    #[arg(
        long,
        env = "TOKENSCOPE_SERVING_SECRET",
        value_name = "NAME",
        default_value = "tokenscope-issuer-tls"
    )]
    pub serving_secret: String,

    /// The audience that a pod's token must have to be exchanged. Only the default is locked always, and mounted in sidecars: another
    /// one is locked only where lock.audiences names it, and mounted by nobody [default: the issuer's URL]
    #[arg(long, env = "TOKENSCOPE_EXCHANGE_AUDIENCE", value_name = "AUDIENCE")]
    pub exchange_audience: Option<String>,

    /// An audience that the API server itself takes, as its flag --api-audiences has it; may be given more than once [default: --cluster-issuer]
    #[arg(
        long = "api-audience",
        env = "TOKENSCOPE_API_AUDIENCE",
        value_name = "AUDIENCE",
        value_delimiter = ','
    )]
    pub api_audiences: Vec<String>,

    /// Ask the API server about each pod's token too (TokenReview): one request for each exchange that would bring a token
    #[arg(long, env = "TOKENSCOPE_TOKEN_REVIEW", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub token_review: bool,

    /// The name of this cluster before the subjects of its tokens, where several clusters have one issuer
    #[arg(long, env = "TOKENSCOPE_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<ClusterName>,

    /// The issuer of the cluster's service account tokens [default: what the API server says]
    #[arg(long, env = "TOKENSCOPE_CLUSTER_ISSUER", value_name = "URL")]
    pub cluster_issuer: Option<String>,

    /// An algorithm that there is always a key of: RS256, ES256 or ES384; may be given more than once
    #[arg(long = "algorithm", env = "TOKENSCOPE_ALGORITHM", value_name = "NAME", value_delimiter = ',', default_value = "RS256", value_parser = algorithm)]
    pub algorithms: Vec<Algorithm>,

    /// Seconds that a key is published before it signs; at least 3600, since nobody says how long AWS remembers keys
    #[arg(long, env = "TOKENSCOPE_PUBLISH_WAIT", value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    pub publish_wait: Duration,

    /// Let a key sign only once the key set at --issuer-url has it, which this process then asks over the internet; the one before
    /// it signs meanwhile. Its certificate must be one of a public authority
    #[arg(long, env = "TOKENSCOPE_REQUIRE_PUBLISHED", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub require_published: bool,

    /// Seconds that a key signs before the next one does
    #[arg(long, env = "TOKENSCOPE_SIGNING_PERIOD", value_name = "SECONDS", default_value = "2592000", value_parser = seconds)]
    pub signing_period: Duration,

    /// The longest lifetime of a token, in seconds
    #[arg(long, env = "TOKENSCOPE_LONGEST_TOKEN", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(600..=i64::from(MOST_LIFETIME)))]
    pub longest_token: u32,

    /// The Lease of the replica that writes the keys
    #[arg(
        long,
        env = "TOKENSCOPE_LEASE",
        value_name = "NAME",
        default_value = "tokenscope-issuer"
    )]
    pub lease: String,

    /// The number of requests that prove no pod which an address may send at once
    #[arg(
        long,
        env = "TOKENSCOPE_SOURCE_BURST",
        value_name = "REQUESTS",
        default_value_t = 200
    )]
    pub source_burst: u16,

    /// The rate of such requests that an address may keep up, in requests a second
    #[arg(long, env = "TOKENSCOPE_SOURCE_RATE", value_name = "REQUESTS", default_value_t = 20)]
    pub source_rate: u16,

    /// Seconds that running exchanges have to finish after SIGTERM; keep it under --stop-timeout
    #[arg(long, env = "TOKENSCOPE_DRAIN", value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub drain: Duration,
}

impl ServeArgs {
    /// The installation's settings. In this process there always is an issuer.
    pub fn settings(&self) -> Settings {
        Settings {
            issuer: Some(self.url.issuer_url.as_str().into()),
            ..self.settings.settings()
        }
    }

    /// The audience that a pod's token must have to be exchanged, unless the API server is known to take it itself.
    pub fn audience(&self) -> Result<&str, AudienceOfApiServer> {
        let url = self.url.issuer_url.as_str();
        let audience = self.exchange_audience.as_deref().unwrap_or(url);
        let mut own = self.api_audiences.iter();
        // The API server's own default for its audiences is its issuer (kube-apiserver, --api-audiences).
        let default = self.cluster_issuer.as_ref().filter(|_| self.api_audiences.is_empty());
        if own.any(|own| own == audience) || default.is_some_and(|issuer| issuer == audience) {
            return Err(AudienceOfApiServer(audience.into()));
        }
        Ok(audience)
    }

    /// The algorithms that there is always a key of. None where the keys come from a file: then the file says which.
    pub fn promised_algorithms(&self) -> &[Algorithm] {
        match self.keys.file() {
            Some(_) => &[],
            None => &self.algorithms,
        }
    }

    /// The times of the rotation of keys.
    pub fn rotation(&self) -> Result<KeyRotationSettings, InvalidRotation> {
        KeyRotationSettings::new(self.algorithms.clone(), self.publish_wait, self.signing_period)
    }
}

/// The audience of exchanges is one of the API server's.
#[derive(Debug, thiserror::Error)]
#[error(
    "--exchange-audience is {0:?}, which the API server takes itself: whoever has such a token could use it there, so choose another"
)]
pub struct AudienceOfApiServer(Box<str>);

/// Writes discovery and keys as files.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// The flags of every process.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The issuer whose documents are published: this one, the cluster's, or a SPIFFE trust domain
    #[arg(long, value_name = "WHOSE", default_value = "issuer")]
    pub of: Published,

    /// The folder that is served as the issuer's URL
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,

    /// The issuer's URL [default for --of cluster: what the API server says]
    #[arg(long, env = "TOKENSCOPE_ISSUER_URL", value_name = "URL")]
    pub issuer_url: Option<IssuerUrl>,

    /// For --of issuer: where the issuer itself serves its documents, such as its Service; https, a host and at most a port, since the
    /// paths are those of --issuer-url
    #[arg(long, value_name = "URL", requires = "from_authorities")]
    pub from: Option<IssuerUrl>,

    /// For --of issuer: a PEM file with the authorities that vouch for the certificate of --from: ca.crt of the Secret
    /// tokenscope-issuer-tls
    #[arg(long, value_name = "PATH", requires = "from")]
    pub from_authorities: Option<PathBuf>,

    /// For --of spiffe: the trust domain's bundle in the SPIFFE format
    #[arg(long, value_name = "PATH")]
    pub bundle: Option<PathBuf>,
}

/// The issuer whose documents are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Published {
    /// Those of this issuer.
    Issuer,
    /// Those of the cluster's own issuer of service account tokens.
    Cluster,
    /// Those of a SPIFFE trust domain.
    Spiffe,
}

/// Publishes a further key.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// The flags of every process.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The Secret of the keys.
    #[command(flatten)]
    pub secret: KeysSecretArgs,

    /// The key's algorithm: RS256, ES256 or ES384
    #[arg(long, value_name = "NAME", default_value = "RS256", value_parser = algorithm)]
    pub algorithm: Algorithm,
}

/// Removes a leaked key.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// The flags of every process.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The Secret of the keys.
    #[command(flatten)]
    pub secret: KeysSecretArgs,

    /// The key's identifier, as the key set has it
    #[arg(value_name = "KID")]
    pub kid: String,
}

fn algorithm(text: &str) -> Result<Algorithm, &'static str> {
    algorithm_of(text).ok_or("it should be RS256, ES256 or ES384")
}
