//! The task that keeps the index: events → [`crate::index::Index::apply`] → [`crate::index::Index::reassess`].

use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_platform::health::{Gate, Heartbeat};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::index::{Index, IndexEvent, SharedIndex};
use crate::metrics::OperatorMetrics;
use crate::watches::QUEUE;

/// The time between two looks at what changed. The first of many changes waits for the others.
const GATHER: Duration = Duration::from_millis(200);
/// The least time between two updates of all metrics.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// The longest time of one look at what changed, after which the watches' events are taken in. The first look takes as long as it needs: before
/// it has ended, the process is not ready.
const LONGEST_PASS: Duration = Duration::from_secs(1);
/// The longest time between two signs that the task lives.
const TICK: Duration = Duration::from_secs(10);

/// The task.
pub(crate) struct Indexer {
    /// The index of what is known.
    pub(crate) index: SharedIndex,
    /// Has watches begin again with a list.
    pub(crate) wants_lists: watch::Sender<bool>,
    /// After how long the status of every policy is looked at again.
    pub(crate) resync: Duration,
    /// Open once everything was looked at.
    pub(crate) gate: Gate,
    /// The sign that the task lives.
    pub(crate) heartbeat: Heartbeat,
    /// The metrics.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

/// The time at which each kind of work is done next, and how long it may take.
struct Due {
    reassess: Instant,
    resync: Instant,
    count: Instant,
    /// The longest time of the next look at what changed.
    pass: Duration,
}

impl Indexer {
    /// Runs until `stop`.
    pub(crate) async fn run(
        self,
        mut events: mpsc::Receiver<IndexEvent>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut batch = Vec::new();
        let now = Instant::now();
        let mut due = Due {
            reassess: now,
            resync: now + self.resync,
            count: now,
            pass: Duration::MAX,
        };
        let mut wake = now;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                count = events.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.index.apply(batch.drain(..), Timestamp::now()).await;
                    wake = wake.min(due.reassess);
                    if Instant::now() < wake {
                        continue;
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.heartbeat.touch();
            wake = self.step(&mut due, Timestamp::now()).await;
        }
    }

    /// Does what is due, and answers when to look again.
    async fn step(&self, due: &mut Due, now: Timestamp) -> Instant {
        if let Some(kind) = self.index.lock().await.waits_for() {
            self.gate.close(format!("{kind} not read yet"));
            return Instant::now() + TICK;
        }
        let began = Instant::now();
        if began >= due.reassess && self.reassess(now, due.pass).await {
            self.metrics.passes.observe(began.elapsed().as_secs_f64());
            due.reassess = Instant::now() + GATHER;
        }
        let mut index = self.index.lock().await;
        if began >= due.resync {
            index.enqueue_all_statuses();
            self.index.notify();
            due.resync = began + self.resync;
        }
        if began >= due.count {
            self.count(&index);
            due.count = began + COUNT_PAUSE;
        }
        // Whoever follows watches hears of it; at the process's end nobody does.
        self.wants_lists.send_if_modified(|wanted| {
            let wants = index.wants_lists();
            std::mem::replace(wanted, wants) != wants
        });
        self.gate.open();
        due.pass = LONGEST_PASS;
        let tick = Instant::now() + TICK;
        if index.is_dirty(now) {
            return tick.min(due.reassess);
        }
        // Also after the clock was set, it is never longer than a tick.
        let next = index.next_change().map(|next| {
            let pause = Duration::try_from(now.duration_until(next)).unwrap_or(GATHER);
            Instant::now() + pause
        });
        tick.min(next.unwrap_or(tick))
    }

    /// Looks at what changed, in parts, so that others have their turn between two, and for no longer than this; answers whether anything
    /// did.
    async fn reassess(&self, now: Timestamp, longest: Duration) -> bool {
        let (began, mut any) = (Instant::now(), false);
        while began.elapsed() < longest {
            let mut index = self.index.lock().await;
            if !index.is_dirty(now) {
                break;
            }
            index.reassess(now);
            drop(index);
            any = true;
            self.heartbeat.touch();
            tokio::task::yield_now().await;
        }
        if any {
            self.index.notify();
        }
        any
    }

    fn count(&self, index: &Index) {
        self.metrics.pods(index.totals().by_state());
        let (ready, not_ready) = index.policies_by_readiness();
        self.metrics.policies(ready, not_ready);
        let drivers = index.csi_drivers_with_locked_tokens().count();
        self.metrics.lock(index.pods_with_ungranted_token(), drivers);
        self.metrics.namespaces_over_share(index.namespaces_over_share());
    }
}
