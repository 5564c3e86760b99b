//! What follows for each pod, and what is counted of it.

use super::{Cause, Finding, PodKey, Report, World, finding::missed_message, namespace::Namespace, policies::Object};
use crate::{
    drift::{Pod, State, Surroundings, Verdict},
    eviction::Siblings,
    policy::build::Tally,
};
use jiff::Timestamp;
use std::collections::HashMap;
use tokenscope_core::PolicyName;

impl World {
    /// What there is to tell about a missed pod.
    pub(crate) fn report(&self, (namespace, name): &PodKey, now: Timestamp) -> Option<Report> {
        let around = self.namespaces.get(namespace)?;
        let pod = around.pods.get(name)?.pod.as_ref()?;
        let surroundings = self.surroundings(namespace, around, pod)?;
        Some(Report {
            pod: pod.clone(),
            message: missed_message(&surroundings.decide(pod, now)),
        })
    }

    /// Whether a pod is ready.
    pub(crate) fn is_ready(&self, (namespace, name): &PodKey) -> bool {
        let tracked = self.namespaces.get(namespace).and_then(|around| around.pods.get(name));
        tracked
            .and_then(|tracked| tracked.pod.as_ref())
            .is_some_and(|pod| pod.ready)
    }

    /// By UID, the controllers whose pods something is to be done to. The cost is linear in the pods of their namespaces.
    pub(crate) fn siblings(&self) -> HashMap<&str, Siblings> {
        let controllers = self
            .findings
            .values()
            .filter_map(|finding| finding.controller.as_deref());
        let mut siblings: HashMap<&str, Siblings> = controllers
            .map(|controller| (controller, Siblings::default()))
            .collect();
        let mut last = "";
        for (namespace, _) in self.findings.keys() {
            // They are in order.
            if std::mem::replace(&mut last, namespace) == &**namespace {
                continue;
            }
            let pods = self
                .namespaces
                .get(namespace)
                .into_iter()
                .flat_map(|around| around.pods.values());
            for pod in pods.filter_map(|tracked| tracked.pod.as_ref()) {
                let controller = pod.controller().map_or("", |owner| &owner.uid);
                if let Some(siblings) = siblings.get_mut(controller) {
                    siblings.add(pod);
                }
            }
        }
        siblings
    }

    pub(super) fn judge_pod(&mut self, namespace: &str, pod: &str, now: Timestamp) {
        let Some(around) = self.namespaces.get(namespace) else {
            return;
        };
        let Some(tracked) = around.pods.get(pod) else {
            return;
        };
        let before = tracked.verdict.clone();
        let said = |name: &PolicyName| self.objects.get(name).map_or(Timestamp::MAX, Object::said);
        let judged = tracked.pod.as_ref().filter(|_| !around.over_share);
        let verdict = judged
            .and_then(|pod| Some(self.surroundings(namespace, around, pod)?.judge(pod, now, said)))
            .unwrap_or_default();
        let finding = judged.and_then(|pod| finding(pod, &verdict, now));
        self.note_finding((namespace.into(), pod.into()), finding);
        if verdict == before {
            return;
        }
        self.forget_counts(namespace, pod, &before);
        self.count(&verdict, 1);
        if let Some(around) = self.namespaces.get_mut(namespace) {
            if verdict.holds_ungranted_token && around.ungranted.insert(pod.into()) {
                self.ungranted += 1;
                self.concern_namespace(namespace);
            }
            if let Some(tracked) = self
                .namespaces
                .get_mut(namespace)
                .and_then(|around| around.pods.get_mut(pod))
            {
                tracked.verdict = verdict;
            }
        }
    }

    /// Takes out what was counted and found of a pod that is gone.
    pub(super) fn forget_verdict(&mut self, namespace: &str, pod: &str, verdict: &Verdict) {
        self.forget_counts(namespace, pod, verdict);
        self.findings.remove(&(namespace.into(), pod.into()));
    }

    fn forget_counts(&mut self, namespace: &str, pod: &str, verdict: &Verdict) {
        self.count(verdict, -1);
        let around = self.namespaces.get_mut(namespace);
        if around.is_some_and(|around| around.ungranted.remove(pod)) {
            self.ungranted -= 1;
            self.concern_namespace(namespace);
        }
    }

    /// What was known of the same pod before stays known since then.
    fn note_finding(&mut self, key: PodKey, finding: Option<Finding>) {
        let Some(mut finding) = finding else {
            self.findings.remove(&key);
            return;
        };
        let known = self.findings.get(&key);
        let known = known.filter(|known| known.uid == finding.uid && known.cause == finding.cause);
        finding.since = known.map_or(finding.since, |known| known.since);
        self.findings.insert(key, finding);
    }

    pub(super) fn surroundings<'a>(
        &'a self,
        namespace: &'a str,
        around: &'a Namespace,
        pod: &Pod,
    ) -> Option<Surroundings<'a>> {
        let account = around.service_accounts.get(&pod.service_account);
        Some(Surroundings {
            namespace,
            namespace_labels: around.labels.as_ref()?,
            service_account: account.and_then(|account| account.annotated.as_ref()),
            policies: &self.policies,
            settings: &self.settings,
            identities: &self.identities,
            csi_drivers: &self.csi_drivers,
        })
    }

    fn count(&mut self, verdict: &Verdict, by: i64) {
        if let Some(state) = verdict.state {
            self.totals.add(state, true, by);
        }
        for share in &verdict.shares {
            let tally = self.tallies.entry(share.policy.clone()).or_default();
            tally.add(share.state, share.grants, by);
            if verdict.unidentified {
                tally.unidentified += by;
            }
            if *tally == Tally::default() {
                self.tallies.remove(&share.policy);
            }
            self.concerned.insert(share.policy.clone());
        }
    }

    /// Has the status of a namespace's own policies looked at again.
    pub(super) fn concern_namespace(&mut self, namespace: &str) {
        let own = self.policies.about(namespace).map(|policy| &policy.name);
        let own = own.filter(|name| !name.is_cluster()).cloned();
        self.concerned.extend(own);
    }
}

fn finding(pod: &Pod, verdict: &Verdict, now: Timestamp) -> Option<Finding> {
    let (cause, evictable) = match (&verdict.expired, verdict.state) {
        (Some(policy), _) => (Cause::Expired(policy.clone()), true),
        (None, Some(State::Missed)) => (Cause::Missed, verdict.lacks_for_certain),
        (None, _) => return None,
    };
    Some(Finding {
        cause,
        since: now,
        uid: pod.uid.clone(),
        controller: pod.controller().map(|owner| owner.uid.clone()),
        evictable,
    })
}
