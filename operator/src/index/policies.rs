//! Events of policies, and what is known of each.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use tokenscope_core::{InvalidPolicy, Policy, PolicyName, Selector};
use tokenscope_crds::conditions::ConditionType;
use tokenscope_crds::read;
use tokenscope_crds::v1alpha1::PolicyStatus;
use tokenscope_index::{PolicyUpdate, estimate};

use super::Index;
use crate::drift::PolicyAge;
use crate::history::{Removed, created, latest_write};
use crate::versions::is_older;

/// A policy as the API server has it.
pub(super) struct PolicyObject {
    pub(super) uid: Option<String>,
    version: Option<String>,
    pub(super) generation: Option<i64>,
    created: Timestamp,
    /// The time at which this process first saw this generation.
    seen: Timestamp,
    /// Its statement; none where its namespace's share left no room for it.
    pub(super) policy: Option<Result<Arc<Policy>, InvalidPolicy>>,
    pub(super) status: PolicyStatus,
    pub(super) next_change: Option<Timestamp>,
    pub(super) conflicts: BTreeSet<PolicyName>,
    /// True if it could be compared with all policies that it may be in conflict with.
    pub(super) compared: bool,
}

impl PolicyObject {
    /// Its statement, if that makes sense.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()?.as_deref().ok()
    }

    /// Its statement as something that is gone.
    fn removed(self) -> Removed {
        match self.policy {
            Some(Ok(policy)) => Removed::Policy(policy),
            Some(Err(_)) | None => Removed::Unknown,
        }
    }

    /// The time since which it says what it says, by what was seen.
    fn seen_since(&self) -> Timestamp {
        match self.generation {
            Some(generation) if generation > 1 => self.seen,
            _ => self.created,
        }
    }

    /// The time since which it says what it says.
    pub(super) fn effective_since(&self) -> Timestamp {
        if self.generation.is_none_or(|generation| generation <= 1) {
            return self.created;
        }
        let noted = self.status.generation_observed_at.as_ref();
        match noted.filter(|_| self.status.observed_generation == self.generation) {
            Some(Time(at)) => *at,
            None => self.seen,
        }
    }

    /// True if its status says that there is nothing to do.
    pub(super) fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|present| present.type_ == ConditionType::Ready.as_str() && present.status == "True")
    }
}

/// A boundary as it was last seen.
#[derive(PartialEq, Eq)]
pub(super) struct SeenBoundary {
    uid: Option<String>,
    generation: Option<i64>,
    /// The namespaces that it is for; none where that can't be read.
    selector: Option<Selector>,
}

impl Index {
    pub(super) fn apply_policy(&mut self, event: Event<DynamicObject>, cluster: bool, now: Timestamp) {
        if let Event::InitApply(object) | Event::Apply(object) = &event
            && self.knows_newer(object)
        {
            self.policies.note_listed(&read::name(object));
            return;
        }
        let updates = self.policies.apply(cluster, event, bytes_besides);
        self.note_policies(updates, now);
    }

    /// Takes in an object as the API server gave it in answer to an own write. One that was deleted meanwhile does not come
    /// back by this way.
    pub(crate) fn apply_own_write(&mut self, object: DynamicObject, now: Timestamp) {
        if !self.knows_newer(&object) {
            let updates = self.policies.replace(object, bytes_besides);
            self.note_policies(updates, now);
        }
    }

    /// Every policy of a namespace may be inside or outside now.
    pub(super) fn apply_boundary(&mut self, event: Event<DynamicObject>, now: Timestamp) {
        let begins = matches!(event, Event::Init);
        self.boundaries_since = self.boundaries_since.max(boundary_since(&event, self.past.time(now)));
        self.note_boundary(&event, now);
        if let Some((boundary, why)) = self.policies.apply_boundary(event) {
            tracing::warn!(%boundary, %why, "a boundary can't be used, so policies of no namespace grant anything");
        }
        self.note_removed_boundaries(now);
        // A policy that is outside takes no room of the context keys.
        self.note_context_keys();
        if !begins {
            self.dirty.everywhere = true;
            self.enqueue_all_statuses();
        }
    }

    /// Notes what a boundary states, and that what it stated before is gone.
    fn note_boundary(&mut self, event: &Event<DynamicObject>, now: Timestamp) {
        let (Event::Apply(object) | Event::InitApply(object)) = event else {
            return;
        };
        let (name, boundary) = read::boundary(object);
        let seen = SeenBoundary {
            uid: object.metadata.uid.clone(),
            generation: object.metadata.generation,
            selector: boundary.ok().map(|boundary| boundary.namespace_selector),
        };
        if self.boundaries.get(&name) != Some(&seen)
            && let Some(before) = self.boundaries.insert(name, seen)
        {
            self.note_removed_boundary(before, now);
        }
    }

    /// Notes which boundaries are gone.
    fn note_removed_boundaries(&mut self, now: Timestamp) {
        let store = self.policies.boundaries();
        let is_gone = |name: &str| !store.contains("", name);
        let gone: Vec<_> = self.boundaries.keys().filter(|name| is_gone(name)).cloned().collect();
        for before in gone
            .iter()
            .filter_map(|name| self.boundaries.remove(name))
            .collect::<Vec<_>>()
        {
            self.note_removed_boundary(before, now);
        }
    }

    fn note_removed_boundary(&mut self, before: SeenBoundary, now: Timestamp) {
        let removed = before.selector.map_or(Removed::Unknown, Removed::Boundary);
        let now = self.past.time(now);
        self.past.note_removed(None, removed, now);
    }

    /// Notes that what a policy stated is gone.
    fn note_removed_policy(&mut self, name: &PolicyName, before: PolicyObject, now: Timestamp) {
        let now = self.past.time(now);
        self.past.note_removed(name.namespace(), before.removed(), now);
    }

    fn knows_newer(&self, object: &DynamicObject) -> bool {
        self.objects.get(&read::name(object)).is_some_and(|known| {
            let version = object.metadata.resource_version.as_deref();
            known.uid == object.metadata.uid && is_older(version, known.version.as_deref())
        })
    }

    fn note_policies(&mut self, updates: Vec<PolicyUpdate>, now: Timestamp) {
        for update in updates {
            match update {
                PolicyUpdate::Gone(name) => self.forget_policy(&name, now),
                PolicyUpdate::Put { name, object, policy } => {
                    if let Some(namespace) = name.namespace() {
                        self.check_share(namespace, now);
                    }
                    self.put_policy(&name, &object, policy, now);
                }
            }
        }
        self.note_context_keys();
    }

    /// A policy whose context keys have room now, or no longer, grants or no longer does.
    fn note_context_keys(&mut self) {
        let found = self.policies.set().context_keys().clone();
        let before = std::mem::replace(&mut self.context_keys, found);
        let (before, now) = (before.without_room(), self.context_keys.without_room());
        let names = before.iter().chain(now);
        for name in names
            .filter(|(name, _)| before.get(*name) != now.get(*name))
            .map(|(name, _)| name)
        {
            self.dirty.mark_policy(name);
        }
    }

    fn put_policy(
        &mut self,
        name: &PolicyName,
        object: &DynamicObject,
        policy: Option<Result<Arc<Policy>, InvalidPolicy>>,
        now: Timestamp,
    ) {
        let metadata = &object.metadata;
        let status = read::status(object);
        let (mut seen, mut conflicts) = (self.past.time(now), BTreeSet::new());
        if let Some(known) = self.objects.get_mut(name) {
            if known.uid == metadata.uid && known.generation == metadata.generation {
                seen = known.seen;
            }
            conflicts = std::mem::take(&mut known.conflicts);
        }
        let found = PolicyObject {
            uid: metadata.uid.clone(),
            version: metadata.resource_version.clone(),
            generation: metadata.generation,
            created: created(metadata),
            seen,
            next_change: next_change(policy.as_ref(), now),
            status: if policy.is_some() {
                status
            } else {
                conditions_of(status)
            },
            policy,
            conflicts,
            compared: true,
        };
        self.replace_policy(name, found, now);
    }

    fn replace_policy(&mut self, name: &PolicyName, mut found: PolicyObject, now: Timestamp) {
        let before = self.objects.get(name);
        let has_other_status = before.is_none_or(|before| before.status != found.status);
        let says_another = before.is_none_or(|before| {
            before.uid != found.uid || before.generation != found.generation || before.policy != found.policy
        });
        if let Some(before) = before.filter(|_| !says_another) {
            found.next_change = before.next_change;
        }
        let has_other_statement = before.is_some_and(|before| before.policy != found.policy);
        if has_other_status {
            self.dirty.statuses.insert(name.clone());
        }
        if says_another {
            self.dirty.mark_policy(name);
        }
        let before = self.objects.insert(name.clone(), found);
        if let Some(before) = before.filter(|_| has_other_statement) {
            self.note_removed_policy(name, before, now);
        }
    }

    fn forget_policy(&mut self, name: &PolicyName, now: Timestamp) {
        if let Some(object) = self.objects.remove(name) {
            self.forget_conflicts(name, &object.conflicts);
            self.dirty.statuses.remove(name);
            self.dirty.mark_policy(name);
            self.note_removed_policy(name, object, now);
        }
        if let Some(namespace) = name.namespace() {
            self.check_share(namespace, now);
        }
    }

    /// Notes when each policy's standing changes next, and has those looked at again whose standing changed until `now`.
    pub(super) fn mark_due_policies(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        for (name, object) in &mut self.objects {
            if object.next_change.is_some_and(|at| at <= now) {
                object.next_change = next_change(object.policy.as_ref(), now);
                due.push(name.clone());
            }
        }
        for name in due {
            self.dirty.mark_policy(&name);
        }
        self.next_change = self.objects.values().filter_map(|object| object.next_change).min();
    }

    pub(super) fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        self.objects.get(name)?.policy()
    }

    /// The time since which a policy says what it says.
    pub(super) fn age_of(&self, name: &PolicyName) -> PolicyAge {
        let object = self.objects.get(name);
        object.map_or(PolicyAge::UNKNOWN, |object| PolicyAge {
            told: object.effective_since(),
            seen: object.seen_since(),
        })
    }
}

/// The time when an event of a boundary may have let policies grant more than before. A new boundary only takes away.
fn boundary_since(event: &Event<DynamicObject>, now: Timestamp) -> Timestamp {
    match event {
        Event::Delete(_) => now,
        Event::Apply(object) | Event::InitApply(object)
            if object.metadata.generation.is_some_and(|generation| generation > 1) =>
        {
            let entries = object.metadata.managed_fields.iter().flatten();
            latest_write(entries).unwrap_or(now)
        }
        Event::Init | Event::InitDone | Event::Apply(_) | Event::InitApply(_) => Timestamp::UNIX_EPOCH,
    }
}

fn next_change(policy: Option<&Result<Arc<Policy>, InvalidPolicy>>, now: Timestamp) -> Option<Timestamp> {
    policy?.as_ref().ok()?.next_change(now)
}

/// The data that is kept of an object beside what it states.
fn bytes_besides(object: &DynamicObject) -> usize {
    size_of::<PolicyObject>() + object.data.get("status").map_or(0, estimate)
}

/// Of the status of a policy that is not kept, the part that the operator goes on to write.
fn conditions_of(status: PolicyStatus) -> PolicyStatus {
    PolicyStatus {
        conditions: status.conditions,
        ..PolicyStatus::default()
    }
}
