//! The certainty that a pod that runs without a grant should have got it when it was created.
//!
//! It is certain only where the process has seen all that the grant rests on since then, and nothing was removed that may have kept the
//! grant away. Otherwise the times in the objects themselves say whether it is possible.
//!
//! Times of the API server have whole seconds, so only what is older by the second is older for certain. And a pod is created after its
//! review: the API server asks the mutating webhooks one after the other, and sets the time of creation when the last one has answered.
//! So a fact is older than the pod for certain only if it was so at the earliest moment at which the pod may have been reviewed.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use tokenscope_core::annotations::{self, EKS_SKIP, GRANT, INJECT, REQUIRED, REVIEWED};
use tokenscope_core::{
    Decision, Granted, Policy, PolicyName, Selector, Standing, Subject, TokenSource, UnusablePolicy,
};

use super::assessor::Certainty;
use super::{Assessor, ChangedKeys, KeptPod, PolicyAge};
use crate::history::{Ages, Removed};

/// The precision of the API server's times.
const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// The most moments at which a pod's decision is made again. Where policies open or end at more moments around the pod's creation, nothing
/// is proven.
const MOST_MOMENTS: usize = 16;
/// The most policies with a schedule of which it is found out when they were in force around a pod's creation, which takes a millisecond
/// where a schedule hardly ever opens. Where there are more, nothing is proven.
const MOST_SCHEDULES: usize = 64;

impl Assessor<'_> {
    /// The certainty that the pod asked for what it asks for now when it was created, and was to be reviewed: no annotation was written
    /// later, and the namespace was not opted out then.
    pub(super) fn asked_when_created(&self, pod: &KeptPod) -> Certainty {
        let earliest = self.earliest_review(pod);
        let is_unchanged = |keys: &[Box<str>]| keys.iter().all(|key| !is_own_key(key));
        let is_proven = self.ages.past.is_known(earliest, pod.created)
            && self.ages.namespace.is_kept(INJECT, earliest, pod.created)
            && pod.known_changes().is_some_and(is_unchanged);
        let is_original = pod.annotation_keys().all(|key| !pod.came_late(key));
        let is_plausible = is_original && pod.created > self.ages.namespace.since(INJECT);
        Certainty::of(is_proven, is_plausible)
    }

    /// The earliest moment at which a pod may have been reviewed. The last one is its creation.
    fn earliest_review(&self, pod: &KeptPod) -> Timestamp {
        pod.created.checked_sub(self.review_margin).unwrap_or(Timestamp::MIN)
    }

    /// The certainty that all that a policy's grant rests on was so when the pod was created. `is_known` says it of everything around the
    /// policy ([`Self::is_known_around`]).
    pub(super) fn was_in_force(
        &self,
        pod: &KeptPod,
        policy: Option<&PolicyName>,
        is_known: bool,
        age_of: impl Fn(&PolicyName) -> PolicyAge,
    ) -> Certainty {
        let earliest = self.earliest_review(pod);
        let is_proven = is_known && policy.is_none_or(|name| earliest > age_of(name).seen);
        let is_plausible = || {
            let account = self.ages.account.map_or(Timestamp::UNIX_EPOCH, Ages::latest);
            let asked = self.asked_when_created(pod) != Certainty::No;
            let around = asked && pod.created > account && self.was_within_boundaries(pod, policy);
            around && policy.is_none_or(|name| self.says_it_was_in_force(pod, name, age_of(name).told))
        };
        let certainty = Certainty::of(is_proven, is_proven || is_plausible());
        if self.marks_refused_pods() {
            certainty
        } else {
            // It may have been reviewed and refused.
            certainty.min(Certainty::Maybe)
        }
    }

    /// True if every pod bears a mark that was reviewed and may not have what it asks for. In namespaces where pods are never denied the
    /// webhook leaves such a pod as it is, so a missing mark proves nothing there.
    pub(super) fn marks_refused_pods(&self) -> bool {
        !self.settings.never_denies(self.context.namespace)
    }

    /// True if a policy gave the pod the same when it was created, as far as the objects tell.
    fn says_it_was_in_force(&self, pod: &KeptPod, name: &PolicyName, told: Timestamp) -> bool {
        self.policy(name).is_some_and(|policy| {
            let mut keys = policy.namespace_selector.0.iter();
            pod.created > told
                && policy.standing_in_time(pod.created) == Standing::Candidate
                && keys.all(|requirement| pod.created > self.ages.namespace.since(&requirement.key))
                && policy.subjects.iter().any(|subject| {
                    let mut keys = subject.pod_selector.iter().flat_map(|selector| &selector.0);
                    subject.matches(&pod.service_account, &pod.labels)
                        && keys.all(|requirement| !pod.came_late(&requirement.key))
                })
        })
    }

    /// True if no boundary kept the grant away that doesn't any more, as far as the objects tell. Boundaries are not about cluster
    /// policies.
    fn was_within_boundaries(&self, pod: &KeptPod, policy: Option<&PolicyName>) -> bool {
        if policy.is_some_and(PolicyName::is_cluster) {
            return true;
        }
        let mut keys = self.policies.boundary_label_keys();
        pod.created > self.ages.boundaries && keys.all(|key| pod.created > self.ages.namespace.since(key))
    }

    /// True if a decision about the pod at its creation was the same for certain, but for the age of the policies that grant now: all
    /// that it would have read is known, and so is what went since.
    pub(super) fn is_known_around(&self, pod: &KeptPod, granted: &Granted) -> bool {
        let (earliest, latest) = (self.earliest_review(pod), pod.created);
        let account = self.ages.account.map_or(Timestamp::UNIX_EPOCH, Ages::latest);
        let mut keys = self.namespace_keys();
        self.ages.past.is_known(earliest, latest)
            && earliest > account
            && self.has_kept_its_keys(pod)
            && keys.all(|key| self.ages.namespace.is_kept(key, earliest, latest))
            && !self.has_lost_an_obstacle(pod, granted)
            && self.was_granted_the_same(pod, granted)
    }

    /// True if no label or annotation of the pod has changed that a decision reads.
    fn has_kept_its_keys(&self, pod: &KeptPod) -> bool {
        let Some(changed) = pod.known_changes() else {
            return false;
        };
        let mut selecting = self
            .selectors_around()
            .flat_map(|(_, subjects)| subjects)
            .flat_map(pod_keys);
        changed.is_empty()
            || changed.iter().all(|key| !is_own_key(key))
                && selecting.all(|key| changed.iter().all(|own| **own != *key))
    }

    /// The keys of the namespace's labels that a decision reads.
    fn namespace_keys(&self) -> impl Iterator<Item = &str> {
        let selectors = self.selectors_around().flat_map(|(selector, _)| &selector.0);
        let selecting = selectors.map(|requirement| &*requirement.key);
        [INJECT, REQUIRED]
            .into_iter()
            .chain(selecting)
            .chain(self.policies.boundary_label_keys())
    }

    /// True if the policies that are there now gave the pod the same at every moment at which it may have been reviewed: others may be
    /// closed or over since.
    fn was_granted_the_same(&self, pod: &KeptPod, granted: &Granted) -> bool {
        // What a window's opening or a policy's end let through within the second may have come after the review.
        let Ok(first) = self.earliest_review(pod).checked_sub(SECOND) else {
            return false;
        };
        if self.schedules() > MOST_SCHEDULES {
            return false;
        }
        let last = pod.created;
        let mut moments = BTreeSet::from([first]);
        let policies = self.policies.about(self.context.namespace);
        moments.extend(policies.flat_map(|policy| changes(move |at| policy.next_change(at), first, last)));
        let unusable = self.policies.unusable_about(self.context.namespace);
        let scopes = unusable.filter_map(UnusablePolicy::scope);
        moments.extend(scopes.flat_map(|scope| changes(move |at| scope.next_change(at), first, last)));
        // Each is a decision, and whoever writes policies makes their number.
        moments.len() <= MOST_MOMENTS
            && moments
                .into_iter()
                .all(|at| self.was_granted_the_same_at(pod, granted, at))
    }

    /// The number of policies about the namespace that have a schedule.
    fn schedules(&self) -> usize {
        let policies = self.policies.about(self.context.namespace);
        let unusable = self.policies.unusable_about(self.context.namespace);
        let of_unusable = unusable.filter_map(|policy| policy.scope()?.active_schedule.as_ref());
        policies.filter(|policy| policy.active_schedule.is_some()).count() + of_unusable.count()
    }

    fn was_granted_the_same_at(&self, pod: &KeptPod, granted: &Granted, at: Timestamp) -> bool {
        let Decision::Granted(then) = self.decide(pod, at) else {
            return false;
        };
        let what = |granted: &Granted| -> Vec<_> {
            let containers = granted.containers.iter();
            containers
                .map(|granted| (granted.container, granted.grant.clone()))
                .collect()
        };
        what(&then) == what(granted)
    }

    /// True if something is gone since the pod may have been reviewed first that may have kept the grant away.
    fn has_lost_an_obstacle(&self, pod: &KeptPod, granted: &Granted) -> bool {
        let since = self.earliest_review(pod);
        let mut removed = self.ages.past.removed_since(self.context.namespace, since);
        removed.any(|removed| match removed {
            Removed::Policy(policy) => self.may_have_selected(pod, policy) || competed_for_keys(policy, granted),
            Removed::Boundary(selector) => self.may_have_selected_namespace(pod, selector),
            Removed::Account(name) => *name == pod.service_account,
            Removed::Unknown => true,
        })
    }

    fn may_have_selected(&self, pod: &KeptPod, policy: &Policy) -> bool {
        let changed = pod.known_changes().unwrap_or_default();
        let selects = |subject: &Subject| {
            subject.matches(&pod.service_account, &pod.labels)
                || subject.matches_service_account(&pod.service_account)
                    && pod_keys(subject).any(|key| changed.iter().any(|own| **own == *key))
        };
        let is_of_others = policy.name.namespace().is_some_and(|own| own != self.context.namespace);
        !is_of_others
            && self.may_have_selected_namespace(pod, &policy.namespace_selector)
            && policy.subjects.iter().any(selects)
    }

    fn may_have_selected_namespace(&self, pod: &KeptPod, selector: &Selector) -> bool {
        let earliest = self.earliest_review(pod);
        let mut keys = selector.0.iter().map(|requirement| &*requirement.key);
        selector.matches(&self.context.namespace_labels)
            || keys.any(|key| !self.ages.namespace.is_kept(key, earliest, pod.created))
    }

    /// The selectors of namespaces and pods by which policies select, those that can't be used included.
    fn selectors_around(&self) -> impl Iterator<Item = (&Selector, &[Subject])> {
        let policies = self.policies.about(self.context.namespace);
        let usable = policies.map(|policy| (&policy.namespace_selector, policy.subjects.as_slice()));
        let scopes = self.policies.unusable_about(self.context.namespace);
        let scopes = scopes.filter_map(UnusablePolicy::scope);
        usable.chain(scopes.map(|scope| (&scope.namespace_selector, scope.subjects.as_slice())))
    }
}

impl KeptPod {
    /// The keys that have changed since it was created; none where that is not known.
    fn known_changes(&self) -> Option<&[Box<str>]> {
        match &self.changed_keys {
            ChangedKeys::Unknown => None,
            ChangedKeys::Known(keys) => Some(keys),
        }
    }
}

/// The times after the first of these moments, until the last, at which something changes whose next change after a moment is known.
fn changes(
    next: impl Fn(Timestamp) -> Option<Timestamp>,
    first: Timestamp,
    last: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    std::iter::successors(next(first), move |at| next(*at)).take_while(move |at| *at <= last)
}

/// True for a key of a pod that a decision reads whatever the policies.
fn is_own_key(key: &str) -> bool {
    annotations::decides(key) || [REVIEWED, GRANT, EKS_SKIP].contains(&key)
}

/// The keys by which a subject selects pods.
fn pod_keys(subject: &Subject) -> impl Iterator<Item = &str> {
    let requirements = subject.pod_selector.iter().flat_map(|selector| &selector.0);
    requirements.map(|requirement| &*requirement.key)
}

/// True if a policy took context keys of the issuer, of which there are few for all policies.
fn competed_for_keys(policy: &Policy, granted: &Granted) -> bool {
    let is_of_issuer = |source| source == TokenSource::Issuer;
    is_of_issuer(policy.token.source)
        && !policy.claims.context.is_empty()
        && granted
            .containers
            .iter()
            .any(|granted| is_of_issuer(granted.grant.source))
}
