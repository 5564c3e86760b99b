//! The loop over policies and pods: watches → [`World`] → what should be → status, Events, evictions.

pub(crate) mod build;
mod pods;
mod status_writes;
mod update_status;
mod watches;

pub(crate) use watches::watch;

use crate::{
    events::{Notice, Reporter},
    eviction,
    leader::Leader,
    metrics::{EventOutcome, Metrics},
    missed,
    probe::{self, Probe},
    world::{Change, Finding, PodKey, World},
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::{Client, core::DynamicObject};
use std::{convert::Infallible, sync::Arc};
use tokenscope_core::PolicyName;
use tokenscope_platform::health::{Gate, Heartbeat};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between two looks at what changed.
const GATHER: Duration = Duration::from_millis(200);
/// How many changes wait at most; beyond, watches wait.
const QUEUE: usize = 1024;
/// How many writes run at a time.
const WRITES: usize = 16;
/// After a write of a policy that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Between two times that lists are read anew: a list of all pods is work for the API server.
const LISTS_PAUSE: Duration = Duration::from_secs(300);
/// Between two looks at all pods that something is to be done to, or at all numbers, however much happens.
const PACE: Duration = Duration::from_secs(1);
/// How often the loop shows at least that it lives.
const TICK: Duration = Duration::from_secs(10);

/// The loop.
pub(crate) struct Reconciler {
    /// For status and evictions.
    pub(crate) client: Client,
    /// Whether this process writes.
    pub(crate) leader: Leader,
    /// What is known.
    pub(crate) world: World,
    /// Takes Events about missed pods.
    pub(crate) reporter: Reporter,
    /// Which pods are evicted.
    pub(crate) evictions: Evictions,
    /// Asks the webhook whether it works.
    pub(crate) probe: Probe,
    /// Has watches begin again with a list.
    pub(crate) lists_anew: watch::Sender<()>,
    /// After how long everything is looked at again.
    pub(crate) resync: Duration,
    /// Open once everything was looked at.
    pub(crate) gate: Gate,
    /// That the loop lives.
    pub(crate) heartbeat: Heartbeat,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

/// Which pods the installation lets the operator evict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evictions {
    /// Those that run without what they should have.
    pub(crate) missed: bool,
    /// Those that run with what an expired policy gave them, where the policy asks for it.
    pub(crate) expired: bool,
}

/// What something that was begun came to.
enum Ended {
    Status(PolicyName, Box<Result<DynamicObject, kube::Error>>),
    Eviction(PodKey, Finding, Result<(), kube::Error>),
    Probe(Result<(), probe::Error>),
}

type Running = FuturesUnordered<BoxFuture<'static, Ended>>;

/// What the loop remembers besides the world.
#[derive(Default)]
struct Progress {
    status: status_writes::Pacing,
    told: missed::Progress,
    evicted: eviction::Pace,
    evidence: probe::Evidence,
}

impl Reconciler {
    /// Runs until `stop`, and ends the writes that have begun.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut running = Running::new();
        let mut progress = Progress::default();
        let mut batch = Vec::new();
        let mut wake = Instant::now();
        // When what changed is looked at; the first of many changes waits for the others, however many follow.
        let mut pass_at = Instant::now();
        let mut resync = Instant::now() + self.resync;
        let mut count_at = Instant::now();
        let mut pods_at = Instant::now();
        let mut lists_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = changes.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        break;
                    }
                    let now = Timestamp::now();
                    batch.drain(..).for_each(|change| self.world.apply(change, now));
                    wake = wake.min(pass_at.max(Instant::now()));
                    if Instant::now() < wake {
                        continue;
                    }
                }
                Some(ended) = running.next(), if !running.is_empty() => self.take_in(ended, &mut progress),
                () = self.leader.change() => {
                    self.metrics.leader.set(i64::from(self.leader.may_write()));
                    self.world.concern_all();
                    progress = Progress::default();
                    pods_at = Instant::now();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            self.heartbeat.touch();
            if let Some(what) = self.world.waits_for() {
                self.gate.close(format!("{what} not read yet"));
                wake = Instant::now() + TICK;
                continue;
            }
            let now = Timestamp::now();
            let began = Instant::now();
            if began >= pass_at && self.world.is_stale(now) {
                self.pass(now).await;
                self.metrics.passes.observe(began.elapsed().as_secs_f64());
                pass_at = Instant::now() + GATHER;
                pods_at = pods_at.min(began + PACE);
            }
            if began >= resync {
                self.world.concern_all();
                resync = began + self.resync;
            }
            if began >= count_at {
                self.count();
                count_at = began + PACE;
            }
            if began >= lists_at && self.world.awaits_lists() {
                tracing::info!("a namespace has room again for what was not kept of it, so lists are read anew");
                // Whoever follows watches hears of it; at the process's end nobody does.
                self.lists_anew.send_replace(());
                lists_at = began + LISTS_PAUSE;
            }
            self.gate.open();

            wake = Instant::now() + TICK;
            if self.world.is_stale(now) {
                wake = wake.min(pass_at);
            } else if let Some(next) = self.world.next_change() {
                // Also after the clock was set, it is never longer than a tick.
                let pause = Duration::try_from(now.duration_until(next)).unwrap_or(GATHER);
                wake = wake.min(Instant::now() + pause);
            }
            if self.leader.may_write() {
                self.write_status(&running, &mut progress.status, now);
                if began >= pods_at {
                    pods_at = began + self.deal_with_pods(&running, &mut progress, now);
                }
                let held_back = progress.status.next();
                wake = wake.min(held_back.unwrap_or(wake)).min(pods_at);
            }
        }
        while let Some(ended) = running.next().await {
            self.take_in(ended, &mut progress);
        }
        Ok(())
    }

    /// Looks at all that changed, in parts, so that the process's other tasks have their turn between two.
    async fn pass(&mut self, now: Timestamp) {
        while self.world.is_stale(now) {
            self.world.pass(now);
            self.heartbeat.touch();
            tokio::task::yield_now().await;
        }
    }

    fn take_in(&mut self, ended: Ended, progress: &mut Progress) {
        match ended {
            Ended::Status(name, result) => self.take_in_status(name, *result, &mut progress.status),
            Ended::Eviction(key, finding, result) => {
                self.take_in_eviction(&key, &finding, result, &mut progress.evicted);
            }
            Ended::Probe(result) => Self::take_in_probe(&result, &mut progress.evidence),
        }
    }

    fn tell(&self, notice: Notice) {
        if self.reporter.try_send(notice).is_err() {
            self.metrics.event(EventOutcome::Delayed);
        }
    }

    fn count(&self) {
        self.metrics.pods(self.world.totals());
        let (ready, not_ready) = self.world.policies_by_readiness();
        self.metrics.policies(ready, not_ready);
        self.metrics.lock(
            self.world.pods_with_ungranted_token(),
            self.world.csi_drivers_with_locked_tokens().count(),
        );
        self.metrics.namespaces_over_share(self.world.namespaces_over_share());
    }
}
