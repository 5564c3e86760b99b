//! Everything that is known about the cluster, and what follows from it for each pod and policy. No API server, no clock.
//!
//! [`Index::apply`] takes an event in and only marks what it affects as dirty. [`Index::reassess`] looks again at that, and at
//! nothing else: a pod that changed is assessed alone; a policy, namespace or service account has the pods of its namespace
//! assessed again. What follows for a policy is read by [`Index::take_dirty_status`] and [`Index::policy_info`], what follows
//! for pods by [`Index::findings`].

mod assessments;
mod conflicts;
mod contents;
mod dirty;
mod event;
mod facts;
mod findings;
mod labels;
mod pods;
mod policies;
mod refusals;
mod share;
mod shared;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assessments::Assessments;
use contents::{AnnotatedAccount, KnownNamespace};
use dirty::Dirty;
pub(crate) use event::IndexEvent;
pub(crate) use facts::PolicyFacts;
pub(crate) use findings::{Cause, Finding, MissedPodReport, Siblings};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;
use policies::{PolicyObject, SeenBoundary};
use refusals::RefusingNamespaces;
use share::SHARE;
pub(crate) use shared::SharedIndex;
use tokenscope_core::lock::LockMode;
use tokenscope_core::{ClusterName, ContextKeys, PolicyName, Settings};
use tokenscope_index::{CsiDrivers, PolicyIndex, Store, WebhookCount};

use crate::drift::{KeptPod, PodCounts};
use crate::history::{Past, Watched};
use crate::issuer::Issuer;
use crate::spiffe_ids::SpiffeIds;

/// A pod's namespace and name.
pub(crate) type PodKey = (Box<str>, Box<str>);

/// The settings of the installation.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// For all pods.
    pub(crate) settings: Settings,
    /// The operator's own namespace.
    pub(crate) own_namespace: Box<str>,
    /// True if pods of expired policies are evicted where the policies ask for it.
    pub(crate) evicts_expired: bool,
    /// The longest time from a pod's review to its creation.
    pub(crate) review_margin: SignedDuration,
    /// The issuer of the SPIFFE provider's tokens.
    pub(crate) spiffe_issuer: Option<String>,
    /// The cluster's name before the subjects of the tokens of tokenscope's own issuer.
    pub(crate) cluster_name: Option<ClusterName>,
}

/// The cluster as it is known, and what follows from it.
pub(crate) struct Index {
    installation: Installation,
    issuer: Option<Issuer>,
    spiffe_ids: SpiffeIds,
    csi_drivers: CsiDrivers,
    namespaces: Store<KnownNamespace>,
    service_accounts: Store<AnnotatedAccount>,
    pods: Store<KeptPod>,
    policies: PolicyIndex,
    /// The boundaries that are there: how each was last seen.
    boundaries: BTreeMap<Box<str>, SeenBoundary>,
    /// The time since which boundaries allow what they allow, as they tell themselves.
    boundaries_since: Timestamp,
    /// The past as far as this process has seen it.
    past: Past,
    objects: BTreeMap<PolicyName, PolicyObject>,
    /// The context keys when policies changed last.
    context_keys: Arc<ContextKeys>,
    /// Namespaces with labels of ours that have no effect.
    ineffective_labels: BTreeSet<Box<str>>,
    /// Namespaces of which not all is kept, so that nothing in them is assessed.
    over_share: BTreeSet<Box<str>>,
    /// The count of what the webhook keeps.
    for_webhook: WebhookCount,
    /// Where it may refuse pods because of what it does not keep.
    refusals: RefusingNamespaces,
    assessments: Assessments,
    dirty: Dirty,
    next_change: Option<Timestamp>,
}

impl Index {
    /// An index in which nothing is known yet.
    pub(crate) fn new(installation: Installation, spiffe_ids: SpiffeIds) -> Self {
        Self::with_share(installation, spiffe_ids, SHARE)
    }

    /// True if it matters which tokens pods and CSI drivers hold: not where the lock is off.
    pub(crate) fn needs_csi_drivers(&self) -> bool {
        self.installation.settings.lock.mode != LockMode::Off
    }

    /// The first list that is not known yet; none once all lists were whole once and the issuer was asked for.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let drivers_are_known = !self.needs_csi_drivers() || self.csi_drivers.is_synced();
        let lists = [
            (self.namespaces.is_synced(), "namespaces"),
            (self.service_accounts.is_synced(), "service accounts"),
            (self.policies.store(false).is_synced(), "policies"),
            (self.policies.store(true).is_synced(), "cluster policies"),
            (self.policies.boundaries().is_synced(), "boundaries"),
            (self.pods.is_synced(), "pods"),
            (drivers_are_known, "CSI drivers"),
        ];
        let list = lists.into_iter().find(|(synced, _)| !synced).map(|(_, kind)| kind);
        let issuer = || self.issuer.is_none().then_some("the cluster's issuer");
        list.or_else(issuer)
    }

    /// Takes an event in.
    pub(crate) fn apply(&mut self, event: IndexEvent, now: Timestamp) {
        self.note_past(&event, now);
        let kept_by_webhook = self.count_for_webhook(&event);
        match event {
            IndexEvent::Pod(event) => self.apply_pod(event, now),
            IndexEvent::Namespace(event) => self.apply_namespace(event, now),
            IndexEvent::ServiceAccount(event) => self.apply_service_account(event, now),
            IndexEvent::Policy(event) => self.apply_policy(event, false, now),
            IndexEvent::ClusterPolicy(event) => self.apply_policy(event, true, now),
            IndexEvent::Boundary(event) => self.apply_boundary(event, now),
            IndexEvent::CsiDriver(event) => self.apply_csi_driver(event),
            IndexEvent::SpiffeId(event) => self.apply_spiffe_id(event),
            IndexEvent::Issuer(issuer) => {
                if self.issuer.as_ref() != Some(&issuer) {
                    self.issuer = Some(issuer);
                    self.enqueue_all_statuses();
                }
            }
        }
        self.note_kept_by_webhook(&kept_by_webhook, now);
    }

    /// Notes what the past is known by. After an interruption less of it is.
    fn note_past(&mut self, event: &IndexEvent, now: Timestamp) {
        if let IndexEvent::Pod(Event::Apply(found)) = event {
            self.past.note_time(found.kept.created, now);
        }
        let now = self.past.time(now);
        let past = &mut self.past;
        self.dirty.everywhere |= match event {
            IndexEvent::Namespace(event) => past.note_event(Watched::Namespaces, event, now),
            IndexEvent::ServiceAccount(event) => past.note_event(Watched::ServiceAccounts, event, now),
            IndexEvent::Policy(event) => past.note_event(Watched::Policies, event, now),
            IndexEvent::ClusterPolicy(event) => past.note_event(Watched::ClusterPolicies, event, now),
            IndexEvent::Boundary(event) => past.note_event(Watched::Boundaries, event, now),
            _ => false,
        };
    }

    /// True if anything has to be assessed again at `now`.
    pub(crate) fn is_dirty(&self, now: Timestamp) -> bool {
        self.dirty.has_pods_or_policies() || self.next_change().is_some_and(|at| at <= now)
    }

    /// The time when a policy's expiry or schedule changes something next, or the webhook no longer refuses the pods of a namespace.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.next_change.into_iter().chain(self.refusals.next_end()).min()
    }

    /// The number of pods in each state.
    pub(crate) fn totals(&self) -> PodCounts {
        self.assessments.totals()
    }

    /// The number of policies that are ready, and of those that are not.
    pub(crate) fn policies_by_readiness(&self) -> (usize, usize) {
        let ready = self.objects.values().filter(|object| object.is_ready()).count();
        (ready, self.objects.len() - ready)
    }

    /// The number of pods that hold a token of a locked audience that no policy grants them.
    pub(crate) fn pods_with_ungranted_token(&self) -> usize {
        self.assessments.ungranted()
    }

    /// The CSI drivers that get tokens of a locked audience, by name.
    pub(crate) fn csi_drivers_with_locked_tokens(&self) -> impl Iterator<Item = &str> {
        let drivers = self.csi_drivers.with_locked_tokens(&self.installation.settings.lock);
        drivers.filter(|_| self.needs_csi_drivers())
    }

    /// The context keys of all policies, once all policies are known.
    pub(crate) fn known_context_keys(&self) -> Option<Arc<ContextKeys>> {
        self.waits_for().is_none().then(|| self.context_keys.clone())
    }

    /// The pods to which something is to be done.
    pub(crate) fn findings(&self) -> impl Iterator<Item = (&PodKey, &Finding)> {
        self.assessments.findings()
    }
}

#[cfg(test)]
mod tests;
