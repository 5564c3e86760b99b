//! The process: flags, watches, certificate, listener.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use futures::FutureExt as _;
use jiff::Timestamp;
use kube::{Api, Client};
use tokenscope_core::Settings;
use tokenscope_index::audiences::{self, ApiAudience, ApiIssuer};
use tokenscope_index::follow;
use tokenscope_platform::certificate::CertificateWatcher;
use tokenscope_platform::tls::{self, Clients, ClientsError, ServingCertificate};
use tokenscope_platform::{ConnectionMetrics, Limits, Process, client, listen};
use tokio_util::sync::CancellationToken;

use crate::args::WebhookArguments;
use crate::cache::Cache;
use crate::csi_drivers::SharedCsiDrivers;
use crate::events::events;
use crate::issuer_authorities;
use crate::lookup::LiveLookups;
use crate::metrics::WebhookMetrics;
use crate::router::{Webhook, router};
use crate::version;

/// How long a connection may be stuck in a body that does not come or an answer that is not taken: a review itself ends
/// earlier, and the API server waits for 2 seconds.
const REQUEST: Duration = Duration::from_secs(3);

/// The reason why the webhook can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for the API server.
    #[error("the API server can't be reached")]
    Client(#[from] client::Error),
    /// The address is taken, or not ours.
    #[error("can't listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The lock would take every pod its token.
    #[error("the lock can't be set up")]
    Lock(#[from] ApiAudience),
    /// The issuer would take every pod's own token.
    #[error("the issuer can't be used")]
    Issuer(#[from] ApiIssuer),
    /// The authorities of client certificates can't be used.
    #[error("clients can't be asked for certificates")]
    Clients(#[from] ClientsError),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

/// Runs the webhook until it is told to stop.
pub async fn run(arguments: WebhookArguments, process: Process) -> Result<(), Error> {
    let client = connect(&arguments, &process).await?;
    let metrics = WebhookMetrics::new(&process.registry);
    let cache = Arc::new(Cache::default());
    metrics.show_sizes(&process.registry, &cache);
    let clients = client_authorities(&arguments, &process)?;

    // The gates are made before the first of them can open.
    let certificate = ServingCertificate::empty();
    let watcher = CertificateWatcher {
        secrets: Api::namespaced(client.clone(), &arguments.common.namespace),
        name: arguments.serving_secret.clone(),
        certificate: certificate.clone(),
        gate: process.gates.gate("certificate"),
        expires: metrics.certificate_expires.clone(),
        clock: Timestamp::now,
    };
    let version = process.gates.gate("version");
    cache.watch(&client, &process);
    let csi_drivers = watch_csi_drivers(&client, &process);
    process.spawn("certificate", watcher.run(process.stop.clone()));

    let (events, writer) = events(
        client.clone(),
        &arguments.common.pod_name,
        Timestamp::now,
        metrics.clone(),
    );
    // Without a stop of its own: what waits is written once the last review has ended.
    process.spawn("events", writer.run(CancellationToken::new()));
    let unsupported = version::unsupported(&client, &version, &process.stop).await;
    let settings = current_settings(&arguments, unsupported, &process);
    let app = router(Webhook {
        lookups: LiveLookups::new(cache.clone(), client, metrics.clone()),
        cache,
        csi_drivers,
        freshness: process.freshness.clone(),
        settings,
        events,
        metrics,
        clock: Timestamp::now,
    });
    // The router ends with the listener, and with it the last sender of Events, so their writer ends too.
    serve(&arguments, certificate, clients, app, &process).await
}

/// A client of the API server, once the lock and the issuer's URL are known to leave pods their own tokens.
async fn connect(arguments: &WebhookArguments, process: &Process) -> Result<Client, Error> {
    let lock = arguments.settings.settings().lock;
    let config = client::configuration(&arguments.common).await?;
    audiences::check_locked(&config.auth_info, &lock).await?;
    audiences::check_issuer(&config.auth_info, arguments.issuer.issuer_url.as_deref()).await?;
    Ok(client::connect(config, &process.freshness)?)
}

/// The authorities that clients' certificates have to come from, read again whenever their file changes.
fn client_authorities(arguments: &WebhookArguments, process: &Process) -> Result<Option<Arc<Clients>>, Error> {
    let Some(file) = &arguments.client_ca_file else {
        return Ok(None);
    };
    let clients = Clients::from_file(file, arguments.client_names.clone())?;
    let following = clients.clone().follow(process.stop.clone()).map(Ok::<_, Infallible>);
    process.spawn("client authorities", following);
    Ok(Some(clients))
}

fn watch_csi_drivers(client: &Client, process: &Process) -> Arc<SharedCsiDrivers> {
    let csi_drivers = Arc::new(SharedCsiDrivers::default());
    let drivers = csi_drivers.clone();
    follow(Api::all(client.clone()), "csidrivers", process, move |event| {
        drivers.apply(event);
        false
    });
    csi_drivers
}

/// The settings, in which the issuer's authorities are replaced whenever their file changes.
fn current_settings(
    arguments: &WebhookArguments,
    unsupported: Option<String>,
    process: &Process,
) -> Arc<ArcSwap<Settings>> {
    let settings = Arc::new(ArcSwap::from_pointee(arguments.settings(unsupported)));
    if let Some(file) = arguments.issuer.issuer_ca_file.clone() {
        let following = issuer_authorities::follow(file, settings.clone(), process.stop.clone());
        process.spawn("issuer authorities", following.map(Ok::<_, Infallible>));
    }
    settings
}

/// Serves reviews until the stop, and then those that have come already.
async fn serve(
    arguments: &WebhookArguments,
    certificate: Arc<ServingCertificate>,
    clients: Option<Arc<Clients>>,
    app: Router,
    process: &Process,
) -> Result<(), Error> {
    let address = arguments.listen;
    let listener = listen::bind(address).map_err(|source| Error::Listen { address, source })?;
    let limits = Limits {
        request: REQUEST,
        drain: arguments.drain,
        ..Limits::default()
    };
    tracing::info!(%address, "serving reviews");
    tls::serve(
        listener,
        tls::server_config(certificate, clients)?,
        app,
        limits,
        ConnectionMetrics::registered(&process.registry, "webhook"),
        process.stop.clone(),
    )
    .await;
    Ok(())
}
