//! The comparison of what a pod has with what the policies give it now.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use jiff::Timestamp;
use tokenscope_core::annotations::Mark;
use tokenscope_core::{
    Decision, Fingerprint, Grant, Granted, OnExpiry, PodFacts, Policy, PolicyName, Standing, TokenSource, decide, lock,
};
use tokenscope_index::PodContext;

use super::assessor::Certainty;
use super::pod::{KeptPod, KeptWriter, RecordedDecision};
use super::{Assessment, Assessor, PodState, PolicyAge, PolicyShare, association};

impl Assessor<'_> {
    /// The decision about a pod.
    pub(crate) fn decide(&self, pod: &KeptPod, now: Timestamp) -> Decision {
        self.decide_with(pod.facts(), now)
    }

    fn decide_with(&self, facts: PodFacts<'_>, now: Timestamp) -> Decision {
        let request = self.context.clone().request(facts);
        decide(&request, self.policies, self.settings, now)
    }

    /// Compares what a pod should get with what it has. `age_of` tells since when a policy says what it says.
    pub(crate) fn assess(
        &self,
        pod: &KeptPod,
        now: Timestamp,
        age_of: impl Fn(&PolicyName) -> PolicyAge,
    ) -> Assessment {
        if !pod.running {
            return Assessment::default();
        }
        let holds_ungranted_token = self.holds_ungranted_token(pod, now);
        let assessment = if self.context.opts_out() {
            Assessment::default()
        } else {
            self.assess_grant(pod, now, age_of)
        };
        Assessment {
            holds_ungranted_token,
            ..assessment
        }
    }

    fn assess_grant(&self, pod: &KeptPod, now: Timestamp, age_of: impl Fn(&PolicyName) -> PolicyAge) -> Assessment {
        let decision = self.decide(pod, now);
        let expired = self.expired(pod, &decision, now);
        let assessment = match (decision, &pod.record) {
            (Decision::Granted(granted), _) => self.assess_granted(pod, &granted, now, age_of),
            (Decision::Associated(associated), _) => association::assess(pod, &associated),
            (_, Some(record)) => Assessment {
                state: Some(PodState::Outdated),
                shares: record
                    .policies
                    .iter()
                    .map(|policy| share(policy, PodState::Outdated, false))
                    .collect(),
                ..Assessment::default()
            },
            // It had to be reviewed, and nobody did. Where pods are never denied, a review would have left it as it is.
            (Decision::Denied(_), None) if pod.asks() && pod.mark().is_none() && self.marks_refused_pods() => {
                Assessment {
                    state: match self.asked_when_created(pod) {
                        Certainty::No => None,
                        Certainty::Maybe => Some(PodState::MaybeMissed),
                        Certainty::Certain => Some(PodState::Missed),
                    },
                    ..Assessment::default()
                }
            }
            (Decision::Denied(_) | Decision::Untouched(_), None) => Assessment::default(),
        };
        Assessment { expired, ..assessment }
    }

    fn assess_granted(
        &self,
        pod: &KeptPod,
        granted: &Granted,
        now: Timestamp,
        age_of: impl Fn(&PolicyName) -> PolicyAge,
    ) -> Assessment {
        let has_it = has(pod, granted);
        let serves = any_grant(granted, |grant| grant.endpoint.is_some());
        let is_known = LazyCell::new(|| self.is_known_around(pod, granted));
        let state_for = |grant: &Grant| match &pod.record {
            Some(record) if has_it => match (&pod.config_writer, &pod.sidecar) {
                (Some(KeptWriter::Lost), _) => PodState::Missed,
                (_, None) if record.sidecar => PodState::Missed,
                (_, Some(image)) if self.has_another_sidecar(image, grant.source, serves) => PodState::Outdated,
                (Some(KeptWriter::Present(image)), _) if self.has_another_writer(image, grant.source) => {
                    PodState::Outdated
                }
                _ => PodState::Injected,
            },
            Some(_) => PodState::Outdated,
            // It was reviewed: refused, and runs because only warnings were asked for; or by a webhook that had nothing to give it yet.
            None if pod.mark().is_some_and(|mark| mark != Mark::Granted) => PodState::Outdated,
            None => match self.was_in_force(pod, grant.policy.as_ref(), *is_known, &age_of) {
                Certainty::No => PodState::Outdated,
                Certainty::Maybe => PodState::MaybeMissed,
                Certainty::Certain => PodState::Missed,
            },
        };

        let from_spiffe = any_grant(granted, |grant| grant.source == TokenSource::Spiffe);
        let mut shares = BTreeMap::new();
        let mut state = PodState::Injected;
        for granted in &granted.containers {
            let policy = granted.grant.policy.as_ref();
            let found = state_for(&granted.grant);
            state = state.max(found);
            if let Some(policy) = policy {
                shares.insert(policy, found);
            }
        }
        Assessment {
            state: Some(state),
            shares: shares
                .into_iter()
                .map(|(policy, state)| share(policy, state, true))
                .collect(),
            lacks_for_certain: state == PodState::Missed && self.lacks_for_certain(pod, now, *is_known, &age_of),
            without_spiffe_id: from_spiffe
                && !self
                    .spiffe_ids
                    .cover(&self.context.namespace_labels, &pod.facts().labels),
            ..Assessment::default()
        }
    }

    /// True if new pods get another sidecar than this one for tokens of a source, or for serving credentials too.
    fn has_another_sidecar(&self, image: &str, source: TokenSource, serves: bool) -> bool {
        let sidecar = &self.settings.sidecar;
        match source {
            _ if serves => *image != *sidecar.endpoint_image,
            // It is there for another container's tokens.
            TokenSource::ServiceAccount => false,
            TokenSource::Spiffe => *image != *sidecar.image,
            TokenSource::Issuer => *image != *sidecar.issuer_image,
        }
    }

    /// True if new pods get another writer of config files than this one beside tokens of a source.
    fn has_another_writer(&self, image: &str, source: TokenSource) -> bool {
        let sidecar = &self.settings.sidecar;
        *image
            != *match source {
                TokenSource::ServiceAccount | TokenSource::Spiffe => &*sidecar.image,
                TokenSource::Issuer => &*sidecar.issuer_image,
            }
    }

    /// True if it should have had a grant also without its labels and annotations, which may be others than at admission.
    ///
    /// A policy that selects pods by their labels says nothing for certain.
    fn lacks_for_certain(
        &self,
        pod: &KeptPod,
        now: Timestamp,
        is_known: bool,
        age_of: impl Fn(&PolicyName) -> PolicyAge,
    ) -> bool {
        let selects_any = |name: &PolicyName| {
            let mut subjects = self.policy(name).into_iter().flat_map(|policy| &policy.subjects);
            subjects
                .any(|subject| subject.pod_selector.is_none() && subject.matches_service_account(&pod.service_account))
        };
        if let Some(record) = &pod.record {
            return record.is_proven;
        }
        let Decision::Granted(granted) = self.decide_with(pod.lasting_facts(), now) else {
            return false;
        };
        granted.containers.iter().any(|granted| {
            let policy = granted.grant.policy.as_ref();
            policy.is_none_or(selects_any) && self.was_in_force(pod, policy, is_known, &age_of) == Certainty::Certain
        })
    }

    /// The policy that is over and gave the pod what it has, if its pods are to be evicted then. A policy that is gone says
    /// nothing about it any more.
    ///
    /// A pod stays that would get what it has if it were created now, or by what admission recorded of its service account:
    /// tokenscope's issuer goes on with it by the record.
    fn expired(&self, pod: &KeptPod, decision: &Decision, now: Timestamp) -> Option<PolicyName> {
        let record = pod.record.as_ref().filter(|record| record.is_proven)?;
        let policies = record.policies.iter().filter_map(|name| self.policy(name));
        let mut over = policies.filter(|policy| {
            policy.on_expiry == OnExpiry::Evict && policy.standing_in_time(now) != Standing::Candidate
        });
        let over = over.next()?;
        let gives_it = |decision: &Decision| match decision {
            Decision::Granted(granted) => has(pod, granted),
            Decision::Associated(associated) => association::has(pod, associated),
            Decision::Denied(_) | Decision::Untouched(_) => false,
        };
        let keeps_it = || {
            let recorded = record.service_account_annotations.as_ref()?;
            let context = PodContext {
                service_account_annotations: recorded.borrowed(),
                ..self.context.clone()
            };
            let request = context.request(pod.facts());
            Some(gives_it(&decide(&request, self.policies, self.settings, now)))
        };
        (!gives_it(decision) && keeps_it() != Some(true)).then(|| over.name.clone())
    }

    fn holds_ungranted_token(&self, pod: &KeptPod, now: Timestamp) -> bool {
        if !pod.has_token_volumes() {
            return false;
        }
        let mut token_volumes = pod.token_volumes();
        self.csi_drivers.tokens().fill(&mut token_volumes);
        let facts = PodFacts {
            token_volumes,
            ..pod.facts()
        };
        let request = self.context.clone().request(facts);
        !lock::ungranted(&request, self.policies, self.settings, now).is_empty()
    }

    pub(super) fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        let mut policies = self.policies.about(self.context.namespace);
        policies.find(|policy| policy.name == *name).map(|policy| &**policy)
    }
}

fn any_grant(granted: &Granted, is_such: impl Fn(&Grant) -> bool) -> bool {
    granted.containers.iter().any(|granted| is_such(&granted.grant))
}

/// True if the record of a pod says that it has this grant, as far as it tells.
fn has(pod: &KeptPod, granted: &Granted) -> bool {
    let Some(record) = &pod.record else {
        return false;
    };
    let name = |container: usize| pod.containers.get(container).map_or("", |container| &*container.name);
    let grants = granted
        .containers
        .iter()
        .map(|granted| (name(granted.container), &*granted.grant));
    match record.decision {
        RecordedDecision::Whole(recorded) => recorded == Fingerprint::of(&pod.service_account, grants),
        RecordedDecision::Roles(recorded) => {
            recorded == Fingerprint::of_roles(grants.map(|(name, grant)| (name, grant.role.as_str())))
        }
    }
}

fn share(policy: &PolicyName, state: PodState, grants: bool) -> PolicyShare {
    PolicyShare {
        policy: policy.clone(),
        state,
        grants,
    }
}
