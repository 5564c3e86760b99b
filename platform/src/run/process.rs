//! The process as its body sees it: its stop, its tasks, and what is seen of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BoxError, Error};
use crate::args::CommonArgs;
use crate::freshness::Freshness;
use crate::health::Gates;
use crate::lease::{self, Claim, Elector};
use crate::metrics::Registry;

/// The process as its body sees it; clones are handles to the same process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The common flags.
    pub common: CommonArgs,
    /// Cancelled by SIGTERM and SIGINT, by a failed task, or by the body itself: end your work.
    pub stop: CancellationToken,
    /// Every task in it may finish after `stop`, within `--stop-timeout`. [`Process::spawn`] also watches over the task.
    pub tracker: TaskTracker,
    /// The gates that the process waits for before it is ready.
    pub gates: Gates,
    /// Its metrics.
    pub registry: Registry,
    /// The age of each watch's last word; give it to [`crate::client::connect`].
    pub freshness: Freshness,
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub observe: SocketAddr,
    pub(super) failure: Arc<Mutex<Option<Error>>>,
    pub(super) last: FinalTasks,
}

/// The tasks that outlive the tracked ones.
#[derive(Clone, Debug, Default)]
pub(super) struct FinalTasks {
    pub(super) stop: CancellationToken,
    pub(super) tracker: TaskTracker,
}

impl Process {
    /// Runs a task that the process can't do without: should it fail, panic, or end before `stop`, the whole process stops
    /// and fails.
    pub fn spawn<T, E>(&self, name: &'static str, task: T)
    where
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let process = self.clone();
        self.tracker.spawn(async move {
            let error = match tokio::spawn(task).await {
                Ok(Ok(())) if process.stop.is_cancelled() => return,
                Ok(Ok(())) => Error::Ended { name },
                Ok(Err(error)) => Error::Task {
                    name,
                    source: error.into(),
                },
                Err(error) => Error::Task {
                    name,
                    source: error.into(),
                },
            };
            process
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
            process.stop.cancel();
        });
    }

    /// Holds the Lease whenever it can be had, and gives it back only after the body and all tracked tasks have ended.
    pub fn hold_lease(&self, elector: Elector) -> watch::Receiver<Claim> {
        let (claims, claim) = watch::channel(Claim::default());
        self.last
            .tracker
            .spawn(lease::hold(elector, claims, self.last.stop.clone()));
        claim
    }
}
