//! What happens to pods that run without what they should have: Warning Events on them and their owners, and, where the
//! installation allows it, their eviction.

use crate::{
    leader::Leader,
    metrics::{EventOutcome, Metrics},
    world::{Missed, PodKey, Report},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{DeleteParams, EvictParams, ObjectMeta, PostParams, Preconditions},
};
use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::Arc,
};
use tokenscope_core::pod::OwnerReference;
use tokenscope_platform::telemetry;
use tokio::{sync::mpsc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A reason that people may search for: `kubectl get events --field-selector reason=CredentialsMissed`.
pub(crate) const REASON: &str = "CredentialsMissed";

/// For how long a pod must be known as missed: watches don't arrive in the order in which things happened.
pub(crate) const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// How many Events may wait to be written.
const QUEUE: usize = 256;
/// Between two Events, whatever they are about.
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// How many owners are remembered, so that each is told once, not once a pod.
const REMEMBERED: usize = 4096;
/// The API's own bound (events.k8s.io/v1, note).
const MOST_BYTES: usize = 1024;

/// Between two evictions while pods are reviewed again.
const EVICTION_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Between two evictions while nothing shows that the webhook is back: what comes instead may be missed as well.
const PROBE_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// After a refused eviction, for the same pod.
const REFUSED_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// Which pods were told of and evicted.
#[derive(Default)]
pub(crate) struct Progress {
    told: HashSet<Box<str>>,
    evicted: BTreeMap<Box<str>, Timestamp>,
    last_eviction: Option<Timestamp>,
}

impl Progress {
    /// Whether the pod of this UID was told of.
    pub(crate) fn is_told(&self, uid: &str) -> bool {
        self.told.contains(uid)
    }

    /// Notes that it was.
    pub(crate) fn note_told(&mut self, uid: &str) {
        self.told.insert(uid.into());
    }

    /// Forgets all pods but these.
    pub(crate) fn keep(&mut self, is_missed: impl Fn(&str) -> bool) {
        self.told.retain(|uid| is_missed(uid));
        self.evicted.retain(|uid, _| is_missed(uid));
    }

    /// Whether a pod may be evicted now, which is noted if so. `last_reviewed` is when the latest pod was created that the
    /// webhook has seen.
    pub(crate) fn may_evict(&mut self, pod: &Missed, last_reviewed: Timestamp, now: Timestamp) -> bool {
        let alive = pod.created < last_reviewed;
        let pause = if alive { EVICTION_PAUSE } else { PROBE_PAUSE };
        let too_early = self.last_eviction.is_some_and(|last| now < last + pause);
        let tried_lately = |at: &Timestamp| now < *at + REFUSED_PAUSE;
        if !pod.replaceable || too_early || self.evicted.get(&pod.uid).is_some_and(tried_lately) {
            return false;
        }
        self.last_eviction = Some(now);
        self.evicted.insert(pod.uid.clone(), now);
        true
    }
}

/// Evicts a pod if it is still the same one and its disruption budgets allow it.
pub(crate) async fn evict(client: Client, (namespace, name): PodKey, uid: Box<str>) -> Result<(), kube::Error> {
    let params = EvictParams {
        delete_options: Some(DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.into()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        }),
        ..EvictParams::default()
    };
    Api::<Pod>::namespaced(client, &namespace)
        .evict(&name, &params)
        .await
        .map(drop)
}

/// Takes reports without ever waiting.
pub(crate) type Reporter = mpsc::Sender<(Box<str>, Report)>;

/// Writes Events.
pub(crate) struct Writer {
    queue: mpsc::Receiver<(Box<str>, Report)>,
    client: Client,
    leader: Leader,
    /// The process's own name.
    instance: String,
    metrics: Arc<Metrics>,
    owners: HashSet<Box<str>>,
}

/// Both ends.
pub(crate) fn events(client: Client, leader: Leader, instance: &str, metrics: Arc<Metrics>) -> (Reporter, Writer) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = Writer {
        queue,
        client,
        leader,
        instance: instance.to_owned(),
        metrics,
        owners: HashSet::new(),
    };
    (sender, writer)
}

impl Writer {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while let Some(Some((namespace, report))) = stop.run_until_cancelled(self.queue.recv()).await {
            if !self.leader.may_write() {
                continue;
            }
            for event in self.events(&namespace, &report, Timestamp::now()) {
                self.write(&namespace, &event).await;
                tokio::time::sleep(EVENT_PAUSE).await;
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    /// One on the pod, and one on its owner if that was not told yet.
    fn events(&mut self, namespace: &str, report: &Report, now: Timestamp) -> Vec<Event> {
        let pod = &report.pod;
        let itself = OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: None,
        };
        let mut events = vec![self.event(namespace, &itself, format!("it {}", report.message), now)];
        if let Some(owner) = &pod.owner {
            if self.owners.len() >= REMEMBERED {
                // Their Events have names of their own, so that the API server refuses to have one twice.
                self.owners.clear();
            }
            if self.owners.insert(owner.uid.clone()) {
                let message = format!("its pod {} (and maybe others) {}", pod.name, report.message);
                events.push(self.event(namespace, owner, message, now));
            }
        }
        events
    }

    /// The name comes from what it is about: when another operator takes over, nobody is told twice.
    fn event(&self, namespace: &str, about: &OwnerReference<Box<str>>, mut message: String, now: Timestamp) -> Event {
        let end = (0..=message.len().min(MOST_BYTES))
            .rev()
            .find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or_default());
        let component = "tokenscope-operator".to_owned();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("tokenscope-missed.{}", about.uid)),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(about.api_version.to_string()),
                kind: Some(about.kind.to_string()),
                name: Some(about.name.to_string()),
                uid: Some(about.uid.to_string()),
                namespace: Some(namespace.into()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".into()),
            reason: Some(REASON.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(component.clone()),
                host: None,
            }),
            reporting_component: Some(component),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    async fn write(&self, namespace: &str, event: &Event) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn missed(uid: &str, created: i64) -> Missed {
        Missed {
            since: at(created),
            uid: uid.into(),
            created: at(created),
            replaceable: true,
        }
    }

    #[test]
    fn one_pod_a_second_is_evicted_while_newer_pods_are_reviewed() {
        let mut progress = Progress::default();
        let (a, b) = (missed("a", 10), missed("b", 10));

        assert!(progress.may_evict(&a, at(20), at(100)));
        assert!(!progress.may_evict(&b, at(20), at(100)));
        assert!(progress.may_evict(&b, at(20), at(101)));
        assert!(
            !progress.may_evict(&a, at(20), at(102)),
            "it was refused or is on its way out"
        );
        assert!(progress.may_evict(&a, at(20), at(130)));
    }

    #[test]
    fn while_nothing_shows_that_the_webhook_is_back_one_pod_is_tried_every_five_minutes() {
        let mut progress = Progress::default();
        assert!(progress.may_evict(&missed("a", 50), at(20), at(100)));
        assert!(!progress.may_evict(&missed("b", 60), at(20), at(399)));
        assert!(progress.may_evict(&missed("b", 60), at(20), at(400)));
    }

    #[test]
    fn a_pod_that_nobody_would_make_anew_stays() {
        let alone = Missed {
            replaceable: false,
            ..missed("a", 10)
        };
        assert!(!Progress::default().may_evict(&alone, at(20), at(100)));
    }

    #[test]
    fn what_is_no_longer_missed_is_forgotten() {
        let mut progress = Progress::default();
        progress.note_told("a");
        progress.keep(|uid| uid == "b");
        assert!(!progress.is_told("a"));
    }
}
