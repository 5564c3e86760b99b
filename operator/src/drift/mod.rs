//! Whether a running pod has what the policies give it now.

mod pod;

pub(crate) use pod::{Pod, WatchedPod};

use crate::identities::Identities;
use jiff::Timestamp;
use std::collections::BTreeMap;
use tokenscope_core::{
    Decision, Granted, Pairs, PolicyName, PolicySet, Request, Settings, Standing, TokenSource, annotations, decide,
    fingerprint,
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
    /// Whether another pod in its place would get what this one lacks.
    pub(crate) curable: bool,
    /// Whether its tokens come from SPIFFE and nothing gives it an identity.
    pub(crate) unidentified: bool,
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
        let annotated = self.service_account;
        let request = Request {
            namespace: self.namespace,
            namespace_labels: self.namespace_labels.borrowed(),
            service_account: &pod.service_account,
            service_account_annotations: annotated.map(|found| found.annotations.borrowed()).unwrap_or_default(),
            pod: pod.facts(),
        };
        decide(&request, self.policies, self.settings, now)
    }

    /// Compares what a pod should get with what it has. `said` tells since when a policy says what it says.
    pub(crate) fn judge(&self, pod: &Pod, now: Timestamp, said: impl Fn(&PolicyName) -> Timestamp) -> Verdict {
        if !pod.running || self.namespace_labels.value(annotations::INJECT) == Some("false") {
            return Verdict::default();
        }
        match (self.decide(pod, now), &pod.record) {
            (Decision::Granted(granted), _) => self.judge_granted(pod, &granted, said),
            (_, Some(record)) => Verdict {
                state: Some(State::Outdated),
                shares: record
                    .policies
                    .iter()
                    .map(|policy| share(policy, State::Outdated, false))
                    .collect(),
                curable: true,
                unidentified: false,
            },
            // It had to be reviewed, and nobody did.
            (Decision::Denied(_), None) if pod.asks() && pod.mark().is_none() => Verdict {
                state: Some(State::Missed),
                ..Verdict::default()
            },
            (Decision::Denied(_) | Decision::Untouched(_), None) => Verdict::default(),
        }
    }

    fn judge_granted(&self, pod: &Pod, granted: &Granted, said: impl Fn(&PolicyName) -> Timestamp) -> Verdict {
        let facts = pod.facts();
        let name = |container: usize| facts.containers.get(container).map_or("", |container| container.name);
        let grants = granted
            .containers
            .iter()
            .map(|granted| (name(granted.container), &granted.grant));
        let wanted = fingerprint(&pod.service_account, grants);
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
            curable: true,
            unidentified: from_spiffe && !self.identities.cover(self.namespace_labels, &facts.labels),
        }
    }

    /// Whether a pod without any grant should have got one when it was created.
    fn was_meant(&self, pod: &Pod, policy: Option<&PolicyName>, said: impl Fn(&PolicyName) -> Timestamp) -> bool {
        match pod.mark() {
            // It was reviewed and refused, and runs because only warnings were asked for.
            Some("refused") => return false,
            // It had to be reviewed whatever the policies said.
            None if pod.asks() => return true,
            _ => {}
        }
        let annotated_before = self.service_account.is_none_or(|found| pod.created >= found.since);
        let in_force_then = |name: &PolicyName| {
            let found = self.policies.about(self.namespace).find(|policy| policy.name == *name);
            found.is_some_and(|policy| policy.standing_in_time(pod.created) == Standing::Candidate)
        };
        annotated_before && policy.is_none_or(|name| pod.created >= said(name) && in_force_then(name))
    }
}

fn share(policy: &PolicyName, state: State, grants: bool) -> Share {
    Share {
        policy: policy.clone(),
        state,
        grants,
    }
}
