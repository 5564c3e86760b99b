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

use jiff::Timestamp;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};

use crate::bundle::JwtBundles;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::directory::{Directory, DirectoryLock};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::log::Level;
use bundles::keep_bundles;
use shared::Sidecar;
use source::TokenClient;
use tokens::keep_token;
use x509_svid::keep_x509;

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

/// Keeps the files fresh until `stop` is ready; with `once`, until each is written. The files stay.
pub async fn run<C: Clock>(config: Config, clock: C, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let _lock = if config.injected {
        Some(keep_to_itself(&config)?)
    } else {
        None
    };
    let directory = Directory::open(&config.directory).map_err(|source| Error::Directory {
        path: config.directory.clone(),
        source,
    })?;
    let sidecar = Arc::new(Sidecar {
        source: TokenClient::new(&config.source),
        health: Arc::new(Health::new(directory.clone(), config.kept())),
        clock: Arc::new(clock),
        bundles: watch::Sender::new(JwtBundles::default()),
        first_token: Notify::new(),
        directory,
        config,
    });
    #[cfg(feature = "observe")]
    let mut server = JoinSet::new(); // dropped, and so ended, with this function
    #[cfg(feature = "observe")]
    if let Some(address) = sidecar.config.observe {
        let listener = crate::observe::listen(address)
            .await
            .map_err(|source| Error::Observe { address, source })?;
        let (health, clock) = (Arc::clone(&sidecar.health), Arc::clone(&sidecar.clock));
        server.spawn(crate::observe::serve(listener, health, clock));
    }

    let mut tasks = JoinSet::new();
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
    sidecar.log(Level::Info, "started", &[("version", env!("CARGO_PKG_VERSION"))]);
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
    sidecar.log(Level::Info, "stopped", &[]);
    result
}

/// Sees to it that nobody else gets tokens as this sidecar: no second process of the program, and no debugger of another
/// container of the pod (`PR_SET_DUMPABLE`, see prctl(2)).
fn keep_to_itself(config: &Config) -> Result<DirectoryLock, Error> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| Error::System(error.into()))?;
    DirectoryLock::take(&config.directory).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked,
        _ => Error::Directory {
            path: config.directory.clone(),
            source,
        },
    })
}
