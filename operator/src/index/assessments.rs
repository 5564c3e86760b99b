//! The assessment of each pod, and the counts of all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokenscope_core::PolicyName;

use super::{Finding, PodKey};
use crate::drift::{Assessment, PodCounts};

/// The assessments of all pods, and their sums.
#[derive(Default)]
pub(super) struct Assessments {
    /// The assessments by namespace and name. A pod that has nothing and should have nothing is not among them.
    pods: HashMap<Box<str>, HashMap<Box<str>, Assessment>>,
    counts: HashMap<PolicyName, PodCounts>,
    totals: PodCounts,
    findings: BTreeMap<PodKey, Finding>,
    /// The pods, by namespace, that hold a token of a locked audience that no policy grants them.
    ungranted: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

impl Assessments {
    /// The counts of pods for a policy.
    pub(super) fn counts(&self, policy: &PolicyName) -> PodCounts {
        self.counts.get(policy).copied().unwrap_or_default()
    }

    /// The counts of all pods.
    pub(super) fn totals(&self) -> PodCounts {
        self.totals
    }

    /// The pods to which something is to be done.
    pub(super) fn findings(&self) -> impl Iterator<Item = (&PodKey, &Finding)> {
        self.findings.iter()
    }

    /// The number of pods that hold a token of a locked audience that no policy grants them.
    pub(super) fn ungranted(&self) -> usize {
        self.ungranted.values().map(BTreeSet::len).sum()
    }

    /// The pods of one namespace, by name, that hold such a token.
    pub(super) fn ungranted_of(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let pods = self.ungranted.get(namespace).into_iter().flatten();
        pods.map(|name| &**name)
    }

    /// Puts an assessment in place of the pod's last one. The policies whose counts change are added to `changed`; the answer is
    /// whether the pods with ungranted tokens changed.
    pub(super) fn put(
        &mut self,
        namespace: &str,
        pod: &str,
        assessment: &Assessment,
        finding: Option<Finding>,
        changed: &mut BTreeSet<PolicyName>,
    ) -> bool {
        self.note_finding(namespace, pod, finding);
        let before = self.replace(namespace, pod, assessment);
        if before == *assessment {
            return false;
        }
        self.count(&before, -1, changed);
        self.count(assessment, 1, changed);
        self.note_ungranted(namespace, pod, assessment.holds_ungranted_token)
    }

    fn replace(&mut self, namespace: &str, pod: &str, assessment: &Assessment) -> Assessment {
        if *assessment != Assessment::default() {
            if !self.pods.contains_key(namespace) {
                self.pods.insert(namespace.into(), HashMap::new());
            }
            let pods = self.pods.get_mut(namespace);
            let before = pods.and_then(|pods| pods.insert(pod.into(), assessment.clone()));
            return before.unwrap_or_default();
        }
        let Some(pods) = self.pods.get_mut(namespace) else {
            return Assessment::default();
        };
        let before = pods.remove(pod).unwrap_or_default();
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        before
    }

    /// What was known of the same pod before stays known since then.
    fn note_finding(&mut self, namespace: &str, pod: &str, finding: Option<Finding>) {
        let key = (namespace.into(), pod.into());
        let Some(mut finding) = finding else {
            self.findings.remove(&key);
            return;
        };
        let known = self.findings.get(&key);
        let known = known.filter(|known| known.uid == finding.uid && known.cause == finding.cause);
        finding.since = known.map_or(finding.since, |known| known.since);
        self.findings.insert(key, finding);
    }

    fn note_ungranted(&mut self, namespace: &str, pod: &str, is_ungranted: bool) -> bool {
        if is_ungranted {
            let pods = self.ungranted.entry(namespace.into()).or_default();
            return pods.insert(pod.into());
        }
        let Some(pods) = self.ungranted.get_mut(namespace) else {
            return false;
        };
        let was_there = pods.remove(pod);
        if pods.is_empty() {
            self.ungranted.remove(namespace);
        }
        was_there
    }

    fn count(&mut self, assessment: &Assessment, by: i64, changed: &mut BTreeSet<PolicyName>) {
        if let Some(state) = assessment.state {
            self.totals.add(state, true, by);
        }
        for share in &assessment.shares {
            let counts = self.counts.entry(share.policy.clone()).or_default();
            counts.add(share.state, share.grants, by);
            if assessment.without_spiffe_id {
                counts.without_spiffe_id += by;
            }
            if *counts == PodCounts::default() {
                self.counts.remove(&share.policy);
            }
            changed.insert(share.policy.clone());
        }
    }
}
