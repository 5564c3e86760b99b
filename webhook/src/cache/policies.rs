//! The policies, whole and with word of where they are not, and how they change.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokenscope_core::text::up_to;
use tokenscope_core::{Policy, PolicyName, PolicySet};
use tokenscope_crds::read;

use super::objects::Objects;
use super::share::{Bounds, Exceeded, Room, ShareExceeded};

/// The longest reason why a policy can't be used. It is part of the messages of refused pods.
const MOST_REASON_BYTES: usize = 1 << 10;
/// What a policy takes beside its lists and texts. A reason why it can't be used takes no more.
const POLICY_BYTES: usize = 1 << 10;
/// The group of policies that are in no namespace.
const CLUSTER: &str = "";

/// The policies at one moment.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    set: PolicySet,
    /// The namespaces whose policies are not all in the set.
    exceeded: HashMap<Box<str>, Exceeded>,
    cluster_exceeded: Option<Exceeded>,
}

impl Deref for Policies {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.set
    }
}

impl Policies {
    /// Why the pods of a namespace can't be judged by these policies, if they can't: some that may be about them are missing.
    pub fn share_exceeded(&self, namespace: &str) -> Option<ShareExceeded> {
        if let Some(&bound) = self.exceeded.get(namespace) {
            return Some(ShareExceeded::policies(namespace, bound));
        }
        self.cluster_exceeded.map(ShareExceeded::cluster_policies)
    }

    /// The namespaces of which policies are missing; the cluster as an empty name.
    pub(super) fn incomplete(&self) -> impl Iterator<Item = &str> {
        let cluster = self.cluster_exceeded.map(|_| CLUSTER);
        self.exceeded.keys().map(|name| &**name).chain(cluster)
    }
}

/// The policies while they change.
#[derive(Debug)]
pub(super) struct Draft {
    set: PolicySet,
    namespaced: Objects<()>,
    cluster: Objects<()>,
}

impl Draft {
    pub(super) fn new(bounds: &Bounds, room: Room) -> Self {
        Self {
            set: PolicySet::default(),
            namespaced: Objects::new("policies", bounds.policies, room),
            // The share is the bound: no namespace can take the cluster's policies their room.
            cluster: Objects::new(
                "cluster policies",
                bounds.cluster_policies,
                Room::new(bounds.cluster_policies.bytes),
            ),
        }
    }

    /// The policies for readers, unless a list of this kind runs: then they are not whole.
    pub(super) fn take_in(&mut self, cluster: bool, event: Event<DynamicObject>) -> Option<Policies> {
        let Self { set, .. } = self;
        let objects = if cluster {
            &mut self.cluster
        } else {
            &mut self.namespaced
        };
        let mut gone = |namespace: &str, name: &str| set.remove(&name_of(namespace, name));
        match event {
            Event::Init => objects.begin_list(),
            Event::InitDone => objects.end_list(&mut gone),
            Event::Delete(object) => {
                let name = read::name(&object);
                objects.remove(name.namespace().unwrap_or(CLUSTER), name.name());
                set.remove(&name);
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (name, policy) = read(&object);
                let bytes = POLICY_BYTES + policy.as_ref().map_or(0, |_| estimate(spec(&object)));
                let namespace = name.namespace().unwrap_or(CLUSTER);
                if objects.keep(namespace, name.name(), (), bytes, &mut gone) {
                    match policy {
                        Ok(policy) => set.insert(Arc::new(policy)),
                        Err(why) => set.insert_invalid(name, &why),
                    }
                }
            }
        }
        (!objects.is_listing()).then(|| self.published())
    }

    pub(super) fn wants_list(&self, cluster: bool) -> bool {
        if cluster {
            self.cluster.wants_list()
        } else {
            self.namespaced.wants_list()
        }
    }

    fn published(&self) -> Policies {
        let exceeded = self.namespaced.all_exceeded();
        Policies {
            set: self.set.clone(),
            exceeded: exceeded.map(|(name, bound)| (name.into(), bound)).collect(),
            cluster_exceeded: self.cluster.exceeded(CLUSTER),
        }
    }
}

/// Which policy an object is, and the policy, or in few words why it can't be used.
fn read(object: &DynamicObject) -> (PolicyName, Result<Policy, String>) {
    let (name, policy) = read::read(object);
    let policy = policy.map_err(|error| {
        let why = up_to(&error.to_string(), MOST_REASON_BYTES).to_owned();
        tracing::warn!(policy = %name, why, "a policy can't be used");
        why
    });
    (name, policy)
}

fn spec(object: &DynamicObject) -> &Value {
    object.data.get("spec").unwrap_or(&Value::Null)
}

fn name_of(namespace: &str, name: &str) -> PolicyName {
    match namespace {
        CLUSTER => PolicyName::cluster(name),
        namespace => PolicyName::namespaced(namespace, name),
    }
}

/// The memory that a specification takes once it is parsed, about: each text, list and object has its own allocation.
fn estimate(value: &Value) -> usize {
    /// Pointer, length and capacity, the allocator's share, and what the parsed form adds.
    const NODE_BYTES: usize = 64;
    match value {
        Value::String(text) => NODE_BYTES + text.len(),
        Value::Array(items) => NODE_BYTES + items.iter().map(estimate).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| key.len() + estimate(value));
            NODE_BYTES + fields.sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
