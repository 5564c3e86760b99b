//! Warning Events about refusals, on the objects that create the pods: whoever asked a Deployment for pods never sees
//! the answer to a review.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokenscope_platform::telemetry::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::metrics::Metrics;
use crate::review::{Refusal, up_to};

/// A reason that people may search for: `kubectl get events --field-selector reason=CredentialsRefused`.
pub const REASON: &str = "CredentialsRefused";

/// How many refusals may wait to be written.
const QUEUE: usize = 256;
/// A controller tries again and again: the same about the same is written once in this time.
const REPEAT: Duration = Duration::from_secs(300);
/// How many different refusals are remembered for that.
const REMEMBERED: usize = 1024;
/// Between two Events, whatever they are about.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the API server has to take one.
const DEADLINE: Duration = Duration::from_secs(5);
/// The API's own bound (events.k8s.io/v1, note).
const MOST_BYTES: usize = 1024;

/// Takes refusals without ever waiting. A clone feeds the same queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Refusal>,
    metrics: Metrics,
}

/// Writes what [`Events`] take.
pub struct Writer {
    queue: mpsc::Receiver<Refusal>,
    client: Client,
    /// The process's own name.
    instance: String,
    metrics: Metrics,
    clock: fn() -> Timestamp,
    written: HashMap<(Box<str>, String), Instant>,
}

/// Both ends.
pub fn events(client: Client, instance: &str, clock: fn() -> Timestamp, metrics: Metrics) -> (Events, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let events = Events {
        queue: sender,
        metrics: metrics.clone(),
    };
    let writer = Writer {
        queue: receiver,
        client,
        instance: instance.to_owned(),
        metrics,
        clock,
        written: HashMap::new(),
    };
    (events, writer)
}

impl Events {
    /// Has an Event written, unless too many wait.
    pub fn report(&self, refusal: Refusal) {
        if self.queue.try_send(refusal).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

impl Writer {
    /// Writes until all [`Events`] are gone and the queue is empty.
    pub async fn run(mut self) -> Result<(), Infallible> {
        while let Some(refusal) = self.queue.recv().await {
            if !self.is_new(&refusal, Instant::now()) {
                continue;
            }
            let api = Api::<Event>::namespaced(self.client.clone(), &refusal.namespace);
            let event = self.event(&refusal);
            let why = match timeout(DEADLINE, api.create(&PostParams::default(), &event)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(chain(&error)),
                Err(_) => Some(format!("no answer within {} s", DEADLINE.as_secs())),
            };
            if let Some(why) = why {
                self.metrics.events_failed.inc();
                tracing::warn!(namespace = %refusal.namespace, owner = %refusal.owner.name, why, "an Event could not be written");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether the same has not been written lately.
    fn is_new(&mut self, refusal: &Refusal, now: Instant) -> bool {
        let key = (refusal.owner.uid.clone(), refusal.message.clone());
        if self.written.get(&key).is_some_and(|&at| now - at < REPEAT) {
            return false;
        }
        if self.written.len() >= REMEMBERED {
            self.written.retain(|_, at| now - *at < REPEAT);
        }
        if self.written.len() >= REMEMBERED {
            self.metrics.events_dropped.inc();
            return false;
        }
        self.written.insert(key, now);
        true
    }

    fn event(&self, refusal: &Refusal) -> Event {
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
            message: Some(up_to(&refusal.message, MOST_BYTES).to_owned()),
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

    fn writer() -> (Events, Writer) {
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

    fn refusal(uid: usize) -> Refusal {
        Refusal {
            namespace: "shop".into(),
            owner: OwnerReference {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: "orders-1".into(),
                uid: uid.to_string().into(),
                controller: Some(true),
            },
            message: "ä".repeat(600),
        }
    }

    #[tokio::test]
    async fn the_same_is_written_again_after_five_minutes_only() {
        let (_, mut writer) = writer();
        let now = Instant::now();
        assert!(writer.is_new(&refusal(1), now));
        assert!(!writer.is_new(&refusal(1), now + REPEAT / 2));
        assert!(writer.is_new(&refusal(2), now + REPEAT / 2));
        assert!(writer.is_new(&refusal(1), now + REPEAT));
    }

    #[tokio::test]
    async fn neither_memory_nor_queue_grows_without_end() {
        let (events, mut writer) = writer();
        let now = Instant::now();
        let written = (0..REMEMBERED * 2)
            .filter(|&uid| writer.is_new(&refusal(uid), now))
            .count();
        assert_eq!(written, REMEMBERED);
        assert!(writer.is_new(&refusal(0), now + REPEAT), "old ones make room");

        for uid in 0..QUEUE + 3 {
            events.report(refusal(uid));
        }
        assert_eq!(writer.metrics.events_dropped.get(), REMEMBERED as u64 + 3);
    }

    #[tokio::test]
    async fn a_long_message_is_cut_where_a_character_ends() {
        let (_, writer) = writer();
        let event = writer.event(&refusal(1));
        assert_eq!(event.message.unwrap().len(), MOST_BYTES);
    }
}
