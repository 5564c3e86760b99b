//! What happens to pods that run without what they should have: Warning Events on them and their owners, and, where the
//! installation allows it, their eviction.

use crate::{
    events::Notice,
    world::{Missed, PodKey, Report},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, EvictParams, Preconditions},
};
use std::collections::{BTreeMap, HashSet};
use tokenscope_core::pod::OwnerReference;

/// A reason that people may search for: `kubectl get events --field-selector reason=CredentialsMissed`.
pub(crate) const REASON: &str = "CredentialsMissed";

/// For how long a pod must be known as missed: watches don't arrive in the order in which things happened.
pub(crate) const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// How many owners are remembered, so that each is told once, not once a pod.
const REMEMBERED: usize = 4096;

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
    told_owners: HashSet<Box<str>>,
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

    /// Whether an owner of this UID is told of for the first time, which is noted.
    pub(crate) fn is_new_owner(&mut self, uid: &str) -> bool {
        if self.told_owners.len() >= REMEMBERED {
            self.told_owners.clear();
        }
        self.told_owners.insert(uid.into())
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

/// What is told about a missed pod: on itself, and on its owner if `with_owner`.
pub(crate) fn notices(namespace: &str, report: &Report, with_owner: bool) -> Vec<Notice> {
    let Report { pod, message } = report;
    let itself = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: None,
    };
    let mut notices = vec![notice(namespace, &itself, format!("it {message}"))];
    if let Some(owner) = pod.owner.as_ref().filter(|_| with_owner) {
        let of_owner = format!("its pod {} (and maybe others) {message}", pod.name);
        notices.push(notice(namespace, owner, of_owner));
    }
    notices
}

fn notice(namespace: &str, about: &OwnerReference<Box<str>>, message: String) -> Notice {
    Notice {
        name: format!("tokenscope-missed.{}", about.uid),
        about: ObjectReference {
            api_version: Some(about.api_version.to_string()),
            kind: Some(about.kind.to_string()),
            name: Some(about.name.to_string()),
            uid: Some(about.uid.to_string()),
            namespace: Some(namespace.into()),
            ..ObjectReference::default()
        },
        reason: REASON,
        message,
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
