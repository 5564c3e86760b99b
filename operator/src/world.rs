//! Everything that is known about the cluster, and what follows from it for each pod and policy.
//!
//! Changes only mark what they concern. [`World::pass`] then looks again at that, and at nothing else: a pod that changed is
//! judged alone, a policy, namespace or service account has the pods of its namespace judged again.

use crate::{
    drift::{Annotated, Pod, State, Surroundings, Verdict, WatchedPod},
    identities::{Identities, Told},
    policy::build::{self, Facts, Issuer, Tally},
    watching,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace as KubeNamespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time},
};
use kube::{
    core::{DynamicObject, ObjectMeta, PartialObjectMeta},
    runtime::watcher::Event,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use tokenscope_core::{
    Decision, DefaultConflicts, InvalidPolicy, Pairs, Policy, PolicyName, PolicySet, Settings, TokenSource, annotations,
};
use tokenscope_crds::{read, v1alpha1::PolicyStatus};

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
    /// Of the cluster's issuer.
    Issuer(Issuer),
    /// Of who gives identities of SPIFFE.
    Identities(Told),
}

/// What is known and what follows.
pub(crate) struct World {
    settings: Settings,
    own_namespace: Box<str>,
    issuer: Option<Issuer>,
    spiffe_issuer: Option<String>,
    identities: Identities,
    lists: Lists,
    namespaces: HashMap<Box<str>, Namespace>,
    policies: PolicySet,
    objects: BTreeMap<PolicyName, Object>,
    tallies: HashMap<PolicyName, Tally>,
    totals: Tally,
    missed: BTreeMap<PodKey, Missed>,
    last_reviewed: Timestamp,
    stale: Stale,
    next_change: Option<Timestamp>,
    /// Policies whose status may be another one now.
    concerned: BTreeSet<PolicyName>,
}

/// A pod's namespace and name.
pub(crate) type PodKey = (Box<str>, Box<str>);

/// A pod that runs without what it should have.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    /// Since when that is known.
    pub(crate) since: Timestamp,
    /// Which pod of that name.
    pub(crate) uid: Box<str>,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// Whether its controller would make another one, which would get what this one lacks.
    pub(crate) replaceable: bool,
}

/// What is told about a missed pod.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The pod.
    pub(crate) pod: Pod,
    /// What is wrong, for whoever reads it.
    pub(crate) message: String,
}

/// How far each watch's present list is.
#[derive(Default)]
struct Lists {
    pods: List,
    namespaces: List,
    service_accounts: List,
    policies: List,
    cluster_policies: List,
}

#[derive(Clone, Copy, Default)]
struct List {
    number: u32,
    whole: bool,
}

#[derive(Default)]
struct Namespace {
    /// None as long as only its contents are known.
    labels: Option<Pairs<Box<str>>>,
    list: u32,
    service_accounts: HashMap<Box<str>, (Annotated, u32)>,
    pods: HashMap<Box<str>, Tracked>,
}

struct Tracked {
    pod: Pod,
    verdict: Verdict,
    list: u32,
}

struct Object {
    uid: Option<String>,
    version: Option<String>,
    generation: Option<i64>,
    created: Timestamp,
    /// When this process first saw this generation.
    seen: Timestamp,
    policy: Result<Arc<Policy>, InvalidPolicy>,
    status: PolicyStatus,
    next_change: Option<Timestamp>,
    conflicts: BTreeSet<PolicyName>,
    /// Whether it could be compared with all policies that it may be in conflict with.
    compared: bool,
    list: u32,
}

/// What has to be looked at again.
#[derive(Default)]
struct Stale {
    everywhere: bool,
    namespaces: HashSet<Box<str>>,
    pods: HashSet<PodKey>,
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
            own_namespace: own_namespace.into(),
            issuer: None,
            spiffe_issuer,
            identities,
            lists: Lists::default(),
            namespaces: HashMap::new(),
            policies: PolicySet::default(),
            objects: BTreeMap::new(),
            tallies: HashMap::new(),
            totals: Tally::default(),
            missed: BTreeMap::new(),
            last_reviewed: Timestamp::MIN,
            stale: Stale::default(),
            next_change: None,
            concerned: BTreeSet::new(),
        }
    }

    /// What is not known yet; none once all lists were whole once and the issuer was asked for.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let lists = [
            (self.lists.namespaces, "namespaces"),
            (self.lists.service_accounts, "service accounts"),
            (self.lists.policies, "policies"),
            (self.lists.cluster_policies, "cluster policies"),
            (self.lists.pods, "pods"),
        ];
        let list = lists.into_iter().find(|(list, _)| !list.whole).map(|(_, what)| what);
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

    /// Looks again at what changed.
    pub(crate) fn pass(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        for (name, object) in &mut self.objects {
            if object.next_change.is_some_and(|at| at <= now) {
                object.next_change = object.policy.as_ref().ok().and_then(|policy| policy.next_change(now));
                due.push(name.clone());
            }
        }
        for name in due {
            self.mark_policy(&name);
        }
        self.next_change = self.objects.values().filter_map(|object| object.next_change).min();
        let stale = std::mem::take(&mut self.stale);
        self.update_conflicts(&stale.policies, now);
        self.concerned.extend(stale.policies);
        if stale.everywhere {
            let all: Vec<Box<str>> = self.namespaces.keys().cloned().collect();
            for namespace in all {
                self.judge_namespace(&namespace, now);
            }
            return;
        }
        for (namespace, pod) in &stale.pods {
            if !stale.namespaces.contains(namespace) {
                self.judge_pod(namespace, pod, now);
            }
        }
        for namespace in &stale.namespaces {
            self.judge_namespace(namespace, now);
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
        let conflicts = object.conflicts.iter().filter_map(|other| self.policy(other));
        let facts = Facts {
            generation: object.generation,
            said: object.said(),
            policy: object.policy.as_deref(),
            tally: self.tallies.get(name).copied().unwrap_or_default(),
            conflicts: conflicts.collect(),
            compared: object.compared,
            issuer: self.issuer.as_ref().unwrap_or(&Issuer::Unknown),
            spiffe_issuer: self.spiffe_issuer.as_deref(),
            default_audience: &self.settings.default_audience,
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

    /// The pods that run without what they should have.
    pub(crate) fn missed(&self) -> impl Iterator<Item = (&PodKey, &Missed)> {
        self.missed.iter()
    }

    /// What there is to tell about a missed pod.
    pub(crate) fn report(&self, (namespace, name): &PodKey, now: Timestamp) -> Option<Report> {
        let around = self.namespaces.get(namespace)?;
        let Tracked { pod, .. } = around.pods.get(name)?;
        let surroundings = self.surroundings(namespace, around, &pod.service_account)?;
        Some(Report {
            pod: pod.clone(),
            message: missed_message(&surroundings.decide(pod, now)),
        })
    }

    /// When the latest pod was created that the webhook has reviewed.
    pub(crate) fn last_reviewed(&self) -> Timestamp {
        self.last_reviewed
    }

    fn apply_pod(&mut self, event: Event<WatchedPod>) {
        match event {
            Event::Init => self.lists.pods.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let WatchedPod { namespace, pod, .. } = found;
                self.put_pod(namespace, pod);
            }
            Event::Delete(found) => self.remove_pod(&found.namespace, &found.pod.name),
            Event::InitDone => {
                let number = self.lists.pods.end();
                let mut gone = Vec::new();
                for (namespace, around) in &self.namespaces {
                    let unlisted = around.pods.values().filter(|tracked| tracked.list != number);
                    gone.extend(unlisted.map(|tracked| (namespace.clone(), tracked.pod.name.clone())));
                }
                for (namespace, pod) in gone {
                    self.remove_pod(&namespace, &pod);
                }
            }
        }
    }

    fn put_pod(&mut self, namespace: Box<str>, pod: Pod) {
        if pod.record.is_some() || pod.mark().is_some() {
            self.last_reviewed = self.last_reviewed.max(pod.created);
        }
        if !pod.running || self.is_left_alone(&namespace) {
            self.remove_pod(&namespace, &pod.name);
            return;
        }
        let list = self.lists.pods.number;
        let key = (namespace, pod.name.clone());
        let around = self.namespaces.entry(key.0.clone()).or_default();
        match around.pods.get_mut(&pod.name) {
            Some(tracked) if tracked.pod.is_same(&pod) => tracked.list = list,
            Some(tracked) => {
                tracked.pod = pod;
                tracked.list = list;
                self.stale.pods.insert(key);
            }
            None => {
                let verdict = Verdict::default();
                around.pods.insert(pod.name.clone(), Tracked { pod, verdict, list });
                self.stale.pods.insert(key);
            }
        }
    }

    fn remove_pod(&mut self, namespace: &str, pod: &str) {
        let Some(around) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if let Some(tracked) = around.pods.remove(pod) {
            self.count(&tracked.verdict, -1);
            self.missed.remove(&(namespace.into(), pod.into()));
        }
        self.forget_empty(namespace);
    }

    fn apply_namespace(&mut self, event: Event<PartialObjectMeta<KubeNamespace>>) {
        match event {
            Event::Init => self.lists.namespaces.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let name: Box<str> = found.metadata.name.unwrap_or_default().into();
                let around = self.namespaces.entry(name.clone()).or_default();
                around.list = self.lists.namespaces.number;
                let labels = Some(pairs(found.metadata.labels, |_| true));
                if around.labels != labels {
                    around.labels = labels;
                    self.stale.namespaces.insert(name);
                }
            }
            Event::Delete(found) => self.remove_namespace(&found.metadata.name.unwrap_or_default()),
            Event::InitDone => {
                let number = self.lists.namespaces.end();
                let known = self.namespaces.iter().filter(|(_, around)| around.labels.is_some());
                let gone = known
                    .filter(|(_, around)| around.list != number)
                    .map(|(name, _)| name.clone());
                for name in gone.collect::<Vec<_>>() {
                    self.remove_namespace(&name);
                }
            }
        }
    }

    fn remove_namespace(&mut self, name: &str) {
        if let Some(around) = self.namespaces.get_mut(name) {
            around.labels = None;
            self.stale.namespaces.insert(name.into());
        }
        self.forget_empty(name);
    }

    fn apply_service_account(&mut self, event: Event<PartialObjectMeta<ServiceAccount>>) {
        match event {
            Event::Init => self.lists.service_accounts.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let metadata = found.metadata;
                let namespace: Box<str> = metadata.namespace.clone().unwrap_or_default().into();
                let name: Box<str> = metadata.name.clone().unwrap_or_default().into();
                let list = self.lists.service_accounts.number;
                match annotated(metadata) {
                    None => self.remove_service_account(&namespace, &name),
                    Some(found) => {
                        let around = self.namespaces.entry(namespace.clone()).or_default();
                        let before = around.service_accounts.insert(name, (found.clone(), list));
                        if before.is_none_or(|(before, _)| before != found) {
                            self.stale.namespaces.insert(namespace);
                        }
                    }
                }
            }
            Event::Delete(found) => {
                let metadata = found.metadata;
                self.remove_service_account(
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.name.as_deref().unwrap_or_default(),
                );
            }
            Event::InitDone => {
                let number = self.lists.service_accounts.end();
                let mut gone = Vec::new();
                for (namespace, around) in &self.namespaces {
                    let unlisted = around.service_accounts.iter().filter(|(_, (_, list))| *list != number);
                    gone.extend(unlisted.map(|(name, _)| (namespace.clone(), name.clone())));
                }
                for (namespace, name) in gone {
                    self.remove_service_account(&namespace, &name);
                }
            }
        }
    }

    fn remove_service_account(&mut self, namespace: &str, name: &str) {
        let Some(around) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if around.service_accounts.remove(name).is_some() {
            self.stale.namespaces.insert(namespace.into());
            self.forget_empty(namespace);
        }
    }

    fn apply_policy(&mut self, event: Event<DynamicObject>, cluster: bool, now: Timestamp) {
        let list = if cluster {
            &mut self.lists.cluster_policies
        } else {
            &mut self.lists.policies
        };
        match event {
            Event::Init => list.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let number = list.number;
                self.put_policy(&found, number, now);
            }
            Event::Delete(found) => self.remove_policy(&read::name(&found)),
            Event::InitDone => {
                let number = list.end();
                let of_kind = self.objects.iter().filter(|(name, _)| name.is_cluster() == cluster);
                let gone = of_kind
                    .filter(|(_, object)| object.list != number)
                    .map(|(name, _)| name.clone());
                for name in gone.collect::<Vec<_>>() {
                    self.remove_policy(&name);
                }
            }
        }
    }

    /// Takes in an object as the API server gave it, also in answer to an own write.
    pub(crate) fn put_policy_now(&mut self, object: &DynamicObject, now: Timestamp) {
        let name = read::name(object);
        // One that was deleted meanwhile does not come back by this way.
        if let Some(number) = self.objects.get(&name).map(|known| known.list) {
            self.put_policy(object, number, now);
        }
    }

    fn put_policy(&mut self, object: &DynamicObject, list: u32, now: Timestamp) {
        let (name, policy) = read::read(object);
        let policy = policy.map(Arc::new);
        let status = read::status(object);
        let metadata = &object.metadata;
        if let Some(known) = self.objects.get_mut(&name)
            && known.uid == metadata.uid
        {
            known.list = list;
            if watching::is_older(metadata.resource_version.as_deref(), known.version.as_deref()) {
                return;
            }
            known.version.clone_from(&metadata.resource_version);
            if known.status != status {
                known.status = status.clone();
                self.concerned.insert(name.clone());
            }
            if known.generation == metadata.generation && known.policy == policy {
                return;
            }
        }
        let next_change = policy.as_ref().ok().and_then(|policy| policy.next_change(now));
        match &policy {
            Ok(policy) => self.policies.insert(policy.clone()),
            Err(why) => self.policies.insert_invalid(name.clone(), &why.to_string()),
        }
        let conflicts = self
            .objects
            .remove(&name)
            .map(|known| known.conflicts)
            .unwrap_or_default();
        let found = Object {
            uid: metadata.uid.clone(),
            version: metadata.resource_version.clone(),
            generation: metadata.generation,
            created: created(metadata),
            seen: whole_seconds(now),
            policy,
            status,
            next_change,
            conflicts,
            compared: true,
            list,
        };
        self.objects.insert(name.clone(), found);
        self.mark_policy(&name);
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        if let Some(object) = self.objects.remove(name) {
            self.policies.remove(name);
            for other in object.conflicts {
                if let Some(conflicting) = self.objects.get_mut(&other) {
                    conflicting.conflicts.remove(name);
                    self.concerned.insert(other);
                }
            }
            self.concerned.remove(name);
            self.mark_policy(name);
        }
    }

    fn mark_policy(&mut self, name: &PolicyName) {
        match name.namespace() {
            Some(namespace) => {
                self.stale.namespaces.insert(namespace.into());
            }
            None => self.stale.everywhere = true,
        }
        self.stale.policies.insert(name.clone());
    }

    fn update_conflicts(&mut self, names: &BTreeSet<PolicyName>, now: Timestamp) {
        let mut conflicts = DefaultConflicts::new(&self.policies, now);
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let found = conflicts.of(self.policy(name)?);
                let with = found.with.into_iter().map(|other| other.name.clone()).collect();
                Some((name, with, found.complete))
            })
            .collect();
        let unreadable = names.iter().filter(|name| self.policy(name).is_none());
        let unreadable: Vec<_> = unreadable.map(|name| (name, BTreeSet::new(), true)).collect();
        for (name, with, complete) in found.into_iter().chain(unreadable) {
            self.note_conflicts(name, with, complete);
        }
    }

    /// Both sides of a conflict know of it.
    fn note_conflicts(&mut self, name: &PolicyName, found: BTreeSet<PolicyName>, complete: bool) {
        let Some(object) = self.objects.get_mut(name) else {
            return;
        };
        object.compared = complete;
        let before = std::mem::replace(&mut object.conflicts, found.clone());
        for other in before.union(&found) {
            if let Some(object) = self.objects.get_mut(other) {
                if found.contains(other) {
                    object.conflicts.insert(name.clone());
                } else if complete {
                    object.conflicts.remove(name);
                }
                // Also where they stay in conflict: its message names this one's role.
                self.concerned.insert(other.clone());
            }
        }
    }

    fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        self.objects.get(name)?.policy.as_deref().ok()
    }

    fn judge_namespace(&mut self, namespace: &str, now: Timestamp) {
        let Some(around) = self.namespaces.get(namespace) else {
            return;
        };
        let pods: Vec<Box<str>> = around.pods.keys().cloned().collect();
        for pod in pods {
            self.judge_pod(namespace, &pod, now);
        }
    }

    fn judge_pod(&mut self, namespace: &str, pod: &str, now: Timestamp) {
        let Some(around) = self.namespaces.get(namespace) else {
            return;
        };
        let Some(Tracked {
            pod: facts,
            verdict: before,
            ..
        }) = around.pods.get(pod)
        else {
            return;
        };
        let said = |name: &PolicyName| self.objects.get(name).map_or(Timestamp::MAX, Object::said);
        let verdict = self
            .surroundings(namespace, around, &facts.service_account)
            .map(|surroundings| surroundings.judge(facts, now, said))
            .unwrap_or_default();
        let key = || (Box::from(namespace), Box::from(pod));
        if verdict.state == Some(State::Missed) {
            let known = self.missed.get(&key()).filter(|known| known.uid == facts.uid);
            let missed = Missed {
                since: known.map_or(now, |known| known.since),
                uid: facts.uid.clone(),
                created: facts.created,
                replaceable: verdict.curable && facts.controller().is_some(),
            };
            self.missed.insert(key(), missed);
        } else if before.state == Some(State::Missed) {
            self.missed.remove(&key());
        }
        if verdict == *before {
            return;
        }
        let before = before.clone();
        self.count(&before, -1);
        self.count(&verdict, 1);
        if let Some(tracked) = self
            .namespaces
            .get_mut(namespace)
            .and_then(|around| around.pods.get_mut(pod))
        {
            tracked.verdict = verdict;
        }
    }

    fn surroundings<'a>(
        &'a self,
        namespace: &'a str,
        around: &'a Namespace,
        service_account: &str,
    ) -> Option<Surroundings<'a>> {
        Some(Surroundings {
            namespace,
            namespace_labels: around.labels.as_ref()?,
            service_account: around.service_accounts.get(service_account).map(|(found, _)| found),
            policies: &self.policies,
            settings: &self.settings,
            identities: &self.identities,
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

    /// The namespaces that the webhook configuration leaves out: the control plane's and our own.
    fn is_left_alone(&self, namespace: &str) -> bool {
        namespace == "kube-system" || *namespace == *self.own_namespace
    }

    fn forget_empty(&mut self, namespace: &str) {
        let is_empty = |around: &Namespace| {
            around.labels.is_none() && around.pods.is_empty() && around.service_accounts.is_empty()
        };
        if self.namespaces.get(namespace).is_some_and(is_empty) {
            self.namespaces.remove(namespace);
        }
    }
}

impl Object {
    /// Since when it says what it says.
    fn said(&self) -> Timestamp {
        if self.generation.is_none_or(|generation| generation <= 1) {
            return self.created;
        }
        let noted = self.status.generation_observed_at.as_ref();
        match noted.filter(|_| self.status.observed_generation == self.generation) {
            Some(Time(at)) => *at,
            None => self.seen,
        }
    }
}

impl List {
    fn begin(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    fn end(&mut self) -> u32 {
        self.whole = true;
        self.number
    }
}

fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |Time(at)| *at)
}

/// As the API server keeps times.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn pairs(map: Option<BTreeMap<String, String>>, keep: impl Fn(&str) -> bool) -> Pairs<Box<str>> {
    let kept = map.into_iter().flatten().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (key.into(), value.into())).collect()
}

/// What matters of a service account, if anything does.
fn annotated(metadata: ObjectMeta) -> Option<Annotated> {
    let created = created(&metadata);
    let written = metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| owns_relevant_annotation(entry));
    let since = written
        .filter_map(|entry| entry.time.as_ref())
        .map(|Time(at)| *at)
        .max();
    let annotations = pairs(metadata.annotations, annotations::is_relevant);
    (!annotations.is_empty()).then(|| Annotated {
        annotations,
        since: since.unwrap_or(created),
    })
}

/// Whether whoever the entry is about wrote an annotation that can change a decision (metav1.FieldsV1).
fn owns_relevant_annotation(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry
        .fields_v1
        .as_ref()
        .and_then(|fields| fields.0.get("f:metadata")?.get("f:annotations")?.as_object());
    let keys = fields
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("f:"));
    keys.into_iter().any(annotations::is_relevant)
}

fn missed_message(decision: &Decision) -> String {
    match decision {
        Decision::Granted(granted) => {
            let reason = granted.containers.first().map_or("", |granted| &granted.reason);
            format!(
                "runs without the AWS credentials that it should have ({reason}): the webhook was not asked or did not know it yet when the pod was created. Create it anew to repair it"
            )
        }
        Decision::Denied(denied) => {
            format!("asks for an AWS role, runs without, and was never reviewed; a new pod would be refused: {denied}")
        }
        Decision::Untouched(reason) => format!("runs without a review: {reason}"),
    }
}

#[cfg(test)]
mod tests;
