//! The policies of the cluster: how they come in, and the whole of them at one moment.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokenscope_core::{InvalidPolicy, Policy, PolicyName, PolicySet};
use tokenscope_crds::read;

use crate::share::{Exceeded, ShareExceeded};
use crate::shares::Shares;
use crate::store::{Store, Update};

/// The memory of a policy without its lists and texts. A reason why a policy can't be used takes no more.
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
    boundaries_exceeded: Option<Exceeded>,
}

impl Deref for Policies {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.set
    }
}

impl Policies {
    /// The reason why the pods of a namespace can't be judged by these policies, if they can't: some that may be about them
    /// are missing.
    pub fn share_exceeded(&self, namespace: &str) -> Option<ShareExceeded> {
        if let Some(&bound) = self.exceeded.get(namespace) {
            return Some(ShareExceeded::policies(namespace, bound));
        }
        let cluster = self.cluster_exceeded.map(ShareExceeded::cluster_policies);
        cluster.or_else(|| self.boundaries_exceeded.map(ShareExceeded::boundaries))
    }

    /// The namespaces of which policies are missing; the cluster as an empty name.
    pub fn incomplete(&self) -> impl Iterator<Item = &str> {
        let cluster = self.cluster_exceeded.or(self.boundaries_exceeded).map(|_| CLUSTER);
        self.exceeded.keys().map(|name| &**name).chain(cluster)
    }
}

/// The policies while they change.
#[derive(Debug)]
pub struct PolicyIndex {
    set: PolicySet,
    namespaced: Store<()>,
    cluster: Store<()>,
    boundaries: Store<()>,
}

/// A policy that may be another one now.
#[derive(Clone, Debug)]
pub enum PolicyUpdate {
    /// It is there.
    Put {
        /// Its name.
        name: PolicyName,
        /// The object.
        object: Box<DynamicObject>,
        /// What it states, or why it can't be used; nothing where it did not fit into its share.
        policy: Option<Result<Arc<Policy>, InvalidPolicy>>,
    },
    /// It is gone, and so is its name.
    Gone(PolicyName),
}

impl PolicyIndex {
    /// No policies yet. Those of a namespace count into `shares`, those of the cluster into `cluster`, and boundaries into `boundaries`.
    pub fn new(shares: Shares, cluster: Shares, boundaries: Shares) -> Self {
        Self {
            set: PolicySet::default(),
            namespaced: Store::new("policies", shares),
            cluster: Store::new("cluster policies", cluster),
            boundaries: Store::new("boundaries", boundaries),
        }
    }

    /// The policies that are kept.
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The store of one of the two kinds.
    pub fn store(&self, cluster: bool) -> &Store<()> {
        if cluster { &self.cluster } else { &self.namespaced }
    }

    /// The store of boundaries.
    pub fn boundaries(&self) -> &Store<()> {
        &self.boundaries
    }

    /// The policies for those who decide by them; nothing before policies, cluster policies and boundaries were all listed, and
    /// while a list of any of them runs: a policy without its boundary grants too much.
    pub fn published(&self) -> Option<Policies> {
        let stores = [&self.namespaced, &self.cluster, &self.boundaries];
        if stores.iter().any(|store| !store.is_synced() || store.is_listing()) {
            return None;
        }
        let exceeded = self.namespaced.all_exceeded();
        Some(Policies {
            set: self.set.clone(),
            exceeded: exceeded.map(|(name, bound)| (name.into(), bound)).collect(),
            cluster_exceeded: self.cluster.exceeded(CLUSTER),
            boundaries_exceeded: self.boundaries.exceeded(CLUSTER),
        })
    }

    /// Takes in what a watch tells; `cluster` says of which kind. `extra` is what the caller keeps of an object besides, in
    /// bytes. Answers which policies may be others now.
    ///
    /// An object that is no policy can't stop the others: it is kept as one that grants nothing, with the reason.
    pub fn apply(
        &mut self,
        cluster: bool,
        event: Event<DynamicObject>,
        extra: impl FnOnce(&DynamicObject) -> usize,
    ) -> Vec<PolicyUpdate> {
        let store = self.store_mut(cluster);
        let updates = match event {
            Event::Init => {
                store.begin_list();
                Vec::new()
            }
            Event::InitDone => store.end_list(),
            Event::Delete(object) => {
                let name = read::name(&object);
                store.remove(group(&name), name.name())
            }
            Event::InitApply(object) | Event::Apply(object) => {
                return self.put(cluster, object, extra, ObjectOrigin::Watch);
            }
        };
        self.gone(updates)
    }

    /// Takes in what a watch tells of boundaries. Answers which one can't be used, and why: it is kept as one inside of which no
    /// policy is.
    pub fn apply_boundary(&mut self, event: Event<DynamicObject>) -> Option<(Box<str>, InvalidPolicy)> {
        let object = match event {
            Event::Init => {
                self.boundaries.begin_list();
                return None;
            }
            Event::InitDone => {
                let gone = self.boundaries.end_list();
                self.forget_boundaries(gone);
                return None;
            }
            Event::Delete(object) => {
                let gone = self
                    .boundaries
                    .remove(CLUSTER, object.metadata.name.as_deref().unwrap_or_default());
                self.forget_boundaries(gone);
                return None;
            }
            Event::InitApply(object) | Event::Apply(object) => object,
        };
        let (name, boundary) = read::boundary(&object);
        let bytes = object_bytes(&object);
        let mut updates = self.boundaries.put(CLUSTER, &name, (), bytes);
        updates.retain(|update| update.name != name);
        self.forget_boundaries(updates);
        // One that does not fit makes the cluster's policies incomplete, and no pod is judged by them.
        if self.boundaries.value(CLUSTER, &name).is_none() {
            self.set.remove_boundary(&name);
            return None;
        }
        match boundary {
            Ok(boundary) => {
                self.set.insert_boundary(Arc::new(boundary));
                None
            }
            Err(why) => {
                self.set.insert_unusable_boundary(&name, &why.to_string());
                Some((name, why))
            }
        }
    }

    fn forget_boundaries(&mut self, gone: Vec<Update<()>>) {
        for update in gone {
            self.set.remove_boundary(&update.name);
        }
    }

    /// Takes in a policy that is known already by another way than its watch, such as the answer to an own write.
    pub fn replace(&mut self, object: DynamicObject, extra: impl FnOnce(&DynamicObject) -> usize) -> Vec<PolicyUpdate> {
        let name = read::name(&object);
        if !self.store(name.is_cluster()).contains(group(&name), name.name()) {
            return Vec::new();
        }
        self.put(name.is_cluster(), object, extra, ObjectOrigin::OwnWrite)
    }

    /// Notes that a list has named a policy of which nothing new is known.
    pub fn note_listed(&mut self, name: &PolicyName) {
        self.store_mut(name.is_cluster()).note_listed(group(name), name.name());
    }

    fn put(
        &mut self,
        cluster: bool,
        object: DynamicObject,
        extra: impl FnOnce(&DynamicObject) -> usize,
        origin: ObjectOrigin,
    ) -> Vec<PolicyUpdate> {
        let (name, policy) = read::read(&object);
        let bytes = object_bytes(&object) + extra(&object);
        let store = self.store_mut(cluster);
        let mut updates = match origin {
            ObjectOrigin::Watch => store.put(group(&name), name.name(), (), bytes),
            ObjectOrigin::OwnWrite => store.replace(group(&name), name.name(), (), bytes),
        };
        let is_kept = store.value(group(&name), name.name()).is_some();
        updates.retain(|update| *update.name != *name.name());
        let mut updates = self.gone(updates);
        if !self.store(cluster).contains(group(&name), name.name()) {
            self.set.remove(&name);
            updates.push(PolicyUpdate::Gone(name));
            return updates;
        }
        let policy = is_kept.then(|| policy.map(Arc::new));
        match &policy {
            Some(Ok(policy)) => self.set.insert(policy.clone()),
            Some(Err(why)) => self.set.insert_unusable(name.clone(), why),
            None => self.set.remove(&name),
        }
        let object = Box::new(object);
        updates.push(PolicyUpdate::Put { name, object, policy });
        updates
    }

    fn gone(&mut self, updates: Vec<Update<()>>) -> Vec<PolicyUpdate> {
        let names = updates.into_iter().map(|update| match &*update.namespace {
            CLUSTER => PolicyName::cluster(&update.name),
            namespace => PolicyName::namespaced(namespace, &update.name),
        });
        names
            .map(|name| {
                self.set.remove(&name);
                PolicyUpdate::Gone(name)
            })
            .collect()
    }

    fn store_mut(&mut self, cluster: bool) -> &mut Store<()> {
        if cluster {
            &mut self.cluster
        } else {
            &mut self.namespaced
        }
    }
}

/// By which way an object came in.
#[derive(Clone, Copy, Debug)]
enum ObjectOrigin {
    Watch,
    OwnWrite,
}

fn group(name: &PolicyName) -> &str {
    name.namespace().unwrap_or(CLUSTER)
}

/// The memory that a policy or a boundary takes, about.
pub(crate) fn object_bytes(object: &DynamicObject) -> usize {
    POLICY_BYTES + estimate(object.data.get("spec").unwrap_or(&Value::Null))
}

/// The memory that a JSON value takes once it is parsed, about: each text, list and object has its own allocation.
pub fn estimate(value: &Value) -> usize {
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
