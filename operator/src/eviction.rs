//! The pace at which pods may be evicted.
//!
//! An eviction is a disruption, so it happens only while the webhook has shown that it works, slowly, and one pod of a
//! controller after the other: the next one goes when the one that took the place of the last one is ready. Disruption
//! budgets are kept by the API server.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client};

use crate::index::{Finding, PodKey, Siblings};

/// The time between any two evictions.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The time between two evictions in one namespace.
const NAMESPACE_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The time for which a pod is not tried again: its eviction was refused, or it is on its way out.
const REFUSED_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// The longest wait for the pod that takes an evicted one's place. A controller that was scaled down makes none.
const REPLACEMENT_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// The times of the last evictions.
#[derive(Default)]
pub(crate) struct Pace {
    last: Option<Timestamp>,
    /// The last try of each pod, by its UID. All three maps forget what no longer holds anything back, so the pause between two bounds them.
    pods: HashMap<Box<str>, Timestamp>,
    namespaces: HashMap<Box<str>, Timestamp>,
    /// The last eviction of each controller's pods, by namespace and UID.
    controllers: HashMap<(Box<str>, Box<str>), Timestamp>,
}

impl Pace {
    /// True if a pod may be evicted now, which is noted if so.
    pub(crate) fn may_evict(
        &mut self,
        namespace: &str,
        finding: &Finding,
        is_ready: bool,
        siblings: Siblings,
        now: Timestamp,
    ) -> bool {
        let Some(controller) = finding.controller.as_ref().filter(|_| finding.evictable) else {
            return false;
        };
        self.forget(now);
        if self.last.is_some_and(|last| now < last + PAUSE)
            || self.namespaces.contains_key(namespace)
            || self.pods.contains_key(&finding.uid)
        {
            return false;
        }
        // One that is not ready serves nobody, so that its eviction takes nothing away.
        let is_replaced = |evicted: &Timestamp| {
            // Times of creation have whole seconds.
            let second = evicted.as_second();
            siblings
                .youngest_ready
                .is_some_and(|created| created.as_second() >= second)
        };
        let controller: (Box<str>, Box<str>) = (namespace.into(), controller.clone());
        let all_are_ready = siblings.unready == 0 && self.controllers.get(&controller).is_none_or(is_replaced);
        if is_ready && !all_are_ready {
            return false;
        }
        self.last = Some(now);
        self.pods.insert(finding.uid.clone(), now);
        self.namespaces.insert(namespace.into(), now);
        self.controllers.insert(controller, now);
        true
    }

    /// The pod stays: no other one takes its place, so none is waited for.
    pub(crate) fn note_refused(&mut self, namespace: &str, finding: &Finding) {
        if let Some(controller) = &finding.controller {
            self.controllers
                .remove(&(Box::<str>::from(namespace), controller.clone()));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        self.pods.retain(|_, at| now < *at + REFUSED_PAUSE);
        self.namespaces.retain(|_, at| now < *at + NAMESPACE_PAUSE);
        self.controllers.retain(|_, at| now < *at + REPLACEMENT_WAIT);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Cause;

    const ALL_READY: Siblings = Siblings {
        unready: 0,
        youngest_ready: Some(Timestamp::UNIX_EPOCH),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn finding(uid: &str, controller: &str) -> Finding {
        Finding {
            cause: Cause::Missed,
            since: at(0),
            uid: uid.into(),
            controller: Some(controller.into()),
            evictable: true,
        }
    }

    fn ready(pace: &mut Pace, namespace: &str, finding: &Finding, now: i64) -> bool {
        pace.may_evict(namespace, finding, true, ALL_READY, at(now))
    }

    #[test]
    fn one_pod_a_second_is_evicted_and_one_in_ten_seconds_of_a_namespace() {
        let mut pace = Pace::default();
        let (a, b, c) = (finding("a", "one"), finding("b", "two"), finding("c", "three"));
        assert!(ready(&mut pace, "shop", &a, 100));
        assert!(!ready(&mut pace, "bank", &b, 100));
        assert!(ready(&mut pace, "bank", &b, 101));
        assert!(!ready(&mut pace, "shop", &c, 109));
        assert!(ready(&mut pace, "shop", &c, 110));
    }

    #[test]
    fn a_pod_whose_eviction_was_refused_waits_longer_than_others() {
        let mut pace = Pace::default();
        let unready = |pace: &mut Pace, uid: &str, now| {
            pace.may_evict("shop", &finding(uid, "one"), false, Siblings::default(), at(now))
        };
        assert!(unready(&mut pace, "a", 100));
        assert!(!unready(&mut pace, "a", 129));
        assert!(unready(&mut pace, "a", 130));
    }

    #[test]
    fn a_ready_pod_that_a_disruption_budget_kept_is_tried_again_without_waiting_for_another_one_in_its_place() {
        let mut pace = Pace::default();
        let kept = finding("a", "one");
        assert!(ready(&mut pace, "shop", &kept, 100));
        pace.note_refused("shop", &kept);
        assert!(!ready(&mut pace, "shop", &kept, 129));
        assert!(ready(&mut pace, "shop", &kept, 130));
    }

    #[test]
    fn the_next_ready_pod_of_a_controller_waits_for_the_one_that_took_the_last_ones_place() {
        let mut pace = Pace::default();
        let with = |unready, youngest| Siblings {
            unready,
            youngest_ready: Some(at(youngest)),
        };
        let mut may = |uid, siblings, now| pace.may_evict("shop", &finding(uid, "one"), true, siblings, at(now));
        assert!(!may("a", with(1, 50), 100), "one of the others is not ready already");
        assert!(may("a", with(0, 50), 100));
        assert!(!may("b", with(0, 50), 120), "the new one is not there yet");
        assert!(!may("b", with(1, 50), 140), "the new one is not ready yet");
        assert!(may("b", with(0, 105), 150));
        assert!(!may("c", with(0, 105), 449), "no new one was made");
        assert!(may("c", with(0, 105), 450), "it was scaled down");
    }

    #[test]
    fn an_eviction_in_another_namespace_holds_no_pod_back_that_names_the_same_controller() {
        let mut pace = Pace::default();
        assert!(ready(&mut pace, "hostile", &finding("a", "one"), 100));
        assert!(ready(&mut pace, "shop", &finding("b", "one"), 101));
    }

    #[test]
    fn a_pod_that_nobody_would_make_anew_stays() {
        let alone = Finding {
            controller: None,
            ..finding("a", "")
        };
        let undecided = Finding {
            evictable: false,
            ..finding("a", "one")
        };
        for stays in [alone, undecided] {
            assert!(!Pace::default().may_evict("shop", &stays, false, ALL_READY, at(100)));
        }
    }
}
