//! From `main` to exit code: flags, logs, observation, the process's own work, and the order in which it all stops.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::CommonArgs;
use crate::freshness::Freshness;
use crate::health::{self, Gates, Observed};
use crate::metrics::{Registry, process_name};
use crate::telemetry;

mod process;
mod signals;

#[cfg(test)]
mod tests;

use process::FinalTasks;
pub use process::Process;
use signals::Signals;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The longest time that the Lease may take to be given back after all work has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a process failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("another TLS provider was installed first")]
    Provider,
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    #[error("can't start threads")]
    Runtime(#[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Observe(#[from] health::Error),
    #[error(transparent)]
    Body(BoxError),
    #[error("{name} failed")]
    Task { name: &'static str, source: BoxError },
    #[error("{name} ended by itself")]
    Ended { name: &'static str },
    #[error("work was still running {} s after the stop, and was cut", .0.as_secs())]
    Unfinished(Duration),
    #[error("a second signal came before work had ended, and it was cut")]
    Impatient,
}

/// Runs a process: flags `A` from the command line and the environment, then `body`, until it ends or is told to stop.
///
/// After a signal the body and the tracked tasks have `--stop-timeout` to end; a second signal cuts them. A Lease is given
/// back after that, and `/livez` and `/metrics` answer to the end. The exit code is 0 if all went well, 1 after a failure
/// (logged once, with its causes), and 2 for wrong usage.
pub fn run<A, F, W, E>(common: impl FnOnce(&A) -> &CommonArgs, body: F) -> ExitCode
where
    A: clap::Parser,
    F: FnOnce(A, Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    run_with(std::env::args_os(), common, body)
}

fn run_with<A, F, W, E>(
    arguments: impl IntoIterator<Item = OsString>,
    common: impl FnOnce(&A) -> &CommonArgs,
    body: F,
) -> ExitCode
where
    A: clap::Parser,
    F: FnOnce(A, Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let arguments = match A::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Where even this can't be printed there is nobody to tell.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let common = common(&arguments).clone();
    if let Err(error) = telemetry::start(&common.log_level, common.log_format) {
        eprintln!("error: {}", telemetry::chain(&error));
        return ExitCode::FAILURE;
    }
    tracing::info!(
        process = process_name(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    match start(common, |process| body(arguments, process)) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "failed");
            ExitCode::FAILURE
        }
    }
}

fn start<F, W, E>(common: CommonArgs, body: F) -> Result<(), Error>
where
    F: FnOnce(Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Error::Provider)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(common.workers))
        // For name resolution, the service account's token file and large reviews: a few are plenty.
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let outcome = runtime.block_on(supervise(common, body));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn supervise<F, W, E>(common: CommonArgs, body: F) -> Result<(), Error>
where
    F: FnOnce(Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let end = CancellationToken::new();
    let process = observed_process(common, &end)?;

    let mut work = pin!(body(process.clone()));
    let ended = tokio::select! {
        ended = work.as_mut() => Some(ended),
        () = process.stop.cancelled() => None,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            None
        }
    };
    process.stop.cancel();
    process.tracker.close();
    let rest = async {
        let ended = match ended {
            Some(ended) => ended,
            None => work.await,
        };
        process.tracker.wait().await;
        ended.map_err(|error| Error::Body(error.into()))
    };
    let stop_timeout = process.common.stop_timeout;
    let outcome = tokio::select! {
        outcome = timeout(stop_timeout, rest) => outcome.unwrap_or(Err(Error::Unfinished(stop_timeout))),
        _ = signals.next() => Err(Error::Impatient),
    };

    finish(&process).await;
    end.cancel();
    // A failed task is why the rest ended too, so it goes first.
    match process.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// The process before any work, with `/livez`, `/readyz` and `/metrics` answering until `end`.
fn observed_process(common: CommonArgs, end: &CancellationToken) -> Result<Process, Error> {
    let stop = CancellationToken::new();
    let observed = Observed {
        gates: Gates::default(),
        freshness: Freshness::new(common.watch_age_limit),
        registry: Registry::new(),
        stop: stop.clone(),
    };
    let (gates, freshness, registry) = (
        observed.gates.clone(),
        observed.freshness.clone(),
        observed.registry.clone(),
    );
    registry.register_collector(freshness.clone());
    let observe = health::start(common.observe, observed, end.clone())?;
    Ok(Process {
        common,
        stop,
        tracker: TaskTracker::new(),
        gates,
        registry,
        freshness,
        observe,
        failure: Arc::default(),
        last: FinalTasks::default(),
    })
}

/// Runs the tasks that come after all work: the Lease is given back.
async fn finish(process: &Process) {
    process.last.stop.cancel();
    process.last.tracker.close();
    if timeout(RELEASE_TIMEOUT, process.last.tracker.wait()).await.is_err() {
        tracing::warn!("the lease was not given back in time");
    }
}
