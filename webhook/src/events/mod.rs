//! Warning Events about refusals, on the objects that create the pods: whoever asked a Deployment for pods never sees
//! the answer to a review.
//!
//! A review says who owns the pod, and anybody may have written that. So an Event is about an owner that exists with that UID,
//! in the pod's own namespace, and each namespace has its own bound.

mod owner;
mod queue;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokenscope_core::text::up_to;
use tokenscope_platform::telemetry::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;
use crate::review::OwnerEvent;

use queue::{Pushed, Queue};

/// A reason that people may search for: `kubectl get events --field-selector reason=CredentialsRefused`.
pub const REASON: &str = "CredentialsRefused";

/// Between two Events, whatever they are about.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the API server has to say whether an owner exists, and again to take an Event.
const DEADLINE: Duration = Duration::from_secs(2);
/// The API's own bound (events.k8s.io/v1, note).
const MOST_BYTES: usize = 1024;

/// Takes refusals without ever waiting. A clone feeds the same queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: Arc<Mutex<Queue>>,
    /// Wakes the writer up; without a sender left it ends.
    wake: mpsc::Sender<()>,
    metrics: Metrics,
}

/// Writes what [`Events`] take.
pub struct Writer {
    queue: Arc<Mutex<Queue>>,
    woken: mpsc::Receiver<()>,
    client: Client,
    /// The process's own name.
    instance: String,
    metrics: Metrics,
    clock: fn() -> Timestamp,
}

/// Why an Event was not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("there is no such owner with that UID")]
    NoOwner,
    #[error("{0}")]
    Api(String),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
}

impl From<kube::Error> for Unwritten {
    fn from(error: kube::Error) -> Self {
        Self::Api(chain(&error))
    }
}

/// Both ends.
pub fn events(client: Client, instance: &str, clock: fn() -> Timestamp, metrics: Metrics) -> (Events, Writer) {
    let queue = Arc::<Mutex<Queue>>::default();
    // Who is to be woken up already needs no second word.
    let (wake, woken) = mpsc::channel(1);
    let events = Events {
        queue: queue.clone(),
        wake,
        metrics: metrics.clone(),
    };
    let writer = Writer {
        queue,
        woken,
        client,
        instance: instance.to_owned(),
        metrics,
        clock,
    };
    (events, writer)
}

impl Events {
    /// Has an Event written, unless the owner is of no built-in kind or too many of its namespace wait.
    pub fn report(&self, mut refusal: OwnerEvent) {
        if owner::resource(&refusal.owner).is_none() {
            self.metrics.events_without_owner.inc();
            return;
        }
        let end = up_to(&refusal.message, MOST_BYTES).len();
        refusal.message.truncate(end);
        let pushed = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(refusal, Instant::now());
        if pushed == Pushed::Dropped {
            self.metrics.events_dropped.inc();
        }
        // It fails where the writer is to be woken up already, or is gone.
        let _ = self.wake.try_send(());
    }
}

impl Writer {
    /// Writes until all [`Events`] are gone and the queue is empty.
    pub async fn run(mut self) -> Result<(), Infallible> {
        loop {
            while let Some(refusal) = self.next() {
                match self.write(&refusal).await {
                    Ok(()) => {}
                    Err(Unwritten::NoOwner) => drop(self.metrics.events_without_owner.inc()),
                    Err(why) => {
                        self.metrics.events_failed.inc();
                        let (namespace, owner) = (&*refusal.namespace, &*refusal.owner.name);
                        tracing::warn!(namespace, owner, %why, "an Event could not be written");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            if self.woken.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn next(&self) -> Option<OwnerEvent> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn write(&self, refusal: &OwnerEvent) -> Result<(), Unwritten> {
        let exists = owner::exists(&self.client, &refusal.namespace, &refusal.owner);
        if !timeout(DEADLINE, exists).await?? {
            return Err(Unwritten::NoOwner);
        }
        let api = Api::<Event>::namespaced(self.client.clone(), &refusal.namespace);
        timeout(DEADLINE, api.create(&PostParams::default(), &self.event(refusal))).await??;
        Ok(())
    }

    fn event(&self, refusal: &OwnerEvent) -> Event {
        let now = Some(Time((self.clock)()));
        let component = "tokenscope-webhook".to_owned();
        Event {
            metadata: ObjectMeta {
                generate_name: Some("tokenscope-".to_owned()),
                namespace: Some(refusal.namespace.to_string()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(refusal.owner.api_version.to_string()),
                kind: Some(refusal.owner.kind.to_string()),
                name: Some(refusal.owner.name.to_string()),
                uid: Some(refusal.owner.uid.to_string()),
                namespace: Some(refusal.namespace.to_string()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some(REASON.to_owned()),
            message: Some(refusal.message.clone()),
            count: Some(1),
            first_timestamp: now.clone(),
            last_timestamp: now,
            source: Some(EventSource {
                component: Some(component.clone()),
                host: None,
            }),
            reporting_component: Some(component),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenscope_core::pod::OwnerReference;
    use tokenscope_platform::metrics::Registry;

    fn ends() -> (Events, Writer) {
        let api_server = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
        });
        let client = Client::new(api_server, "default");
        events(
            client,
            "webhook-0",
            || Timestamp::UNIX_EPOCH,
            Metrics::new(&Registry::new()),
        )
    }

    fn refusal(kind: &str, name: &str) -> OwnerEvent {
        OwnerEvent {
            namespace: "shop".into(),
            owner: OwnerReference {
                api_version: "apps/v1".into(),
                kind: kind.into(),
                name: name.into(),
                uid: "u-1".into(),
                controller: Some(true),
            },
            message: "ä".repeat(600),
        }
    }

    #[tokio::test]
    async fn a_long_message_is_cut_where_a_character_ends() {
        let (events, writer) = ends();
        events.report(refusal("ReplicaSet", "orders-1"));
        let event = writer.event(&writer.next().unwrap());
        assert_eq!(event.message.unwrap().len(), MOST_BYTES);
    }

    #[tokio::test]
    async fn owners_that_can_not_exist_are_counted_and_never_asked_for() {
        let (events, writer) = ends();
        let long = "a".repeat(254);
        for (kind, name) in [
            ("Rollout", "orders-1"),
            ("ReplicaSet", "../pods"),
            ("ReplicaSet", &*long),
            ("ReplicaSet", ""),
        ] {
            events.report(refusal(kind, name));
        }
        let mut long_uid = refusal("ReplicaSet", "orders-1");
        long_uid.owner.uid = "u".repeat(1 << 20).into();
        events.report(long_uid);
        assert!(writer.next().is_none());
        assert_eq!(writer.metrics.events_without_owner.get(), 5);
    }

    #[tokio::test]
    async fn more_than_a_namespace_may_have_waiting_are_dropped_and_counted() {
        let (events, writer) = ends();
        for number in 0..queue::MOST_OF_A_NAMESPACE + 3 {
            let mut refusal = refusal("ReplicaSet", "orders-1");
            refusal.owner.uid = number.to_string().into();
            events.report(refusal);
        }
        assert_eq!(writer.metrics.events_dropped.get(), 3);
    }
}
