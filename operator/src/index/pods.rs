//! The consequences for each pod.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use tokenscope_core::{Decision, PolicyName};
use tokenscope_index::PodContext;

use super::findings::missed_message;
use super::{Cause, Finding, Index, MissedPodReport, PodKey, Siblings};
use crate::drift::{Assessment, Assessor, FactAges, IssuerAuthority, KeptPod, PodState};

impl Index {
    pub(super) fn assess_pod(&mut self, namespace: &str, name: &str, now: Timestamp) {
        let pod = self.pods.value(namespace, name);
        let pod = pod.filter(|_| !self.over_share.contains(namespace));
        let assessed = pod.and_then(|pod| {
            let age_of = |name: &PolicyName| self.age_of(name);
            let assess = |assessor: Assessor<'_>| assessor.assess(pod, now, age_of);
            self.with_assessor(namespace, pod, assess)
        });
        let assessment = assessed.unwrap_or_default();
        // A missed pod that is evicted does not come back as long as a replica of the webhook refuses all of its namespace.
        let comes_back = self.webhook_judges(namespace);
        let finding = pod.and_then(|pod| finding(pod, &assessment, comes_back, now));
        let dirty = &mut self.dirty.statuses;
        if self.assessments.put(namespace, name, &assessment, finding, dirty) {
            self.enqueue_statuses_of(namespace);
        }
    }

    /// Takes out what was counted and found of a pod that is gone.
    pub(super) fn forget_pod(&mut self, namespace: &str, name: &str) {
        let dirty = &mut self.dirty.statuses;
        let gone = Assessment::default();
        if self.assessments.put(namespace, name, &gone, None, dirty) {
            self.enqueue_statuses_of(namespace);
        }
    }

    /// The report about a missed pod.
    pub(crate) fn report(&self, (namespace, name): &PodKey, now: Timestamp) -> Option<MissedPodReport> {
        let pod = self.pods.value(namespace, name)?;
        let decision = self.decide(namespace, pod, now)?;
        Some(MissedPodReport {
            pod: pod.clone(),
            message: missed_message(&decision),
        })
    }

    /// The decision about a pod.
    pub(super) fn decide(&self, namespace: &str, pod: &KeptPod, now: Timestamp) -> Option<Decision> {
        self.with_assessor(namespace, pod, |assessor| assessor.decide(pod, now))
    }

    /// Nothing as long as the namespace is not known.
    fn with_assessor<T>(&self, namespace: &str, pod: &KeptPod, ask: impl FnOnce(Assessor<'_>) -> T) -> Option<T> {
        let known = self.namespaces.value("", namespace)?;
        let account = self.service_accounts.value(namespace, &pod.service_account);
        let annotations = account.map(|account| account.annotations.pairs()).unwrap_or_default();
        Some(ask(Assessor {
            context: PodContext {
                namespace,
                namespace_labels: known.labels.borrowed(),
                service_account: &pod.service_account,
                service_account_annotations: annotations.borrowed(),
            },
            ages: FactAges {
                namespace: &known.ages,
                account: account.map(|account| &account.ages),
                boundaries: self.boundaries_since,
                past: &self.past,
            },
            policies: self.policies.set(),
            settings: &self.installation.settings,
            review_margin: self.installation.review_margin,
            spiffe_ids: &self.spiffe_ids,
            csi_drivers: &self.csi_drivers,
        }))
    }

    /// The number of running pods that were told of another authority of the issuer than this one. The cost is linear in all pods.
    pub(crate) fn pods_with_other_issuer_authority(&self, present: IssuerAuthority) -> usize {
        let pods = self.pods.namespaces().flat_map(|namespace| self.pods.iter(namespace));
        let is_other = |pod: &KeptPod| pod.issuer_authority.is_some_and(|known| known != present);
        pods.filter(|(_, pod)| pod.running && is_other(pod)).count()
    }

    /// Has the status of a namespace's own policies looked at again.
    pub(super) fn enqueue_statuses_of(&mut self, namespace: &str) {
        let own = self.policies.set().about(namespace).map(|policy| &policy.name);
        let own = own.filter(|name| !name.is_cluster()).cloned();
        self.dirty.statuses.extend(own);
    }

    /// True if a pod is ready.
    pub(crate) fn is_ready(&self, (namespace, name): &PodKey) -> bool {
        self.pods.value(namespace, name).is_some_and(|pod| pod.ready)
    }

    /// By namespace and UID, the controllers whose pods something is to be done to. The cost is linear in the pods of their namespaces.
    ///
    /// Whoever creates a pod writes which controller it has. So a pod of another namespace that names the same one is no sibling.
    pub(crate) fn siblings(&self) -> HashMap<(&str, &str), Siblings> {
        let mut siblings: HashMap<(&str, &str), Siblings> = HashMap::new();
        let mut namespaces: BTreeSet<&str> = BTreeSet::new();
        for ((namespace, _), finding) in self.assessments.findings() {
            let namespace: &str = namespace;
            namespaces.insert(namespace);
            if let Some(controller) = finding.controller.as_deref() {
                siblings.insert((namespace, controller), Siblings::default());
            }
        }
        for namespace in namespaces {
            for (_, pod) in self.pods.iter(namespace) {
                let controller = pod.controller().map_or("", |owner| &*owner.uid);
                if let Some(siblings) = siblings.get_mut(&(namespace, controller)) {
                    siblings.add(pod);
                }
            }
        }
        siblings
    }
}

fn finding(pod: &KeptPod, assessment: &Assessment, comes_back: bool, now: Timestamp) -> Option<Finding> {
    let (cause, evictable) = match (&assessment.expired, assessment.state) {
        (Some(policy), _) => (Cause::Expired(policy.clone()), true),
        (None, Some(PodState::Missed)) => (Cause::Missed, assessment.lacks_for_certain && comes_back),
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
