//! The running sidecar: one task for each token, one for the keys, one for the X.509-SVID.

mod bundles;
mod shared;
mod source;
mod tokens;
mod x509_svid;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bundles::keep_bundles;
use jiff::Timestamp;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use shared::Sidecar;
use source::TokenClient;
use tokens::keep_token;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use x509_svid::keep_x509;

use crate::bundle::JwtBundles;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
#[cfg(feature = "endpoint")]
use crate::config::SourceSettings;
use crate::directory::{Directory, DirectoryLock};
#[cfg(feature = "endpoint")]
use crate::endpoint::{Endpoint, EndpointError, IssuedTokens};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::log::Level;

/// The most names that are looked up at a time, each on a thread of its own.
const LOOKUPS: usize = 2;

/// The reason why the sidecar can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for the files.
    #[error("can't write into the directory {path}: {source}; mount a volume there that this user may write to")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Somebody else runs the program of the container.
    #[error("the sidecar of this pod runs already, and only its container's own start may run it")]
    Locked,
    /// The observing address.
    #[error("can't listen on {address}: {source}")]
    Observe {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The credentials that are served.
    #[cfg(feature = "endpoint")]
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Signals and timers.
    #[error("the system gives no signals or timers")]
    System(#[source] io::Error),
    /// With `--once`, an answer that will always be the same.
    #[error("{0}")]
    Rejected(FetchError),
    /// A mistake in this program.
    #[error("a task has ended")]
    Task(#[source] JoinError),
}

/// Runs until SIGTERM or SIGINT. For `main`.
pub fn process(config: Config) -> ExitCode {
    let log = config.log;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUPS)
        .build();
    let result = runtime.map_err(Error::System).and_then(|runtime| {
        let result = runtime.block_on(async {
            // Set up before anything else: the first process of a container ignores the signals that it has no handler for.
            let mut terminate = signal(SignalKind::terminate()).map_err(Error::System)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::System)?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            run(config, SystemClock, stop).await
        });
        // A name that is still looked up keeps nobody waiting.
        #[cfg(feature = "issuer")]
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.event(Timestamp::now(), Level::Error, &error.to_string(), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Keeps the files fresh and serves credentials until `stop` is ready; with `once`, until each file is written. The files stay.
pub async fn run<C: Clock>(config: Config, clock: C, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let _lock = if config.injected {
        keep_to_itself(&config)?
    } else {
        None
    };
    let clock = Arc::new(clock);
    // The port before all else: who doesn't have it does nothing.
    #[cfg(feature = "endpoint")]
    let endpoint = match &config.endpoint {
        Some(settings) => Some(Endpoint::open(settings).await?),
        None => None,
    };
    let log = |message, fields: &[(&str, &str)]| config.log.event(clock.now(), Level::Info, message, fields);
    log("started", &[("version", env!("CARGO_PKG_VERSION"))]);
    let mut tasks = JoinSet::new();
    let health = match TokenClient::new(&config.source) {
        Some(source) => Some(keep_files(source, &config, &clock, &mut tasks)?),
        None => None,
    };
    #[cfg(feature = "observe")]
    let mut server = JoinSet::new(); // dropped, and so ended, with this function
    #[cfg(feature = "observe")]
    if let (Some(address), Some(health)) = (config.observe, &health) {
        let listener = crate::observe::listen(address)
            .await
            .map_err(|source| Error::Observe { address, source })?;
        server.spawn(crate::observe::serve(listener, Arc::clone(health), Arc::clone(&clock)));
    }
    #[cfg(feature = "endpoint")]
    if let Some(endpoint) = endpoint {
        let issued = health.as_ref().and_then(|health| issued_tokens(&config, health));
        for task in endpoint.tasks(issued.as_ref(), &clock, config.log) {
            tasks.spawn(async move {
                task.await;
                Ok(())
            });
        }
    }
    drop(health);
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(Error::Task)??;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = all_ended => result,
        () = stop => Ok(()),
    };
    log("stopped", &[]);
    result
}

/// The tokens of tokenscope's issuer, if it is their source.
#[cfg(feature = "endpoint")]
fn issued_tokens<'a>(config: &'a Config, health: &'a Arc<Health>) -> Option<IssuedTokens<'a>> {
    let SourceSettings::Issuer(settings) = &config.source else {
        return None;
    };
    Some(IssuedTokens {
        settings,
        health,
        directory: &config.directory,
        files: config.tokens.iter().map(|file| &*file.name).collect(),
    })
}

/// Starts the tasks that keep the files; gives their state.
fn keep_files<C: Clock>(
    source: TokenClient,
    config: &Config,
    clock: &Arc<C>,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<Arc<Health>, Error> {
    let directory = Directory::open(&config.directory).map_err(|source| Error::Directory {
        path: config.directory.clone(),
        source,
    })?;
    let sidecar = Arc::new(Sidecar {
        source,
        health: Arc::new(Health::new(directory.clone(), config.kept())),
        clock: Arc::clone(clock),
        bundles: watch::Sender::new(JwtBundles::default()),
        first_token: Notify::new(),
        directory,
        config: config.clone(),
    });
    for token in sidecar.config.shared_tokens() {
        tasks.spawn(keep_token(Arc::clone(&sidecar), token));
    }
    if let Some(agent) = sidecar.source.agent() {
        if agent.settings.x509_svid {
            tasks.spawn(keep_x509(Arc::clone(&sidecar), Arc::clone(agent)));
        }
        if agent.settings.jwt_bundle || !sidecar.config.once {
            tasks.spawn(keep_bundles(Arc::clone(&sidecar), Arc::clone(agent)));
        }
    }
    Ok(Arc::clone(&sidecar.health))
}

/// Sees to it that nobody else gets tokens as this sidecar: no second process of the program, and no debugger of another
/// container of the pod (`PR_SET_DUMPABLE`, see prctl(2)).
fn keep_to_itself(config: &Config) -> Result<Option<DirectoryLock>, Error> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| Error::System(error.into()))?;
    if config.kept().is_empty() {
        // Without files there is the endpoint, whose port only one process can have.
        return Ok(None);
    }
    let lock = DirectoryLock::take(&config.directory).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked,
        _ => Error::Directory {
            path: config.directory.clone(),
            source,
        },
    })?;
    Ok(Some(lock))
}
