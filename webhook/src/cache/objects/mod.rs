//! Objects by namespace and name: as many as fit into each namespace's share and into the room that all have together.
//!
//! A new list marks what it names and takes the rest away when it ends: what was known stays known meanwhile, and there are
//! never two maps in memory. What does not fit is left out, and its namespace is known as one that is not here whole. That
//! ends with a list that leaves nothing of it out, which [`Objects::wants_list`] asks for.

use std::collections::HashMap;

use super::share::{ENTRY_BYTES, Exceeded, Room, Share};

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Objects<V> {
    /// The kind, for the log.
    what: &'static str,
    share: Share,
    room: Room,
    namespaces: HashMap<Box<str>, Namespace<V>>,
    /// Whether a list runs.
    listing: bool,
    wants_list: bool,
}

#[derive(Debug)]
struct Namespace<V> {
    objects: HashMap<Box<str>, Kept<V>>,
    bytes: usize,
    /// Why not all of it is here, if it isn't.
    exceeded: Option<Exceeded>,
    /// The same, as far as the list that runs has come.
    exceeded_in_list: Option<Exceeded>,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    bytes: u32,
    /// Whether the list that runs, if one does, has named it.
    named: bool,
}

impl<V> Objects<V> {
    pub(super) fn new(what: &'static str, share: Share, room: Room) -> Self {
        Self {
            what,
            share,
            room,
            namespaces: HashMap::new(),
            listing: false,
            wants_list: false,
        }
    }

    pub(super) fn value(&self, namespace: &str, name: &str) -> Option<&V> {
        Some(&self.namespaces.get(namespace)?.objects.get(name)?.value)
    }

    /// The objects of a namespace by name.
    pub(super) fn iter(&self, namespace: &str) -> impl Iterator<Item = (&str, &V)> {
        let objects = self.namespaces.get(namespace).into_iter();
        objects
            .flat_map(|namespace| &namespace.objects)
            .map(|(name, kept)| (&**name, &kept.value))
    }

    pub(super) fn len(&self) -> usize {
        self.namespaces.values().map(|namespace| namespace.objects.len()).sum()
    }

    /// Why not all objects of a namespace are here, if they aren't.
    pub(super) fn exceeded(&self, namespace: &str) -> Option<Exceeded> {
        self.namespaces.get(namespace)?.exceeded
    }

    /// The namespaces that are not here whole, and why.
    pub(super) fn all_exceeded(&self) -> impl Iterator<Item = (&str, Exceeded)> {
        let namespaces = self.namespaces.iter();
        namespaces.filter_map(|(name, namespace)| Some((&**name, namespace.exceeded?)))
    }

    /// Whether a list runs: until it ends, what is here is neither the old state nor the new one.
    pub(super) fn is_listing(&self) -> bool {
        self.listing
    }

    /// Whether something that was left out may fit now, so that a new list would bring it back.
    pub(super) fn wants_list(&self) -> bool {
        self.wants_list
    }

    /// A list begins.
    pub(super) fn begin_list(&mut self) {
        self.listing = true;
        self.wants_list = false;
        for namespace in self.namespaces.values_mut() {
            namespace.exceeded_in_list = None;
            namespace.objects.values_mut().for_each(|kept| kept.named = false);
        }
    }

    /// Keeps an object whose value takes `bytes`, in place of the one of its name. `false` where it does not fit: then
    /// neither is kept, since the old one is no longer true.
    ///
    /// While a list runs, objects that it has not named yet give way. `gone` is told of each.
    pub(super) fn keep(
        &mut self,
        namespace: &str,
        name: &str,
        value: V,
        bytes: usize,
        gone: &mut impl FnMut(&str, &str),
    ) -> bool {
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), Namespace::default());
        }
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let bytes = u32::try_from(ENTRY_BYTES + name.len() + bytes).unwrap_or(u32::MAX);
        let mut taken = group.take(self.share, &self.room, name, bytes);
        if taken.is_err() && self.listing {
            group.retain_named(&self.room, |unnamed| {
                if unnamed != name {
                    gone(namespace, unnamed);
                }
            });
            taken = group.take(self.share, &self.room, name, bytes);
        }
        let Err(exceeded) = taken else {
            let named = true;
            match group.objects.get_mut(name) {
                Some(kept) => *kept = Kept { value, bytes, named },
                None => drop(group.objects.insert(name.into(), Kept { value, bytes, named })),
            }
            self.wants_list |= !self.listing && group.exceeded.is_some();
            return true;
        };
        gone(namespace, name);
        group.remove(&self.room, name);
        group.exceeded_in_list = Some(exceeded);
        if group.exceeded.replace(exceeded).is_none() {
            tracing::warn!(what = self.what, namespace, "not all are kept: they take {exceeded}");
        }
        false
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return;
        };
        group.remove(&self.room, name);
        self.wants_list |= !self.listing && group.exceeded.is_some();
        if group.is_needless() {
            self.namespaces.remove(namespace);
        }
    }

    /// A list has ended. `gone` is told of what it did not name.
    pub(super) fn end_list(&mut self, gone: &mut impl FnMut(&str, &str)) {
        self.listing = false;
        self.namespaces.retain(|name, group| {
            group.retain_named(&self.room, |unnamed| gone(name, unnamed));
            if group.exceeded.is_some() && group.exceeded_in_list.is_none() {
                tracing::info!(what = self.what, namespace = &**name, "all are kept again");
            }
            group.exceeded = group.exceeded_in_list;
            !group.is_needless()
        });
    }
}

impl<V> Default for Namespace<V> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            bytes: 0,
            exceeded: None,
            exceeded_in_list: None,
        }
    }
}

impl<V> Namespace<V> {
    /// Takes the bytes for an object in place of those of the one of its name.
    fn take(&mut self, share: Share, room: &Room, name: &str, new: u32) -> Result<(), Exceeded> {
        let kept = self.objects.get(name);
        let (old, new) = (kept.map_or(0, |kept| kept.bytes as usize), new as usize);
        let bytes = self.bytes - old + new;
        if bytes > share.bytes || (kept.is_none() && self.objects.len() >= share.objects) {
            return Err(Exceeded::Share(share));
        }
        if !room.exchange(old, new) {
            return Err(Exceeded::Room(room.most()));
        }
        self.bytes = bytes;
        Ok(())
    }

    fn remove(&mut self, room: &Room, name: &str) {
        let Some(kept) = self.objects.remove(name) else {
            return;
        };
        self.give_back(room, kept.bytes as usize);
        self.shrink();
    }

    fn retain_named(&mut self, room: &Room, mut gone: impl FnMut(&str)) {
        let mut freed = 0;
        self.objects.retain(|name, kept| {
            if !kept.named {
                freed += kept.bytes as usize;
                gone(name);
            }
            kept.named
        });
        self.give_back(room, freed);
        self.shrink();
    }

    fn give_back(&mut self, room: &Room, bytes: usize) {
        self.bytes -= bytes;
        room.exchange(bytes, 0);
    }

    /// A table that is nearly empty gives its memory back.
    fn shrink(&mut self) {
        if self.objects.len() < self.objects.capacity() / 8 {
            self.objects.shrink_to(self.objects.len() * 2);
        }
    }

    fn is_needless(&self) -> bool {
        self.objects.is_empty() && self.exceeded.is_none()
    }
}

#[cfg(test)]
mod tests;
