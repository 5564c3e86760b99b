//! The task that writes Events, one after the other.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Event, EventSource as LegacySource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::PostParams;
use kube::core::{DynamicObject, ObjectMeta};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use super::{EventLimits, EventOutcome, EventSource, Notice, lock};
use crate::telemetry::chain;

/// Writes what [`EventSender`](super::EventSender)s take.
pub struct EventWriter {
    pub(super) queue: Arc<Mutex<Queue>>,
    pub(super) woken: mpsc::Receiver<()>,
    pub(super) source: EventSource,
    pub(super) limits: EventLimits,
}

/// The reason why an Event was not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("there is no such object with that UID")]
    NoObject,
    #[error("the API server does not take it")]
    Api(#[from] kube::Error),
    #[error("the API server does not answer in time")]
    Late(#[from] Elapsed),
}

impl EventWriter {
    /// Writes until `stop`, or until all senders are gone and the queue is empty.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while stop.run_until_cancelled(self.write_all()).await.is_some() {
            if !matches!(stop.run_until_cancelled(self.woken.recv()).await, Some(Some(()))) {
                break;
            }
        }
        Ok(())
    }

    /// The next notice: the oldest of the namespace whose turn it is.
    pub fn next_notice(&self) -> Option<Notice> {
        lock(&self.queue).pop()
    }

    async fn write_all(&self) {
        while let Some(notice) = self.next_notice() {
            if (self.source.is_leader)() {
                let outcome = self.outcome(&notice).await;
                (self.source.count)(outcome);
                sleep(self.limits.pause).await;
            }
        }
    }

    async fn outcome(&self, notice: &Notice) -> EventOutcome {
        match self.write(notice).await {
            Ok(()) => EventOutcome::Written,
            Err(Unwritten::NoObject) => EventOutcome::NoObject,
            Err(Unwritten::Api(kube::Error::Api(status))) if status.is_already_exists() => EventOutcome::Known,
            Err(error) => {
                let (namespace, about) = (notice.namespace(), notice.about.name.as_deref().unwrap_or_default());
                let error = chain(&error);
                tracing::warn!(namespace, about, error, "an Event could not be written");
                EventOutcome::Failed
            }
        }
    }

    async fn write(&self, notice: &Notice) -> Result<(), Unwritten> {
        if !timeout(self.limits.deadline, self.exists(notice)).await?? {
            return Err(Unwritten::NoObject);
        }
        let api = Api::<Event>::namespaced(self.source.client.clone(), notice.namespace());
        let event = self.event(notice);
        timeout(self.limits.deadline, api.create(&PostParams::default(), &event)).await??;
        Ok(())
    }

    async fn exists(&self, notice: &Notice) -> kube::Result<bool> {
        let Some(resource) = &notice.verified_as else {
            return Ok(true);
        };
        let (client, name) = (self.source.client.clone(), notice.about.name.as_deref());
        let api = Api::<DynamicObject>::namespaced_with(client, notice.namespace(), resource);
        let found = api.get_metadata_opt(name.unwrap_or_default()).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.is_some() && found.metadata.uid == notice.about.uid))
    }

    pub(super) fn event(&self, notice: &Notice) -> Event {
        let now = Some(Time((self.source.clock)()));
        let component = self.source.component.to_owned();
        Event {
            metadata: ObjectMeta {
                name: notice.name.clone(),
                generate_name: notice.name.is_none().then(|| "tokenscope-".to_owned()),
                namespace: Some(notice.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: notice.about.clone(),
            type_: Some("Warning".to_owned()),
            reason: Some(notice.reason.to_owned()),
            message: Some(notice.message.clone()),
            count: Some(1),
            first_timestamp: now.clone(),
            last_timestamp: now,
            source: Some(LegacySource {
                component: Some(component.clone()),
                host: None,
            }),
            reporting_component: Some(component),
            reporting_instance: Some(self.source.instance.clone()),
            ..Event::default()
        }
    }
}
