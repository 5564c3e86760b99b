//! Whether a running pod has what the policies give it now.

mod pod;
mod volumes;
mod watched;

pub(crate) use pod::{Mark, Pod, pairs_bytes};
pub(crate) use watched::WatchedPod;

use crate::{csi_drivers::CsiDrivers, identities::Identities};
use jiff::Timestamp;
use std::collections::BTreeMap;
use tokenscope_core::{
    Decision, Granted, OnExpiry, Pairs, PodFacts, Policy, PolicyName, PolicySet, Request, Settings, Standing,
    TokenSource, annotations, decide, fingerprint, lock,
};

/// How a pod stands to what it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// It has it.
    Injected,
    /// It was created before it was meant to have it: a restart would change it.
    Outdated,
    /// It was meant to have it when it was created, and has not.
    Missed,
}

/// What was found about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How it stands; none where it has and should have nothing.
    pub(crate) state: Option<State>,
    /// For which policies it counts.
    pub(crate) shares: Box<[Share]>,
    /// Whether a missed pod should have had its credentials whatever its labels and annotations say, so that another one in
    /// its place gets them: whoever may patch a pod must not make the operator evict it.
    pub(crate) lacks_for_certain: bool,
    /// Whether its tokens come from SPIFFE and nothing gives it an identity.
    pub(crate) unidentified: bool,
    /// The policy with `onExpiry: Evict` that gave it what it has, is no longer in force, and has no other in its place.
    pub(crate) expired: Option<PolicyName>,
    /// Whether it holds a token of a locked audience that no policy grants it.
    pub(crate) holds_ungranted_token: bool,
}

/// A pod's part in a policy's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The policy.
    pub(crate) policy: PolicyName,
    /// How the pod stands to it.
    pub(crate) state: State,
    /// Whether the policy grants the pod something now; otherwise it did once.
    pub(crate) grants: bool,
}

/// A pod's namespace and service account, and the rule.
pub(crate) struct Surroundings<'a> {
    /// The namespace's name.
    pub(crate) namespace: &'a str,
    /// Its labels.
    pub(crate) namespace_labels: &'a Pairs<Box<str>>,
    /// The service account; none if it has no annotation that matters.
    pub(crate) service_account: Option<&'a Annotated>,
    /// All policies.
    pub(crate) policies: &'a PolicySet,
    /// The installation's settings.
    pub(crate) settings: &'a Settings,
    /// Which pods have an identity of SPIFFE.
    pub(crate) identities: &'a Identities,
    /// Which CSI drivers get tokens.
    pub(crate) csi_drivers: &'a CsiDrivers,
}

/// The annotations of a service account that can change a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Annotated {
    /// The annotations.
    pub(crate) annotations: Pairs<Box<str>>,
    /// Since when it has them, at the latest.
    pub(crate) since: Timestamp,
}

impl Surroundings<'_> {
    /// What a pod should get.
    pub(crate) fn decide(&self, pod: &Pod, now: Timestamp) -> Decision {
        self.decide_with(pod, pod.facts(), now)
    }

    fn decide_with(&self, pod: &Pod, facts: PodFacts<'_>, now: Timestamp) -> Decision {
        decide(&self.request(pod, facts), self.policies, self.settings, now)
    }

    fn request<'p>(&'p self, pod: &'p Pod, facts: PodFacts<'p>) -> Request<'p> {
        let annotated = self.service_account;
        Request {
            namespace: self.namespace,
            namespace_labels: self.namespace_labels.borrowed(),
            service_account: &pod.service_account,
            service_account_annotations: annotated.map(|found| found.annotations.borrowed()).unwrap_or_default(),
            pod: facts,
        }
    }

    /// Compares what a pod should get with what it has. `said` tells since when a policy says what it says.
    pub(crate) fn judge(&self, pod: &Pod, now: Timestamp, said: impl Fn(&PolicyName) -> Timestamp) -> Verdict {
        if !pod.running {
            return Verdict::default();
        }
        let holds_ungranted_token = self.holds_ungranted_token(pod, now);
        let verdict = if self.namespace_labels.value(annotations::INJECT) == Some("false") {
            Verdict::default()
        } else {
            self.judge_grant(pod, now, said)
        };
        Verdict {
            holds_ungranted_token,
            ..verdict
        }
    }

    fn judge_grant(&self, pod: &Pod, now: Timestamp, said: impl Fn(&PolicyName) -> Timestamp) -> Verdict {
        let decision = self.decide(pod, now);
        let expired = self.expired(pod, &decision, now);
        let verdict = match (decision, &pod.record) {
            (Decision::Granted(granted), _) => self.judge_granted(pod, &granted, now, said),
            (_, Some(record)) => Verdict {
                state: Some(State::Outdated),
                shares: record
                    .policies
                    .iter()
                    .map(|policy| share(policy, State::Outdated, false))
                    .collect(),
                ..Verdict::default()
            },
            // It had to be reviewed, and nobody did.
            (Decision::Denied(_), None) if pod.asks() && pod.mark().is_none() => Verdict {
                state: Some(State::Missed),
                ..Verdict::default()
            },
            (Decision::Denied(_) | Decision::Untouched(_), None) => Verdict::default(),
        };
        Verdict { expired, ..verdict }
    }

    fn judge_granted(
        &self,
        pod: &Pod,
        granted: &Granted,
        now: Timestamp,
        said: impl Fn(&PolicyName) -> Timestamp,
    ) -> Verdict {
        let wanted = wanted(pod, granted);
        let state_for = |policy: Option<&PolicyName>| match &pod.record {
            Some(record) if *record.hash == *wanted => match &pod.sidecar {
                None if record.sidecar => State::Missed,
                Some(image) if *image != self.settings.sidecar.image => State::Outdated,
                _ => State::Injected,
            },
            None if self.was_meant(pod, policy, &said) => State::Missed,
            _ => State::Outdated,
        };

        let from_spiffe = granted
            .containers
            .iter()
            .any(|granted| granted.grant.source == TokenSource::Spiffe);
        let mut shares = BTreeMap::new();
        let mut state = State::Injected;
        for granted in &granted.containers {
            let policy = granted.grant.policy.as_ref();
            let found = state_for(policy);
            state = state.max(found);
            if let Some(policy) = policy {
                shares.insert(policy, found);
            }
        }
        Verdict {
            state: Some(state),
            shares: shares
                .into_iter()
                .map(|(policy, state)| share(policy, state, true))
                .collect(),
            lacks_for_certain: state == State::Missed && self.lacks_for_certain(pod, now, &said),
            unidentified: from_spiffe && !self.identities.cover(self.namespace_labels, &pod.facts().labels),
            ..Verdict::default()
        }
    }

    /// Whether a pod without any grant should have got one when it was created.
    fn was_meant(&self, pod: &Pod, policy: Option<&PolicyName>, said: impl Fn(&PolicyName) -> Timestamp) -> bool {
        match pod.mark() {
            // It was reviewed and refused, and runs because only warnings were asked for.
            Some(Mark::Refused) => return false,
            // It had to be reviewed whatever the policies said.
            None if pod.asks() => return true,
            _ => {}
        }
        self.was_in_force(pod, policy, said)
    }

    /// Whether all that gives the pod a role now did so when it was created.
    fn was_in_force(&self, pod: &Pod, policy: Option<&PolicyName>, said: impl Fn(&PolicyName) -> Timestamp) -> bool {
        let annotated_before = self.service_account.is_none_or(|found| pod.created >= found.since);
        let in_force_then = |name: &PolicyName| {
            self.policy(name)
                .is_some_and(|policy| policy.standing_in_time(pod.created) == Standing::Candidate)
        };
        annotated_before && policy.is_none_or(|name| pod.created >= said(name) && in_force_then(name))
    }

    /// Whether it should have had a grant also without its labels and annotations, which may be others than at admission.
    ///
    /// A policy that selects pods by their labels says nothing for certain.
    fn lacks_for_certain(&self, pod: &Pod, now: Timestamp, said: impl Fn(&PolicyName) -> Timestamp) -> bool {
        let selects_any = |name: &PolicyName| {
            let mut subjects = self.policy(name).into_iter().flat_map(|policy| &policy.subjects);
            subjects
                .any(|subject| subject.pod_selector.is_none() && subject.matches_service_account(&pod.service_account))
        };
        if let Some(record) = &pod.record {
            return record.is_proven;
        }
        let Decision::Granted(granted) = self.decide_with(pod, pod.lasting_facts(), now) else {
            return false;
        };
        granted.containers.iter().any(|granted| {
            let policy = granted.grant.policy.as_ref();
            policy.is_none_or(selects_any) && self.was_in_force(pod, policy, &said)
        })
    }

    /// The policy that is over and gave the pod what it has, if its pods are to be evicted then. A policy that is gone says
    /// nothing about it any more.
    fn expired(&self, pod: &Pod, decision: &Decision, now: Timestamp) -> Option<PolicyName> {
        let record = pod.record.as_ref().filter(|record| record.is_proven)?;
        if let Decision::Granted(granted) = decision
            && *record.hash == *wanted(pod, granted)
        {
            return None;
        }
        let policies = record.policies.iter().filter_map(|name| self.policy(name));
        let mut over = policies.filter(|policy| {
            policy.on_expiry == OnExpiry::Evict && policy.standing_in_time(now) != Standing::Candidate
        });
        over.next().map(|policy| policy.name.clone())
    }

    fn holds_ungranted_token(&self, pod: &Pod, now: Timestamp) -> bool {
        if !pod.has_token_volumes() || !self.settings.lock.applies_to(self.namespace) {
            return false;
        }
        let mut token_volumes = pod.token_volumes();
        self.csi_drivers.fill(&mut token_volumes);
        let facts = PodFacts {
            token_volumes,
            ..pod.facts()
        };
        !lock::ungranted(&self.request(pod, facts), self.policies, self.settings, now).is_empty()
    }

    fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        let mut policies = self.policies.about(self.namespace);
        policies.find(|policy| policy.name == *name).map(|policy| &**policy)
    }
}

/// The fingerprint that the record of a pod would have with this grant.
fn wanted(pod: &Pod, granted: &Granted) -> String {
    let facts = pod.lasting_facts();
    let name = |container: usize| facts.containers.get(container).map_or("", |container| container.name);
    let grants = granted
        .containers
        .iter()
        .map(|granted| (name(granted.container), &granted.grant));
    fingerprint(&pod.service_account, grants)
}

fn share(policy: &PolicyName, state: State, grants: bool) -> Share {
    Share {
        policy: policy.clone(),
        state,
        grants,
    }
}
