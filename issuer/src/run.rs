//! The process: flags, watches, keys, certificate, listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, Client};
use tokenscope_core::Settings;
use tokenscope_index::audiences;
use tokenscope_platform::lease::Elector;
use tokenscope_platform::tls::{ServeError, ServingCertificate, TlsServer};
use tokenscope_platform::{Limits, Process, certificate, client};
use tokio_util::sync::CancellationToken;

use crate::args::{AudienceOfApiServer, PortNotAllowed, ServeArgs};
use crate::audit::AuditLog;
use crate::bodies::Bodies;
use crate::buckets::Buckets;
use crate::cluster_index::ClusterIndex;
use crate::cluster_keys::ClusterKeys;
use crate::deadlines::ExchangeDeadlines;
use crate::document_source::DocumentError;
use crate::events::{ExchangeRefusalEvents, KeyEvents, events};
use crate::exchange::Exchange;
use crate::key_keeper::{self, KeyKeeper};
use crate::key_source::{KeySource, SecretKeys};
use crate::metrics::IssuerMetrics;
use crate::public_keys::PublicKeys;
use crate::rotation::InvalidRotation;
use crate::router::{IssuerService, router};
use crate::signers::CurrentSigners;
use crate::token_review::TokenReviews;
use crate::watches;
use crate::work::SignatureThreads;

/// The longest time that a connection may be stuck in a body that does not come or an answer that is not taken.
const REQUEST: Duration = Duration::from_secs(5);
/// Requests at a time on one HTTP/2 connection: a sidecar has one for each audience.
const STREAMS: u32 = 32;
/// The number of tokens that a pod may have at once, and that it may have a second for long. A sidecar with all its audiences needs a handful an hour.
const POD_TOKENS: (u16, u16) = (60, 2);
/// The same of all pods of a namespace together: 5,000 pods with two audiences that start at once, and then an exchange of each
/// every half minute.
const NAMESPACE_TOKENS: (u16, u16) = (10_000, 200);
/// The time after the holder's last sign of life until another replica takes the Lease.
const LEASE: Duration = Duration::from_secs(15);

/// The reason why the issuer can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The URL names a port.
    #[error(transparent)]
    Url(#[from] PortNotAllowed),
    /// The audience of exchanges can't be used.
    #[error(transparent)]
    Audience(#[from] AudienceOfApiServer),
    /// Keys can't be rotated so.
    #[error("keys can't be rotated so")]
    Rotation(#[from] InvalidRotation),
    /// The flags say that keys wait for something that nobody does.
    #[error(
        "--require-published is for keys in the Secret: leave it out with --keys-file, whose keys sign as the file says"
    )]
    RequirePublished,
    /// The issuer's URL can't be asked.
    #[error("the issuer's URL can't be asked for its keys")]
    Public(#[from] DocumentError),
    /// No client for the API server.
    #[error("the API server can't be reached")]
    Client(#[from] client::Error),
    /// Exchanges can't be answered.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the issuer until it is told to stop.
pub async fn run(arguments: ServeArgs, process: Process) -> Result<(), RunError> {
    let url = arguments.url.url()?;
    let audience = exchange_audience(&arguments)?;
    let config = client::configuration(&arguments.common).await?;
    let settings = Settings {
        api_audiences: audiences::of_api_server(&config.auth_info).await,
        ..arguments.settings()
    };
    let client = client::connect(config, &process.freshness)?;
    let metrics = IssuerMetrics::new(&process.registry);
    let index = Arc::new(ClusterIndex::default());
    IssuerMetrics::show_sizes(&process.registry, &index);
    watches::spawn(&index, &client, &process);

    let cluster = Arc::new(ClusterKeys::new(
        client.clone(),
        arguments.cluster_issuer.as_deref().map(Into::into),
        arguments.api_audiences.is_empty().then(|| audience.into()),
    ));
    keep_cluster_keys(&cluster, &process);
    let events = write_events(&arguments, client.clone(), &process, &metrics);
    let signers = keep_keys(&arguments, &client, &process, (&metrics, events.of_keys()))?;
    let expires = metrics.certificate_expires.clone();
    let certificate = certificate::keep(client.clone(), &arguments.serving_secret, expires, &process);

    let now = Instant::now();
    let deadlines = ExchangeDeadlines::default();
    let app = router(IssuerService {
        reviews: arguments
            .token_review
            .then(|| TokenReviews::new(client, audience, deadlines.token_review)),
        events,
        audience: audience.into(),
        exchange: Arc::new(Exchange {
            issuer: url.clone(),
            most_lifetime: arguments.longest_token,
            settings,
            cluster_name: arguments.cluster_name.clone(),
            index,
            freshness: process.freshness.clone(),
            signers: signers.clone(),
            algorithms: arguments.promised_algorithms().to_vec(),
            pods: Buckets::for_pods(POD_TOKENS.0, POD_TOKENS.1, now),
            namespaces: Buckets::new(NAMESPACE_TOKENS.0, NAMESPACE_TOKENS.1, now),
        }),
        cluster,
        signers,
        sources: Buckets::new(arguments.source_burst, arguments.source_rate, now),
        bodies: Bodies::default(),
        threads: SignatureThreads::new(usize::from(arguments.common.workers).min(6)),
        audit: AuditLog::new(metrics.audit_suppressed.clone(), now),
        deadlines,
        metrics,
        clock: Timestamp::now,
    });
    tracing::info!(issuer = url.as_str(), "the issuer of this URL starts");
    Ok(tls_server(&arguments, certificate).serve(app, &process).await?)
}

/// The audience of exchanges. Webhook and guard know that of the issuer's URL alone: they lock it always, and mount its token in sidecars.
fn exchange_audience(arguments: &ServeArgs) -> Result<&str, AudienceOfApiServer> {
    let audience = arguments.audience()?;
    let url = arguments.url.issuer_url.as_str();
    if audience != url {
        tracing::warn!(
            audience,
            url,
            "the exchange takes tokens of an audience that tokenscope neither locks nor mounts: name it in lock.audiences, or leave \
             --exchange-audience out"
        );
    }
    Ok(audience)
}

fn tls_server(arguments: &ServeArgs, certificate: Arc<ServingCertificate>) -> TlsServer {
    TlsServer {
        name: "issuer",
        address: arguments.listen,
        certificate,
        clients: None,
        limits: Limits {
            request: REQUEST,
            streams: STREAMS,
            drain: arguments.drain,
            ..Limits::default()
        },
    }
}

/// Starts the writer of Events. It has no stop of its own: what waits is written once the last exchange has ended.
fn write_events(
    arguments: &ServeArgs,
    client: Client,
    process: &Process,
    metrics: &IssuerMetrics,
) -> ExchangeRefusalEvents {
    let pod_name = &arguments.common.pod_name;
    let (events, writer) = events(client, pod_name, Timestamp::now, metrics.clone());
    process.spawn("events", writer.run(CancellationToken::new()));
    events
}

fn keep_cluster_keys(cluster: &Arc<ClusterKeys>, process: &Process) {
    let gate = process.gates.gate("cluster keys");
    let (cluster, stop) = (cluster.clone(), process.stop.clone());
    process.spawn("the cluster's keys", async move {
        let told = |known: Result<(), String>| match known {
            Ok(()) => gate.open(),
            Err(problem) => gate.close(problem),
        };
        stop.run_until_cancelled(cluster.keep(told)).await;
        Ok::<_, Infallible>(())
    });
}

fn keep_keys(
    arguments: &ServeArgs,
    client: &Client,
    process: &Process,
    (metrics, events): (&IssuerMetrics, KeyEvents),
) -> Result<CurrentSigners, RunError> {
    let common = &arguments.common;
    let signers = CurrentSigners::default();
    let elector = Elector::new(
        Api::namespaced(client.clone(), &common.namespace),
        &arguments.lease,
        &common.pod_name,
        LEASE,
    );
    let source = match arguments.keys.file() {
        Some(file) => KeySource::File(file),
        None => KeySource::Secret(Box::new(SecretKeys {
            secrets: Api::namespaced(client.clone(), &common.namespace),
            name: arguments.keys.secret.keys_secret.clone(),
        })),
    };
    let keeper = KeyKeeper {
        source,
        claim: process.hold_lease(elector),
        settings: arguments.rotation()?,
        public: public_keys(arguments)?,
        issuer: arguments.url.url()?,
        x5c: arguments.keys.x5c,
        signers: signers.clone(),
        gate: process.gates.gate("keys"),
        metrics: metrics.clone(),
        events,
        period: key_keeper::POLL,
        longest_unread: key_keeper::LONGEST_UNREAD,
        clock: Timestamp::now,
    };
    process.spawn("keys", keeper.run(process.stop.clone()));
    Ok(signers)
}

fn public_keys(arguments: &ServeArgs) -> Result<Option<PublicKeys>, RunError> {
    if !arguments.require_published {
        return Ok(None);
    }
    if arguments.keys.file().is_some() {
        return Err(RunError::RequirePublished);
    }
    Ok(Some(PublicKeys::of(&arguments.url.url()?)?))
}
