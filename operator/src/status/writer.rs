//! The task that writes statuses: it takes from the index what is dirty, and owns pacing, retries and what is in flight.

use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::core::DynamicObject;
use tokenscope_core::PolicyName;
use tokenscope_crds::v1alpha1::GROUP;
use tokenscope_platform::health::Heartbeat;
use tokenscope_platform::telemetry;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::pacing::Pacing;
use super::statuses;
use super::update::update_status;
use crate::events::{EventReason, EventSender, Notice};
use crate::index::SharedIndex;
use crate::leader::Leader;
use crate::metrics::{OperatorMetrics, WriteOutcome};

/// The most writes that run at a time.
const WRITES: usize = 16;
/// The statuses that are looked at before other tasks have their turn.
const MOST_LOOKS: usize = 256;
/// The longest time between two signs that the task lives.
const TICK: Duration = Duration::from_secs(10);

/// The task.
pub(crate) struct StatusWriter {
    /// For the writes.
    pub(crate) client: Client,
    /// The leadership: the one process that has it writes.
    pub(crate) leader: Leader,
    /// The index of what is known.
    pub(crate) index: SharedIndex,
    /// Takes Events about statuses that can't be written.
    pub(crate) events: EventSender,
    /// The sign that the task lives.
    pub(crate) heartbeat: Heartbeat,
    /// The metrics.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

/// A write that has ended.
struct EndedWrite {
    name: PolicyName,
    uid: Option<String>,
    result: Result<DynamicObject, kube::Error>,
}

type InFlight = FuturesUnordered<BoxFuture<'static, EndedWrite>>;

impl StatusWriter {
    /// Runs until `stop`, and ends the writes that have begun.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let (mut in_flight, mut pacing) = (InFlight::new(), Pacing::default());
        let mut changed = self.index.subscribe();
        let (mut wake, mut leads) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(written) = in_flight.next(), if !in_flight.is_empty() => self.note(written, &mut pacing).await,
                () = self.leader.change() => {}
                Ok(()) = changed.changed() => {}
                () = sleep_until(wake) => {}
            }
            self.heartbeat.touch();
            if self.leader.is_leader() != leads {
                leads = !leads;
                self.metrics.leader.set(i64::from(leads));
                self.index.lock().await.enqueue_all_statuses();
                pacing = Pacing::default();
            }
            wake = Instant::now() + TICK;
            if leads {
                let all = self.begin(&mut in_flight, &mut pacing, Timestamp::now()).await;
                let next = if all { pacing.next() } else { Some(Instant::now()) };
                wake = wake.min(next.unwrap_or(wake));
            }
        }
        while let Some(written) = in_flight.next().await {
            self.note(written, &mut pacing).await;
        }
        Ok(())
    }

    /// Begins writes of status where it is not what it should be; answers whether it has looked at all that may be begun.
    async fn begin(&self, in_flight: &mut InFlight, pacing: &mut Pacing, now: Timestamp) -> bool {
        let instant = Instant::now();
        let mut index = self.index.lock().await;
        if index.waits_for().is_some() {
            return true;
        }
        for name in pacing.take_due(instant) {
            index.enqueue_status(name);
        }
        for _ in 0..MOST_LOOKS {
            if in_flight.len() >= WRITES {
                return true;
            }
            let Some(name) = index.take_dirty_status() else {
                return true;
            };
            // Its answer has it looked at again.
            if pacing.is_waiting(&name) {
                continue;
            }
            let Some((present, wanted)) = statuses(&index, &name, now) else {
                continue;
            };
            if *present == wanted || !pacing.may_begin(&name, present, &wanted, instant) {
                continue;
            }
            let (client, uid) = (self.client.clone(), index.uid(&name).map(str::to_owned));
            in_flight.push(Box::pin(async move {
                let result = update_status(client, &name, uid.as_deref(), &wanted).await;
                EndedWrite { name, uid, result }
            }));
        }
        false
    }

    async fn note(&self, written: EndedWrite, pacing: &mut Pacing) {
        let EndedWrite { name, uid, result } = written;
        let now = Instant::now();
        let mut index = self.index.lock().await;
        let outcome = match result {
            Ok(object) => {
                index.apply_own_write(object, Timestamp::now());
                pacing.note_written(&name, now);
                WriteOutcome::Written
            }
            // It was deleted, as the watch says soon; or its definition has no status at the moment.
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                pacing.note_gone(&name, now);
                WriteOutcome::Gone
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                if pacing.note_failed(&name, now) {
                    tracing::warn!(policy = %name, error, "a status could not be written");
                    self.events.send(unwritten(&name, uid.as_deref(), &error));
                }
                WriteOutcome::Failed
            }
        };
        self.metrics.status_write(outcome);
        // Something may have changed while it was written.
        index.enqueue_status(name);
    }
}

/// That a policy's status is not what it should be, which the status itself can't tell: the API server refuses to store
/// one beside fields that its schema, as it is now, doesn't allow.
fn unwritten(policy: &PolicyName, uid: Option<&str>, error: &str) -> Notice {
    Notice {
        name: Some(format!("tokenscope-status.{}", uid.unwrap_or_else(|| policy.name()))),
        about: ObjectReference {
            api_version: Some(format!("{GROUP}/v1alpha1")),
            kind: Some(policy.kind().into()),
            name: Some(policy.name().to_owned()),
            uid: uid.map(str::to_owned),
            namespace: policy.namespace().map(str::to_owned),
            ..ObjectReference::default()
        },
        verified_as: None,
        reason: EventReason::StatusNotWritten.as_str(),
        message: format!("its status can't be written: {error}; if it names a field of the policy, correct that field"),
    }
}
