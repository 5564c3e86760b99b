//! Warning Events: a bounded queue that takes notices without ever waiting, and the one task that writes them.
//!
//! Not kube's `Recorder`: it has no bound for each namespace and does not ask whether the object of an Event exists, both of
//! which an attacker would use, and its names are not the same in every process. The reason is these properties, and no figure.

mod queue;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::core::ApiResource;
use queue::{Pushed, Queue};
use tokio::sync::mpsc;
use tokio::time::Instant;
pub use writer::EventWriter;

use crate::text::up_to;

/// The API's own bound of a message (events.k8s.io/v1, note).
pub const MOST_MESSAGE_BYTES: usize = 1024;

/// The namespace of Events about objects without a namespace.
const OF_THE_CLUSTER: &str = "default";

/// The content of an Event.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The Event's name. The API server refuses to have one twice, so processes that agree on it write it once. Without a name
    /// each is another one.
    pub name: Option<String>,
    /// The object that it is about.
    pub about: ObjectReference,
    /// The resource under which the object is asked for before anything is written: without an object of that name and UID
    /// nothing is. None where the object is known.
    pub verified_as: Option<ApiResource>,
    /// A word to search for: `kubectl get events --field-selector reason=…`.
    pub reason: &'static str,
    /// A sentence; what is over [`MOST_MESSAGE_BYTES`] is cut off.
    pub message: String,
}

impl Notice {
    fn namespace(&self) -> &str {
        self.about.namespace.as_deref().unwrap_or(OF_THE_CLUSTER)
    }
}

/// Bounds on the notices that wait and are written.
#[derive(Clone, Copy, Debug)]
pub struct EventLimits {
    /// The most notices that may wait in all.
    pub waiting: usize,
    /// The most notices of one namespace that may wait.
    pub waiting_of_a_namespace: usize,
    /// The same about the same object is written once in this time; zero where names tell.
    pub repeat: Duration,
    /// The most different notices of one namespace that are written in [`Self::repeat`], for so many are remembered.
    pub remembered_of_a_namespace: usize,
    /// Of how many namespaces something is remembered, of each for every peer that tells of it.
    pub namespaces: usize,
    /// Between two Events, whatever they are about.
    pub pause: Duration,
    /// The time that the API server has to say whether an object exists, and again to take an Event.
    pub deadline: Duration,
}

impl EventLimits {
    /// Those of processes that tell of refusals. A notice takes less than 4 KiB. Whoever is refused tries again and again, so the
    /// same about the same is written once in five minutes.
    pub const OF_REFUSALS: Self = Self {
        waiting: 512,
        waiting_of_a_namespace: 16,
        repeat: Duration::from_secs(300),
        remembered_of_a_namespace: 64,
        namespaces: 1024,
        pause: Duration::from_millis(50),
        deadline: Duration::from_secs(2),
    };
}

/// The end of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// It was written.
    Written,
    /// There is an Event of that name already.
    Known,
    /// The API server did not take it.
    Failed,
    /// Too many wait.
    Dropped,
    /// The object that it is about does not exist.
    NoObject,
}

/// The writer, and the conditions under which it writes.
pub struct EventSource {
    /// For the API server.
    pub client: Client,
    /// The program's name.
    pub component: &'static str,
    /// The process's own name.
    pub instance: String,
    /// True if this process writes: a notice whose turn comes while it does not is dropped, since another process has it too.
    pub is_leader: Box<dyn Fn() -> bool + Send + Sync>,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// Counts what becomes of each notice.
    pub count: Arc<dyn Fn(EventOutcome) + Send + Sync>,
}

/// Takes notices without ever waiting. A clone feeds the same queue.
#[derive(Clone)]
pub struct EventSender {
    queue: Arc<Mutex<Queue>>,
    /// Wakes the writer up; without a sender left it ends.
    wake: mpsc::Sender<()>,
    count: Arc<dyn Fn(EventOutcome) + Send + Sync>,
}

impl fmt::Debug for EventSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventSender").finish_non_exhaustive()
    }
}

/// Both ends of a queue.
pub fn queue(source: EventSource, limits: EventLimits) -> (EventSender, EventWriter) {
    let queue = Arc::new(Mutex::new(Queue::new(limits)));
    // Who is to be woken up already needs no second word.
    let (wake, woken) = mpsc::channel(1);
    let sender = EventSender {
        queue: queue.clone(),
        wake,
        count: source.count.clone(),
    };
    let writer = EventWriter {
        queue,
        woken,
        source,
        limits,
    };
    (sender, writer)
}

impl EventSender {
    /// Has a notice written, unless the same was written lately or too many wait.
    pub fn send(&self, notice: Notice) {
        self.take_in(notice, None);
    }

    /// The same of what this peer has told: each has bounds of its own, also where several tell of one namespace.
    pub fn send_for(&self, peer: IpAddr, notice: Notice) {
        self.take_in(notice, Some(peer));
    }

    fn take_in(&self, mut notice: Notice, peer: Option<IpAddr>) {
        let most = up_to(&notice.message, MOST_MESSAGE_BYTES).len();
        notice.message.truncate(most);
        if lock(&self.queue).push(notice, peer, Instant::now()) == Pushed::Dropped {
            (self.count)(EventOutcome::Dropped);
        }
        // It fails where the writer is to be woken up already, or is gone.
        let _ = self.wake.try_send(());
    }

    /// True if there is room for so many more about objects of a namespace; it is counted where there is not.
    pub fn has_room_for(&self, namespace: &str, notices: usize) -> bool {
        let has_room = lock(&self.queue).has_room_for(namespace, notices);
        if !has_room {
            (self.count)(EventOutcome::Dropped);
        }
        has_room
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
