//! Leadership by a `coordination.k8s.io/v1` Lease: all replicas keep their data up to date, and the one that holds the Lease writes.
//!
//! Every write to the Lease carries the `resourceVersion` it was decided on, so of two that take it at the same time one is
//! refused. Whether another holder's time is over is measured on the local monotonic clock from when its record was last
//! seen to change, as client-go does it, so clocks of different nodes need not agree.
//!
//! Written here because no crate for it supports kube 5, and kubert compares the wall clocks of nodes (docs/adr/0007).

mod elector;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use elector::Elector;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// The claim of this process to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The time until which no other process takes the Lease; none if this process does not hold it.
    ///
    /// It ends a third of the Lease's duration before others may take over, so that a write begun within it can end in time.
    pub held_until: Option<Instant>,
}

impl Claim {
    /// True if a write may begin at `now`. To be asked before each write.
    pub fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// What is left of it when nothing new is known.
    fn if_still_held(self) -> Self {
        if self.is_held(Instant::now()) {
            self
        } else {
            Self::default()
        }
    }
}

/// Holds the Lease whenever it can be had, in a task of its own, until `stop`; then gives it back, and the channel closes.
///
/// `stop` must come after the last write: use [`Process::hold_lease`](crate::Process::hold_lease), which sees to that.
pub fn run(elector: Elector, stop: CancellationToken) -> watch::Receiver<Claim> {
    let (claims, claim) = watch::channel(Claim::default());
    tokio::spawn(hold(elector, claims, stop));
    claim
}

pub(crate) async fn hold(mut elector: Elector, claims: watch::Sender<Claim>, stop: CancellationToken) {
    // For the usual 15 s: a try each 2 s, each of at most 5 s, so that one lost answer does not lose the Lease.
    let pause = (elector.duration / 5).min(Duration::from_secs(2));
    let deadline = elector.duration / 3;
    loop {
        let Some(tried) = stop.run_until_cancelled(timeout(deadline, elector.try_hold())).await else {
            break;
        };
        let before = *claims.borrow();
        let was_held = before.held_until.is_some();
        let claim = match tried {
            Ok(Ok(claim)) => claim,
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = elector.name,
                    error = telemetry::chain(&error),
                    "the lease can't be read or written"
                );
                before.if_still_held()
            }
            Err(_) => {
                tracing::warn!(
                    lease = elector.name,
                    seconds = deadline.as_secs_f32(),
                    "no answer about the lease in time"
                );
                before.if_still_held()
            }
        };
        match (was_held, claim.held_until.is_some()) {
            (false, true) => tracing::info!(
                lease = elector.name,
                identity = elector.identity(),
                "lease taken: this process writes"
            ),
            (true, false) => tracing::warn!(lease = elector.name, "lease lost: this process stands by"),
            _ => {}
        }
        claims.send_replace(claim);
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
    }
    // A try that `stop` cut off may have taken the Lease without our knowing it, so the Lease itself is asked.
    claims.send_replace(Claim::default());
    match timeout(deadline, elector.release()).await {
        Ok(Ok(())) => tracing::info!(lease = elector.name, "lease given back"),
        Ok(Err(error)) => tracing::warn!(
            lease = elector.name,
            error = telemetry::chain(&error),
            "lease not given back"
        ),
        Err(_) => tracing::warn!(lease = elector.name, "lease not given back in time"),
    }
}
