//! The process: flags, watches, certificate, listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use jiff::Timestamp;
use kube::{Api, Client};
use tokenscope_core::Settings;
use tokenscope_index::audiences::{self, ApiAudience, ApiIssuer};
use tokenscope_index::eks_pod_identity::PodIdentityError;
use tokenscope_index::follow;
use tokenscope_platform::tls::{Clients, ClientsError, ServeError, TlsServer};
use tokenscope_platform::{Limits, Process, certificate, client};
use tokio_util::sync::CancellationToken;

use crate::args::WebhookArguments;
use crate::cache::Cache;
use crate::csi_drivers::SharedCsiDrivers;
use crate::deadlines::ReviewDeadlines;
use crate::events::events;
use crate::lookup::LiveLookups;
use crate::metrics::WebhookMetrics;
use crate::router::{Webhook, router};
use crate::{issuer_authorities, version};

/// The longest time that a connection may be stuck in a body that does not come or an answer that is not taken: a review itself ends
/// earlier, and the API server waits for 2 seconds.
const REQUEST: Duration = Duration::from_secs(3);

/// The reason why the webhook can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for the API server.
    #[error("the API server can't be reached")]
    Client(#[from] client::Error),
    /// The lock would take every pod its token.
    #[error("the lock can't be set up")]
    Lock(#[from] ApiAudience),
    /// The issuer would take every pod's own token.
    #[error("the issuer can't be used")]
    Issuer(#[from] ApiIssuer),
    /// Nobody knows whose pods get their credentials from the agent of EKS Pod Identity.
    #[error("EKS Pod Identity can't be set up")]
    PodIdentity(#[from] PodIdentityError),
    /// The authorities of client certificates can't be used.
    #[error("clients can't be asked for certificates")]
    Clients(#[from] ClientsError),
    /// Reviews can't be answered.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the webhook until it is told to stop.
pub async fn run(arguments: WebhookArguments, process: Process) -> Result<(), Error> {
    let pod_identity = arguments.pod_identity.load()?;
    let (client, api_audiences) = connect(&arguments, &process).await?;
    let metrics = WebhookMetrics::new(&process.registry);
    let cache = Arc::new(Cache::default());
    metrics.show_sizes(&process.registry, &cache);
    let clients = client_authorities(&arguments, &process)?;

    // This gate is made before the first can open, and opens last.
    let version = process.gates.gate("version");
    let expires = metrics.certificate_expires.clone();
    let certificate = certificate::keep(client.clone(), &arguments.serving_secret, expires, &process);
    cache.watch(&client, &process);
    let csi_drivers = watch_csi_drivers(&client, &process);

    let (events, writer) = events(
        client.clone(),
        &arguments.common.pod_name,
        Timestamp::now,
        metrics.clone(),
    );
    // Without a stop of its own: what waits is written once the last review has ended.
    process.spawn("events", writer.run(CancellationToken::new()));
    let unsupported = version::unsupported(&client, &version, &process.stop).await;
    let settings = Settings {
        pod_identity,
        api_audiences,
        ..arguments.settings(unsupported)
    };
    let settings = current_settings(&arguments, settings, &process);
    let deadlines = ReviewDeadlines::default();
    let app = router(Webhook {
        lookups: LiveLookups::new(cache.clone(), client, metrics.clone(), deadlines.lookup),
        cache,
        csi_drivers,
        freshness: process.freshness.clone(),
        settings,
        events,
        deadlines,
        metrics,
        clock: Timestamp::now,
    });
    // The router ends with the listener, and with it the last sender of Events, so their writer ends too.
    let server = TlsServer {
        name: "webhook",
        address: arguments.listen,
        certificate,
        clients,
        limits: Limits {
            request: REQUEST,
            drain: arguments.drain,
            ..Limits::default()
        },
    };
    Ok(server.serve(app, &process).await?)
}

/// A client of the API server, and the API server's own audiences, once the lock and the issuer's URL are known to leave pods their
/// own tokens.
async fn connect(arguments: &WebhookArguments, process: &Process) -> Result<(Client, Vec<Box<str>>), Error> {
    let lock = arguments.settings.settings().lock;
    let config = client::configuration(&arguments.common).await?;
    audiences::check_locked(&config.auth_info, &lock).await?;
    audiences::check_issuer(&config.auth_info, arguments.issuer.issuer_url.as_deref()).await?;
    let own = audiences::of_api_server(&config.auth_info).await;
    Ok((client::connect(config, &process.freshness)?, own))
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
fn current_settings(arguments: &WebhookArguments, settings: Settings, process: &Process) -> Arc<ArcSwap<Settings>> {
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    if let Some(file) = arguments.issuer.issuer_ca_file.clone() {
        let following = issuer_authorities::follow(file, settings.clone(), process.stop.clone());
        process.spawn("issuer authorities", following.map(Ok::<_, Infallible>));
    }
    settings
}
