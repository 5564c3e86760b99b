//! Everything that is known about the cluster, and what follows from it for each pod and policy.
//!
//! Changes only mark what they concern. [`World::pass`] then looks again at that, and at nothing else: a pod that changed is
//! judged alone, a policy, namespace or service account has the pods of its namespace judged again.

mod contents;
mod finding;
mod judge;
mod list;
mod namespace;
mod policies;

pub(crate) use finding::{Cause, Finding, Report};
pub(crate) use namespace::SHARE;

use crate::{
    csi_drivers::CsiDrivers,
    drift::WatchedPod,
    identities::{Identities, Told},
    policy::build::{self, Facts, Issuer, NamespaceTokens, Tally},
};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace as KubeNamespace, ServiceAccount},
    storage::v1::CSIDriver,
};
use kube::{
    core::{DynamicObject, PartialObjectMeta},
    runtime::watcher::Event,
};
use list::Lists;
use namespace::Namespace;
use policies::Object;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokenscope_core::{LockMode, PolicyName, PolicySet, Settings, TokenSource};
use tokenscope_crds::v1alpha1::PolicyStatus;

/// How many pods one pass judges, and how many policies it compares with others: some hundred milliseconds of work even where
/// each is expensive, after which other tasks of the process get their turn.
const MOST_PODS: usize = 1000;
const MOST_POLICIES: usize = 64;

/// Something that a watch told.
#[derive(Debug)]
pub(crate) enum Change {
    /// Of a pod.
    Pod(Event<WatchedPod>),
    /// Of a namespace.
    Namespace(Event<PartialObjectMeta<KubeNamespace>>),
    /// Of a service account.
    ServiceAccount(Event<PartialObjectMeta<ServiceAccount>>),
    /// Of a policy of a namespace.
    Policy(Event<DynamicObject>),
    /// Of a policy of the cluster.
    ClusterPolicy(Event<DynamicObject>),
    /// Of a CSI driver.
    CsiDriver(Event<CSIDriver>),
    /// Of the cluster's issuer.
    Issuer(Issuer),
    /// Of who gives identities of SPIFFE.
    Identities(Told),
}

/// What is known and what follows.
pub(crate) struct World {
    settings: Settings,
    /// Whether pods of expired policies are evicted where the policies ask for it.
    evicts_expired: bool,
    own_namespace: Box<str>,
    issuer: Option<Issuer>,
    spiffe_issuer: Option<String>,
    identities: Identities,
    csi_drivers: CsiDrivers,
    lists: Lists,
    namespaces: HashMap<Box<str>, Namespace>,
    /// How many bytes are kept of each.
    share: usize,
    /// How many of them take more.
    over_share: usize,
    policies: PolicySet,
    objects: BTreeMap<PolicyName, Object>,
    tallies: HashMap<PolicyName, Tally>,
    totals: Tally,
    findings: BTreeMap<PodKey, Finding>,
    /// How many pods hold a token of a locked audience that no policy grants them.
    ungranted: usize,
    stale: Stale,
    next_change: Option<Timestamp>,
    /// Policies whose status may be another one now.
    concerned: BTreeSet<PolicyName>,
}

/// A pod's namespace and name.
pub(crate) type PodKey = (Box<str>, Box<str>);

/// What has to be looked at again.
#[derive(Default)]
struct Stale {
    everywhere: bool,
    namespaces: BTreeSet<Box<str>>,
    pods: BTreeSet<PodKey>,
    policies: BTreeSet<PolicyName>,
}

impl World {
    /// Nothing is known yet.
    pub(crate) fn new(
        settings: Settings,
        own_namespace: &str,
        spiffe_issuer: Option<String>,
        identities: Identities,
    ) -> Self {
        Self {
            settings,
            evicts_expired: false,
            own_namespace: own_namespace.into(),
            issuer: None,
            spiffe_issuer,
            identities,
            csi_drivers: CsiDrivers::default(),
            lists: Lists::default(),
            namespaces: HashMap::new(),
            share: SHARE,
            over_share: 0,
            policies: PolicySet::default(),
            objects: BTreeMap::new(),
            tallies: HashMap::new(),
            totals: Tally::default(),
            findings: BTreeMap::new(),
            ungranted: 0,
            stale: Stale::default(),
            next_change: None,
            concerned: BTreeSet::new(),
        }
    }

    /// The same, where the installation lets the operator evict pods of expired policies.
    pub(crate) fn evicting_expired(self, evicts_expired: bool) -> Self {
        Self { evicts_expired, ..self }
    }

    /// Whether it matters which tokens pods and CSI drivers hold: not where the lock is off.
    pub(crate) fn needs_csi_drivers(&self) -> bool {
        self.settings.lock.mode != LockMode::Off
    }

    /// What is not known yet; none once all lists were whole once and the issuer was asked for.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let drivers_are_known = !self.needs_csi_drivers() || self.lists.csi_drivers.whole;
        let lists = [
            (self.lists.namespaces.whole, "namespaces"),
            (self.lists.service_accounts.whole, "service accounts"),
            (self.lists.policies.whole, "policies"),
            (self.lists.cluster_policies.whole, "cluster policies"),
            (self.lists.pods.whole, "pods"),
            (drivers_are_known, "CSI drivers"),
        ];
        let list = lists.into_iter().find(|(whole, _)| !whole).map(|(_, what)| what);
        let issuer = || self.issuer.is_none().then_some("the cluster's issuer");
        list.or_else(issuer)
    }

    /// Takes in what a watch told.
    pub(crate) fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Pod(event) => self.apply_pod(event),
            Change::Namespace(event) => self.apply_namespace(event),
            Change::ServiceAccount(event) => self.apply_service_account(event),
            Change::Policy(event) => self.apply_policy(event, false, now),
            Change::ClusterPolicy(event) => self.apply_policy(event, true, now),
            Change::CsiDriver(event) => self.apply_csi_driver(event),
            Change::Identities(told) => {
                let changed = self.identities.apply(told);
                self.stale.everywhere |= changed
                    && self
                        .policies
                        .iter()
                        .any(|policy| policy.token.source == TokenSource::Spiffe);
            }
            Change::Issuer(issuer) => {
                if self.issuer.as_ref() != Some(&issuer) {
                    self.issuer = Some(issuer);
                    self.concern_all();
                }
            }
        }
    }

    fn apply_csi_driver(&mut self, event: Event<CSIDriver>) {
        self.lists.csi_drivers.whole |= matches!(event, Event::InitDone);
        if self.csi_drivers.apply(event) {
            self.stale.everywhere = true;
            self.concern_all();
        }
    }

    /// Whether anything has to be looked at again at `now`.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        let stale = &self.stale;
        stale.everywhere
            || !(stale.namespaces.is_empty() && stale.pods.is_empty() && stale.policies.is_empty())
            || self.next_change.is_some_and(|at| at <= now)
    }

    /// When a policy's expiry or schedule changes something next.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        self.next_change
    }

    /// Looks again at a part of what changed; it is to be called again as long as [`Self::is_stale`].
    pub(crate) fn pass(&mut self, now: Timestamp) {
        self.mark_due_policies(now);
        let mut policies = BTreeSet::new();
        while policies.len() < MOST_POLICIES
            && let Some(name) = self.stale.policies.pop_first()
        {
            policies.insert(name);
        }
        self.update_conflicts(&policies, now);
        self.concerned.extend(policies);
        if std::mem::take(&mut self.stale.everywhere) {
            self.stale.namespaces.extend(self.namespaces.keys().cloned());
        }
        let mut judged = 0;
        while judged < MOST_PODS {
            if let Some((namespace, pod)) = self.stale.pods.pop_first() {
                self.judge_pod(&namespace, &pod, now);
                judged += 1;
            } else if let Some(namespace) = self.stale.namespaces.pop_first() {
                let pods = self.namespaces.get(&namespace).into_iter();
                let pods = pods.flat_map(|around| around.pods.keys());
                self.stale.pods.extend(pods.map(|pod| (namespace.clone(), pod.clone())));
            } else {
                break;
            }
        }
    }

    /// A policy whose status may be another one now; each is given once.
    pub(crate) fn take_concerned(&mut self) -> Option<PolicyName> {
        self.concerned.pop_first()
    }

    /// Has the status of a policy looked at again.
    pub(crate) fn concern(&mut self, name: PolicyName) {
        self.concerned.insert(name);
    }

    /// Has the status of every policy looked at again.
    pub(crate) fn concern_all(&mut self) {
        self.concerned.extend(self.objects.keys().cloned());
    }

    /// The status that a policy has, and the one it should have.
    pub(crate) fn statuses(&self, name: &PolicyName, now: Timestamp) -> Option<(&PolicyStatus, PolicyStatus)> {
        let object = self.objects.get(name)?;
        let around = name.namespace().and_then(|namespace| self.namespaces.get(namespace));
        let policy = match &object.policy {
            Some(policy) if around.is_none_or(|around| !around.over_share) => policy.as_deref(),
            _ => {
                return Some((
                    &object.status,
                    build::over_share(&object.status, object.generation, now),
                ));
            }
        };
        let conflicts = object.conflicts.iter().filter_map(|other| self.policy(other));
        let facts = Facts {
            generation: object.generation,
            said: object.said(),
            policy,
            tally: self.tallies.get(name).copied().unwrap_or_default(),
            conflicts: conflicts.collect(),
            compared: object.compared,
            issuer: self.issuer.as_ref().unwrap_or(&Issuer::Unknown),
            spiffe_issuer: self.spiffe_issuer.as_deref(),
            default_audience: &self.settings.default_audience,
            evicts_expired: self.evicts_expired,
            tokens: around
                .filter(|_| self.needs_csi_drivers())
                .map(|around| NamespaceTokens {
                    pods: around.ungranted.len(),
                    names: around.ungranted.iter().map(|name| &**name).collect(),
                }),
            csi_drivers: self.csi_drivers_with_locked_tokens().collect(),
        };
        Some((&object.status, build::status(&object.status, &facts, now)))
    }

    /// The object that a status is of, for a patch that must not meet another one of the same name.
    pub(crate) fn uid(&self, name: &PolicyName) -> Option<&str> {
        self.objects.get(name)?.uid.as_deref()
    }

    /// How many pods stand how.
    pub(crate) fn totals(&self) -> Tally {
        self.totals
    }

    /// How many policies there are that are ready, and that are not.
    pub(crate) fn policies_by_readiness(&self) -> (usize, usize) {
        let ready = self
            .objects
            .values()
            .filter(|object| build::is_ready(&object.status))
            .count();
        (ready, self.objects.len() - ready)
    }

    /// How many pods hold a token of a locked audience that no policy grants them.
    pub(crate) fn pods_with_ungranted_token(&self) -> usize {
        self.ungranted
    }

    /// The CSI drivers that get tokens of a locked audience, by name.
    pub(crate) fn csi_drivers_with_locked_tokens(&self) -> impl Iterator<Item = &str> {
        let drivers = self.csi_drivers.with_locked_tokens(&self.settings.lock);
        drivers.filter(|_| self.needs_csi_drivers())
    }

    /// How many namespaces take more than their share, so that nothing in them is judged.
    pub(crate) fn namespaces_over_share(&self) -> usize {
        self.over_share
    }

    /// Whether a namespace that took more than its share has room again for what was not kept, so that lists are to be read anew.
    pub(crate) fn awaits_lists(&self) -> bool {
        self.over_share > 0 && self.namespaces.values().any(Namespace::awaits_lists)
    }

    /// The pods to which something is to be done.
    pub(crate) fn findings(&self) -> impl Iterator<Item = (&PodKey, &Finding)> {
        self.findings.iter()
    }
}

#[cfg(test)]
mod tests;
