//! Warning Events: about pods that miss their credentials, policies whose status can't be written, a missing webhook
//! configuration. Whoever has something to tell puts a [`Notice`] into the queue and goes on.

use crate::{
    leader::Leader,
    metrics::{EventOutcome, Metrics},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::{convert::Infallible, sync::Arc};
use tokenscope_core::text::up_to;
use tokenscope_platform::telemetry;
use tokio::{sync::mpsc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How many Events may wait to be written.
const QUEUE: usize = 256;
/// Between two Events, whatever they are about.
const PAUSE: Duration = Duration::from_millis(100);
/// The API's own bound (events.k8s.io/v1, note).
const MOST_BYTES: usize = 1024;
/// Where the API has Events about objects without a namespace.
const OF_THE_CLUSTER: &str = "default";

/// What is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// The Event's name. The API server refuses to have one twice, so when another operator takes over nobody is told again.
    pub(crate) name: String,
    /// The object that it is about.
    pub(crate) about: ObjectReference,
    /// Why.
    pub(crate) reason: EventReason,
    /// A sentence; what is over 1,024 bytes is cut off.
    pub(crate) message: String,
}

/// Why something is told: a word to search for, `kubectl get events --field-selector reason=…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventReason {
    /// A pod runs without the credentials that it should have.
    CredentialsMissed,
    /// The status of a policy can't be written.
    StatusNotWritten,
    /// There is no webhook configuration.
    WebhookConfigurationMissing,
}

impl EventReason {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsMissed => "CredentialsMissed",
            Self::StatusNotWritten => "StatusNotWritten",
            Self::WebhookConfigurationMissing => "WebhookConfigurationMissing",
        }
    }
}

/// Takes notices without ever waiting.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    queue: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
}

impl EventSender {
    /// One that puts notices into this queue.
    pub(crate) fn new(queue: mpsc::Sender<Notice>, metrics: Arc<Metrics>) -> Self {
        Self { queue, metrics }
    }

    /// Has a notice written, unless too many wait.
    pub(crate) fn send(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.metrics.event(EventOutcome::Delayed);
        }
    }

    /// Whether there is room for so many more; it is counted where there is not.
    pub(crate) fn has_room_for(&self, notices: usize) -> bool {
        let has_room = self.queue.capacity() >= notices;
        if !has_room {
            self.metrics.event(EventOutcome::Delayed);
        }
        has_room
    }
}

/// Writes Events, as long as this process is the one that writes.
pub(crate) struct EventWriter {
    queue: mpsc::Receiver<Notice>,
    client: Client,
    leader: Leader,
    /// The process's own name.
    instance: String,
    metrics: Arc<Metrics>,
}

/// Both ends of the queue.
pub(crate) fn queue(
    client: Client,
    leader: Leader,
    instance: &str,
    metrics: Arc<Metrics>,
) -> (EventSender, EventWriter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = EventWriter {
        queue,
        client,
        leader,
        instance: instance.to_owned(),
        metrics: metrics.clone(),
    };
    (EventSender::new(sender, metrics), writer)
}

impl EventWriter {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while let Some(Some(notice)) = stop.run_until_cancelled(self.queue.recv()).await {
            if self.leader.is_leader() {
                self.write(&event(notice, &self.instance, Timestamp::now())).await;
                tokio::time::sleep(PAUSE).await;
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn write(&self, event: &Event) {
        let namespace = event.metadata.namespace.as_deref().unwrap_or(OF_THE_CLUSTER);
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let outcome = match api.create(&PostParams::default(), event).await {
            Ok(_) => EventOutcome::Written,
            Err(kube::Error::Api(status)) if status.is_already_exists() => EventOutcome::Known,
            Err(error) => {
                let about = event.involved_object.name.as_deref().unwrap_or_default();
                tracing::warn!(
                    namespace,
                    about,
                    error = telemetry::chain(&error),
                    "an Event could not be written"
                );
                EventOutcome::Failed
            }
        };
        self.metrics.event(outcome);
    }
}

fn event(notice: Notice, instance: &str, now: Timestamp) -> Event {
    let mut message = notice.message;
    message.truncate(up_to(&message, MOST_BYTES).len());
    let component = "tokenscope-operator".to_owned();
    Event {
        metadata: ObjectMeta {
            name: Some(notice.name),
            namespace: Some(notice.about.namespace.clone().unwrap_or_else(|| OF_THE_CLUSTER.into())),
            ..ObjectMeta::default()
        },
        involved_object: notice.about,
        type_: Some("Warning".into()),
        reason: Some(notice.reason.as_str().into()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(component.clone()),
            host: None,
        }),
        reporting_component: Some(component),
        reporting_instance: Some(instance.into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(namespace: Option<&str>, message: &str) -> Notice {
        let about = ObjectReference {
            namespace: namespace.map(str::to_owned),
            ..ObjectReference::default()
        };
        Notice {
            name: "n".into(),
            about,
            reason: EventReason::CredentialsMissed,
            message: message.into(),
        }
    }

    #[test]
    fn an_event_stands_beside_what_it_is_about_or_in_default() {
        let of = |namespace| {
            event(notice(namespace, ""), "me", Timestamp::UNIX_EPOCH)
                .metadata
                .namespace
        };
        assert_eq!(of(Some("shop")).as_deref(), Some("shop"));
        assert_eq!(of(None).as_deref(), Some("default"));
    }

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        let message = event(notice(None, &"ä".repeat(1000)), "me", Timestamp::UNIX_EPOCH).message;
        assert_eq!(message, Some("ä".repeat(512)));
    }
}
