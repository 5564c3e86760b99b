//! Warning Events: about pods that miss their credentials, policies whose status can't be written, a missing webhook
//! configuration. Their names are the same in every replica, so that one that takes over does not repeat them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
pub(crate) use tokenscope_index::EventReason;
use tokenscope_platform::events::{self, EventLimits, EventSource};
pub(crate) use tokenscope_platform::events::{EventSender, EventWriter, Notice};

use crate::leader::Leader;
use crate::metrics::OperatorMetrics;

/// Whoever has several Events to write asks for room first. A namespace takes a part of the room alone, since the Events of very many pods
/// take minutes; namespaces take turns.
const LIMITS: EventLimits = EventLimits {
    waiting: 256,
    waiting_of_a_namespace: 32,
    repeat: Duration::ZERO,
    remembered_of_a_namespace: 256,
    namespaces: 1024,
    pause: Duration::from_millis(100),
    deadline: Duration::from_secs(10),
};

/// Both ends of the queue.
pub(crate) fn queue(
    client: Client,
    leader: Leader,
    instance: &str,
    metrics: Arc<OperatorMetrics>,
) -> (EventSender, EventWriter) {
    let source = EventSource {
        client,
        component: "tokenscope-operator",
        instance: instance.to_owned(),
        is_leader: Box::new(move || leader.is_leader()),
        clock: Timestamp::now,
        count: Arc::new(move |outcome| metrics.event(outcome)),
    };
    events::queue(source, LIMITS)
}
