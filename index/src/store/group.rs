//! The objects of one kind in one namespace.

use std::collections::HashMap;

use super::Update;
use crate::share::Exceeded;
use crate::shares::{Footprint, Shares};

/// An object.
#[derive(Debug)]
pub(super) struct GroupEntry<V> {
    /// The part of it that is kept; nothing where it did not fit.
    pub(super) value: Option<V>,
    /// The memory that it takes, or would take.
    pub(super) bytes: u32,
    /// True if the list that runs, if one does, has named it.
    pub(super) listed: bool,
}

impl<V> GroupEntry<V> {
    pub(super) fn footprint(&self) -> Footprint {
        match self.value {
            Some(_) => Footprint::Kept(self.bytes),
            None => Footprint::Named(self.bytes),
        }
    }
}

/// The objects of a namespace.
#[derive(Debug)]
pub(super) struct Group<V> {
    entries: HashMap<Box<str>, GroupEntry<V>>,
    /// The number of them that are known by name only.
    names: usize,
    /// True if there are objects of which not even the name is known.
    leaves_out: bool,
    /// The same, as far as the list that runs has come.
    leaves_out_in_list: bool,
    /// The bound that kept out the last one that did not fit.
    exceeded: Option<Exceeded>,
}

impl<V> Default for Group<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            names: 0,
            leaves_out: false,
            leaves_out_in_list: false,
            exceeded: None,
        }
    }
}

impl<V> Group<V> {
    pub(super) fn get(&self, name: &str) -> Option<&GroupEntry<V>> {
        self.entries.get(name)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &GroupEntry<V>)> {
        self.entries.iter().map(|(name, entry)| (&**name, entry))
    }

    /// The number of objects that are kept.
    pub(super) fn kept(&self) -> usize {
        self.entries.len() - self.names
    }

    /// The reason why not all objects are kept, if they aren't.
    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.filter(|_| self.leaves_out || self.names > 0)
    }

    /// True if there are objects of which not even the name is known, so that only a list can tell.
    pub(super) fn leaves_out(&self) -> bool {
        self.leaves_out
    }

    pub(super) fn is_needless(&self) -> bool {
        self.entries.is_empty() && !self.leaves_out
    }

    pub(super) fn insert(&mut self, name: Box<str>, entry: GroupEntry<V>) {
        self.names += usize::from(entry.value.is_none());
        self.entries.insert(name, entry);
    }

    pub(super) fn take(&mut self, name: &str) -> Option<(Box<str>, GroupEntry<V>)> {
        let (name, entry) = self.entries.remove_entry(name)?;
        self.names -= usize::from(entry.value.is_none());
        self.shrink();
        Some((name, entry))
    }

    pub(super) fn leave_out(&mut self) {
        self.leaves_out = true;
        self.leaves_out_in_list = true;
    }

    pub(super) fn note_exceeded(&mut self, exceeded: Exceeded) {
        self.exceeded = Some(exceeded);
    }

    pub(super) fn begin_list(&mut self) {
        self.leaves_out_in_list = false;
        self.entries.values_mut().for_each(|entry| entry.listed = false);
    }

    pub(super) fn note_listed(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.listed = true;
        }
    }

    pub(super) fn end_list(&mut self) {
        self.leaves_out = self.leaves_out_in_list;
    }

    /// Takes away what the list that runs has not named.
    pub(super) fn drop_unlisted(&mut self, namespace: &str, shares: &Shares, updates: &mut Vec<Update<V>>) {
        let unlisted = self.entries.extract_if(|_, entry| !entry.listed);
        for (name, entry) in unlisted {
            self.names -= usize::from(entry.value.is_none());
            shares.release(namespace, entry.footprint());
            updates.push(Update {
                namespace: namespace.into(),
                name,
                before: entry.value,
            });
        }
        self.shrink();
    }

    /// A table that is nearly empty gives its memory back.
    fn shrink(&mut self) {
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}
