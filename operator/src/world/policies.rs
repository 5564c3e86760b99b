//! What watches tell of policies.

use super::{World, contents::created, list::List};
use crate::watching;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{core::DynamicObject, runtime::watcher::Event};
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};
use tokenscope_core::{DefaultConflicts, InvalidPolicy, Policy, PolicyName};
use tokenscope_crds::{read, v1alpha1::PolicyStatus};

/// A policy as the API server has it.
pub(super) struct Object {
    pub(super) uid: Option<String>,
    version: Option<String>,
    pub(super) generation: Option<i64>,
    created: Timestamp,
    /// When this process first saw this generation.
    seen: Timestamp,
    /// What it says; none where its namespace's share left no room for it.
    pub(super) policy: Option<Result<Arc<Policy>, InvalidPolicy>>,
    pub(super) status: PolicyStatus,
    pub(super) next_change: Option<Timestamp>,
    pub(super) conflicts: BTreeSet<PolicyName>,
    /// Whether it could be compared with all policies that it may be in conflict with.
    pub(super) compared: bool,
    list: u32,
    bytes: usize,
}

impl Object {
    /// What it says, if that makes sense.
    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()?.as_deref().ok()
    }

    /// Since when it says what it says.
    pub(super) fn said(&self) -> Timestamp {
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

impl World {
    pub(super) fn apply_policy(&mut self, event: Event<DynamicObject>, cluster: bool, now: Timestamp) {
        let list = if cluster {
            &mut self.lists.cluster_policies
        } else {
            &mut self.lists.policies
        };
        match event {
            Event::Init => list.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let list = *list;
                self.put_policy(&found, list, now);
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
            self.put_policy(object, List { number, whole: true }, now);
        }
    }

    fn put_policy(&mut self, object: &DynamicObject, list: List, now: Timestamp) {
        let (name, policy) = read::read(object);
        let status = read::status(object);
        let metadata = &object.metadata;
        let bytes = size_of::<Object>() + json_bytes(&object.data);
        let (mut seen, mut conflicts) = (whole_seconds(now), BTreeSet::new());
        if let Some(known) = self.objects.get_mut(&name) {
            known.list = list.number;
            let is_the_same_object = known.uid == metadata.uid;
            if is_the_same_object && watching::is_older(metadata.resource_version.as_deref(), known.version.as_deref())
            {
                return;
            }
            if is_the_same_object && known.generation == metadata.generation {
                seen = known.seen;
            }
            conflicts = std::mem::take(&mut known.conflicts);
        }
        let is_kept = self.account_policy(&name, bytes);
        let policy = is_kept.then(|| policy.map(Arc::new));
        let found = Object {
            uid: metadata.uid.clone(),
            version: metadata.resource_version.clone(),
            generation: metadata.generation,
            created: created(metadata),
            seen,
            next_change: next_change(policy.as_ref(), now),
            policy,
            status: if is_kept { status } else { conditions_of(status) },
            conflicts,
            compared: true,
            list: list.number,
            bytes,
        };
        self.replace_policy(name, found);
    }

    fn replace_policy(&mut self, name: PolicyName, mut found: Object) {
        let before = self.objects.get(&name);
        let has_other_status = before.is_none_or(|before| before.status != found.status);
        let says_another = before.is_none_or(|before| {
            before.uid != found.uid || before.generation != found.generation || before.policy != found.policy
        });
        if let Some(before) = before.filter(|_| !says_another) {
            found.next_change = before.next_change;
        }
        if has_other_status {
            self.concerned.insert(name.clone());
        }
        if says_another {
            match &found.policy {
                Some(Ok(policy)) => self.policies.insert(policy.clone()),
                Some(Err(why)) => self.policies.insert_invalid(name.clone(), &why.to_string()),
                None => self.policies.remove(&name),
            }
            self.mark_policy(&name);
        }
        self.objects.insert(name, found);
    }

    /// Counts what a policy takes in place of what the one of its name took before; answers whether there is room for it.
    fn account_policy(&mut self, name: &PolicyName, bytes: usize) -> bool {
        let Some(namespace) = name.namespace() else {
            return true;
        };
        let before = self
            .objects
            .get(name)
            .map(|known| (known.bytes, known.policy.is_some()));
        let around = self.around(namespace);
        if let Some((bytes, was_kept)) = before {
            around.release_policy(bytes, was_kept);
        }
        let is_kept = around.admit_policy(bytes);
        self.look_at_share(namespace);
        is_kept
    }

    pub(super) fn remove_policy(&mut self, name: &PolicyName) {
        let Some(object) = self.objects.remove(name) else {
            return;
        };
        self.policies.remove(name);
        for other in &object.conflicts {
            if let Some(conflicting) = self.objects.get_mut(other) {
                conflicting.conflicts.remove(name);
                self.concerned.insert(other.clone());
            }
        }
        self.concerned.remove(name);
        self.mark_policy(name);
        if let Some(namespace) = name.namespace()
            && let Some(around) = self.namespaces.get_mut(namespace)
        {
            around.release_policy(object.bytes, object.policy.is_some());
            self.look_at_share(namespace);
            self.forget_empty(namespace);
        }
    }

    pub(super) fn mark_policy(&mut self, name: &PolicyName) {
        match name.namespace() {
            Some(namespace) => {
                self.stale.namespaces.insert(namespace.into());
            }
            None => self.stale.everywhere = true,
        }
        self.stale.policies.insert(name.clone());
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
            self.mark_policy(&name);
        }
        self.next_change = self.objects.values().filter_map(|object| object.next_change).min();
    }

    pub(super) fn update_conflicts(&mut self, names: &BTreeSet<PolicyName>, now: Timestamp) {
        let mut conflicts = DefaultConflicts::new(&self.policies, now);
        let found: Vec<_> = names
            .iter()
            .map(|name| {
                let found = self.policy(name).map(|policy| conflicts.of(policy));
                let complete = found.as_ref().is_none_or(|found| found.complete);
                let with = found.into_iter().flat_map(|found| found.with);
                (name, with.map(|other| other.name.clone()).collect(), complete)
            })
            .collect();
        for (name, with, complete) in found {
            self.note_conflicts(name, &with, complete);
        }
    }

    /// Both sides of a conflict know of it.
    fn note_conflicts(&mut self, name: &PolicyName, found: &BTreeSet<PolicyName>, complete: bool) {
        let Some(object) = self.objects.get_mut(name) else {
            return;
        };
        object.compared = complete;
        let before = std::mem::replace(&mut object.conflicts, found.clone());
        for other in before.union(found) {
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

    pub(super) fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        self.objects.get(name)?.policy()
    }
}

fn next_change(policy: Option<&Result<Arc<Policy>, InvalidPolicy>>, now: Timestamp) -> Option<Timestamp> {
    policy?.as_ref().ok()?.next_change(now)
}

/// Of the status of a policy that is not kept, the part that the operator goes on to write.
fn conditions_of(status: PolicyStatus) -> PolicyStatus {
    PolicyStatus {
        conditions: status.conditions,
        ..PolicyStatus::default()
    }
}

/// About how many bytes the texts of a value take, and what holds them.
fn json_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_bytes).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + json_bytes(value)).sum(),
    };
    size_of::<Value>() + inside
}

/// As the API server keeps times.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
