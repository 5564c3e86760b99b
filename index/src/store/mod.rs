//! Objects of one kind by namespace and name: as many as fit into each namespace's share.
//!
//! A new list marks the objects that it names, and removes the others when it ends. Until then they stay known, and there are
//! never two maps in memory. An object that does not fit is known by name only, or left out ([`Shares`]), and its namespace is
//! known as incomplete. That ends when such objects are gone, or with a list that leaves nothing out, which
//! [`Store::wants_list`] asks for.

mod group;
mod locked;

use std::collections::HashMap;

use group::{Group, GroupEntry};
use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
pub use locked::apply_locked;

use crate::share::{Exceeded, entry_bytes};
use crate::shares::{Footprint, Shares};

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<V> {
    /// The kind, for the log.
    kind: &'static str,
    shares: Shares,
    namespaces: HashMap<Box<str>, Group<V>>,
    /// True if a list runs.
    listing: bool,
    /// True if a list was whole once.
    synced: bool,
    wants_list: bool,
    /// True if an object was left out because the room of all namespaces was used up: there may be room for it wherever some is made.
    left_out_by_room: bool,
}

/// An object that may be another one now, or gone: [`Store::value`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<V> {
    /// Its namespace; empty for an object of the cluster.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The part of it that was kept before.
    pub before: Option<V>,
}

impl<V> Store<V> {
    /// An empty one. Its objects count into these shares.
    pub fn new(kind: &'static str, shares: Shares) -> Self {
        Self {
            kind,
            shares,
            namespaces: HashMap::new(),
            listing: false,
            synced: false,
            wants_list: false,
            left_out_by_room: false,
        }
    }

    /// The part of an object that is kept.
    pub fn value(&self, namespace: &str, name: &str) -> Option<&V> {
        self.entry(namespace, name)?.value.as_ref()
    }

    /// True if an object is known, if only by its name.
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.entry(namespace, name).is_some()
    }

    /// The objects of a namespace by name, in no order.
    pub fn iter(&self, namespace: &str) -> impl Iterator<Item = (&str, &V)> {
        let objects = self.namespaces.get(namespace).into_iter().flat_map(Group::entries);
        objects.filter_map(|(name, entry)| Some((name, entry.value.as_ref()?)))
    }

    /// The namespaces that have objects, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(|name| &**name)
    }

    /// The number of objects that are kept.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(Group::kept).sum()
    }

    /// True if no object is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The reason why not all objects of a namespace are kept, if they aren't.
    pub fn exceeded(&self, namespace: &str) -> Option<Exceeded> {
        self.namespaces.get(namespace)?.exceeded()
    }

    /// The namespaces of which not all objects are kept, and why.
    pub fn all_exceeded(&self) -> impl Iterator<Item = (&str, Exceeded)> {
        let namespaces = self.namespaces.iter();
        namespaces.filter_map(|(name, group)| Some((&**name, group.exceeded()?)))
    }

    /// True if a list runs: until it ends, what is here is neither the old state nor the new one.
    pub fn is_listing(&self) -> bool {
        self.listing
    }

    /// True if a list was whole once, so that what is not here does not exist or did not fit.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// True if something that was left out may fit now, so that a new list would bring it back.
    pub fn wants_list(&self) -> bool {
        self.wants_list || self.shares.await_list()
    }

    /// Takes in what a watch tells. `keep` says what is kept of an object and how many bytes that takes beside its name;
    /// nothing where the object does not matter. Answers which objects may be others now.
    pub fn apply<K: Resource>(
        &mut self,
        event: Event<K>,
        keep: impl FnOnce(K) -> Option<(V, usize)>,
    ) -> Vec<Update<V>> {
        match event {
            Event::Init => {
                self.begin_list();
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (namespace, name) = names(object.meta());
                match keep(object) {
                    Some((value, bytes)) => self.put(&namespace, &name, value, bytes),
                    None => self.remove(&namespace, &name),
                }
            }
            Event::Delete(object) => {
                let (namespace, name) = names(object.meta());
                self.remove(&namespace, &name)
            }
            Event::InitDone => self.end_list(),
        }
    }

    /// A list begins.
    pub fn begin_list(&mut self) {
        self.listing = true;
        self.wants_list = false;
        self.left_out_by_room = false;
        self.namespaces.values_mut().for_each(Group::begin_list);
    }

    /// A list has ended: what it did not name is gone.
    pub fn end_list(&mut self) -> Vec<Update<V>> {
        self.listing = false;
        self.synced = true;
        let mut updates = Vec::new();
        self.namespaces.retain(|namespace, group| {
            let was_exceeded = group.exceeded().is_some();
            group.drop_unlisted(namespace, &self.shares, &mut updates);
            group.end_list();
            if was_exceeded && group.exceeded().is_none() {
                tracing::info!(kind = self.kind, %namespace, "all are kept again");
            }
            !group.is_needless()
        });
        // What the list did not name was here until now.
        self.wants_list = self.left_out_by_room && !updates.is_empty();
        updates
    }

    /// Keeps an object whose value takes `bytes`, in place of the one of its name. Where it does not fit, the old one is not
    /// kept either, since it is no longer true.
    ///
    /// While a list runs, objects that it has not named yet give way.
    pub fn put(&mut self, namespace: &str, name: &str, value: V, bytes: usize) -> Vec<Update<V>> {
        self.put_listed(namespace, name, value, bytes, true)
    }

    /// The same for an object that is known already, by another way than the watch. Whether a list has named it does not
    /// change by that.
    pub fn replace(&mut self, namespace: &str, name: &str, value: V, bytes: usize) -> Vec<Update<V>> {
        match self.entry(namespace, name).map(|entry| entry.listed) {
            Some(listed) => self.put_listed(namespace, name, value, bytes, listed),
            None => Vec::new(),
        }
    }

    /// Notes that a list has named an object of which nothing new is known.
    pub fn note_listed(&mut self, namespace: &str, name: &str) {
        if let Some(group) = self.namespaces.get_mut(namespace) {
            group.note_listed(name);
        }
    }

    /// Forgets an object.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Vec<Update<V>> {
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return Vec::new();
        };
        let mut made_room = false;
        let removed = group.take(name).map(|(name, entry)| {
            made_room = matches!(entry.footprint(), Footprint::Kept(_));
            self.shares.release(namespace, entry.footprint());
            Update {
                namespace: namespace.into(),
                name,
                before: entry.value,
            }
        });
        self.wants_list |= !self.listing && (group.leaves_out() || (made_room && self.left_out_by_room));
        if group.is_needless() {
            self.namespaces.remove(namespace);
        }
        removed.into_iter().collect()
    }

    fn put_listed(&mut self, namespace: &str, name: &str, value: V, bytes: usize, listed: bool) -> Vec<Update<V>> {
        let mut updates = Vec::new();
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), Group::default());
        }
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return updates;
        };
        let bytes = entry_bytes(name, bytes);
        let (key, old) = match group.take(name) {
            Some((key, entry)) => (key, Some(entry)),
            None => (name.into(), None),
        };
        let footprint = old.as_ref().map_or(Footprint::Nothing, GroupEntry::footprint);
        let mut taken = self.shares.take(namespace, footprint, bytes);
        if taken.is_err() && self.listing {
            group.drop_unlisted(namespace, &self.shares, &mut updates);
            taken = self.shares.take(namespace, footprint, bytes);
        }
        updates.push(Update {
            namespace: namespace.into(),
            name: name.into(),
            before: old.and_then(|entry| entry.value),
        });
        let value = taken.is_ok().then_some(value);
        match taken {
            Ok(()) => {
                group.insert(key, GroupEntry { value, bytes, listed });
                // One that was kept and takes no less makes no room, such as a policy with another status.
                let makes_no_room = matches!(footprint, Footprint::Kept(old) if old <= bytes)
                    && matches!(group.exceeded(), Some(Exceeded::Share(_)));
                let made_room = matches!(footprint, Footprint::Kept(old) if old > bytes);
                self.wants_list |=
                    !self.listing && ((group.leaves_out() && !makes_no_room) || (made_room && self.left_out_by_room));
            }
            Err(exceeded) => {
                self.left_out_by_room |= matches!(exceeded, Exceeded::Room(_));
                if group.exceeded().is_none() {
                    tracing::warn!(kind = self.kind, namespace, "not all are kept: they take {exceeded}");
                }
                match self.shares.name(namespace, footprint, bytes) {
                    Footprint::Named(_) => group.insert(key, GroupEntry { value, bytes, listed }),
                    Footprint::Nothing | Footprint::Kept(_) => group.leave_out(),
                }
                group.note_exceeded(exceeded);
            }
        }
        updates
    }

    fn entry(&self, namespace: &str, name: &str) -> Option<&GroupEntry<V>> {
        self.namespaces.get(namespace)?.get(name)
    }
}

fn names(metadata: &ObjectMeta) -> (Box<str>, Box<str>) {
    (
        metadata.namespace.as_deref().unwrap_or_default().into(),
        metadata.name.as_deref().unwrap_or_default().into(),
    )
}

#[cfg(test)]
mod tests;
