//! The connection that gives way when all slots are taken.
//!
//! The rule is that of a segmented LRU cache. Newcomers, which have finished no request yet, share one half of the slots, and
//! those that have finished one the other: a flood of new connections only displaces newcomers, and clients that hold many
//! established connections can't keep newcomers out. What is under way is spared as long as something else can go, and of
//! equals the one that has stood still the longest goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::eviction::{Evictable, Membership};
use crate::metrics::Registry;

/// The time that a handshake or a request is spared: honest ones take some milliseconds.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The metrics of a listener; a clone counts into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    evicted: Counter,
}

impl ConnectionMetrics {
    /// Shows the numbers as `tokenscope_<listener>_connections` and `tokenscope_<listener>_connections_evicted_total`.
    pub fn registered(registry: &Registry, listener: &str) -> Self {
        let this = Self::default();
        registry.register(
            &format!("{listener}_connections"),
            "Open connections, those in their handshake included",
            this.open.clone(),
        );
        registry.register(
            &format!("{listener}_connections_evicted"),
            "Connections that were closed because another one needed their slot",
            this.evicted.clone(),
        );
        this
    }
}

/// The connections of one listener.
pub(super) struct Crowd {
    slots: Arc<Semaphore>,
    most: usize,
    members: Arc<Evictable<Activity>>,
    began: Instant,
    metrics: ConnectionMetrics,
}

/// A connection's place, until it is dropped.
pub(super) struct ConnectionSlot {
    member: Membership<Activity>,
    open: Gauge,
    _slot: OwnedSemaphorePermit,
}

/// An extension of each request: what makes its connection give way. Whoever bounds what requests hold cancels it where one
/// holds an answer that its client does not take; the other requests of that connection go with it.
#[derive(Clone, Debug)]
pub struct GiveWay(pub CancellationToken);

/// The activity of a connection. Times are in milliseconds after the listener began.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<ActivityCounters>);

#[derive(Debug)]
struct ActivityCounters {
    began: Instant,
    /// Requests that run, by whether they began in an even or an odd turn.
    running: [AtomicU32; 2],
    turn: AtomicUsize,
    finished: AtomicU64,
    /// The time at which the last request began or ended, or the connection began.
    since: AtomicU64,
}

impl Crowd {
    pub(super) fn new(most: usize, metrics: ConnectionMetrics) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(most)),
            most,
            members: Arc::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// A place for a new connection: where none is free, another connection gives way.
    pub(super) async fn place(&self) -> Option<ConnectionSlot> {
        let slot = if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            slot
        } else {
            self.make_room();
            self.slots.clone().acquire_owned().await.ok()?
        };
        self.metrics.open.inc();
        Some(ConnectionSlot {
            member: self.members.join(Activity::new(self.began)),
            open: self.metrics.open.clone(),
            _slot: slot,
        })
    }

    fn make_room(&self) {
        let newcomers_go = self.members.count(Activity::is_newcomer) * 2 > self.most;
        let evicted = self.members.evict(|activity| {
            let other_segment = activity.is_newcomer() != newcomers_go;
            let under_way = activity.is_under_way();
            // A flood of requests that never end must not displace established connections either.
            let spared = if newcomers_go {
                (other_segment, under_way)
            } else {
                (under_way, other_segment)
            };
            Some((spared, activity.since()))
        });
        if evicted {
            self.metrics.evicted.inc();
        }
    }
}

impl ConnectionSlot {
    pub(super) fn activity(&self) -> &Activity {
        &self.member
    }

    /// The signal that makes the connection give way, for its requests.
    pub(super) fn give_way(&self) -> GiveWay {
        GiveWay(self.member.eviction().clone())
    }

    /// Ends once the connection must give way.
    pub(super) async fn evicted(&self) {
        self.member.evicted().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Activity {
    fn new(began: Instant) -> Self {
        let this = Self(Arc::new(ActivityCounters {
            began,
            running: [AtomicU32::new(0), AtomicU32::new(0)],
            turn: AtomicUsize::new(0),
            finished: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }));
        this.touch();
        this
    }

    /// A request runs until what this returns is dropped.
    pub(super) fn request(&self) -> RunningRequest {
        let turn = self.0.turn.load(Ordering::Relaxed) % 2;
        self.0.running[turn].fetch_add(1, Ordering::Relaxed);
        self.touch();
        RunningRequest {
            activity: self.clone(),
            turn,
        }
    }

    /// True if it has not finished any request yet.
    pub(super) fn is_newcomer(&self) -> bool {
        self.0.finished.load(Ordering::Relaxed) == 0
    }

    /// True if a request runs.
    pub(super) fn is_busy(&self) -> bool {
        self.0.running.iter().any(|running| running.load(Ordering::Relaxed) > 0)
    }

    /// Begins another turn. Whether a request still runs that began before the last one.
    pub(super) fn turn(&self) -> bool {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        self.0.running[(turn + 1) % 2].load(Ordering::Relaxed) > 0
    }

    /// True if a handshake or a request runs that has had little time yet.
    fn is_under_way(&self) -> bool {
        (self.is_newcomer() || self.is_busy()) && self.still_for() < UNDER_WAY
    }

    /// For how long no request has begun or ended.
    pub(super) fn still_for(&self) -> Duration {
        let since = Duration::from_millis(self.since());
        self.0.began.elapsed().saturating_sub(since)
    }

    fn since(&self) -> u64 {
        self.0.since.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        self.0
            .since
            .store(self.0.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// A request, from its headers to the last byte of its answer.
#[derive(Debug)]
pub(super) struct RunningRequest {
    activity: Activity,
    turn: usize,
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let numbers = &self.activity.0;
        numbers.finished.fetch_add(1, Ordering::Relaxed);
        numbers.running[self.turn].fetch_sub(1, Ordering::Relaxed);
        self.activity.touch();
    }
}
