//! The memory that each namespace takes, and that all take together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::share::{Exceeded, Share};

/// The bytes that several collections may take together. A clone counts into the same sum.
#[derive(Clone, Debug)]
pub struct Room {
    used: Arc<AtomicUsize>,
    most: usize,
}

impl Room {
    /// An empty one of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self {
            used: Arc::default(),
            most,
        }
    }

    /// The number of bytes that are left.
    fn left(&self) -> usize {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes `new` bytes in place of `old` ones, if there is room. What gets smaller always fits.
    fn exchange(&self, old: usize, new: usize) -> bool {
        let next = |used: usize| {
            let next = used.saturating_sub(old).saturating_add(new);
            (new <= old || next <= self.most).then_some(next)
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The share of each namespace. A clone counts into the same shares, so that the objects of several kinds can have one share
/// of a namespace together.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    share: Share,
    room: Room,
    /// The most objects of a namespace that are known by name beyond the share.
    names: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    namespaces: HashMap<Box<str>, Usage>,
    /// The number of objects of all namespaces that are known by name only.
    names: usize,
}

/// The memory that a namespace takes.
#[derive(Debug, Default)]
struct Usage {
    /// Objects that are kept, and their bytes.
    objects: usize,
    bytes: usize,
    /// Objects that are known by name only, and the bytes that they would take.
    names: usize,
    missing_bytes: usize,
}

/// The share that an object takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footprint {
    /// It is not known.
    Nothing,
    /// It is kept and takes so many bytes.
    Kept(u32),
    /// Its name is known, and it would take so many bytes.
    Named(u32),
}

impl Shares {
    /// Each namespace has this share, and all have the room together. An object that does not fit is left out.
    pub fn new(share: Share, room: Room) -> Self {
        Self::naming(share, room, 0)
    }

    /// The same, and of the objects that do not fit the names are known: of at most so many in each namespace. So no list is
    /// needed to know when all fit again. Of all namespaces together twice as many names are known.
    pub fn naming(share: Share, room: Room, names: usize) -> Self {
        Self(Arc::new(Inner {
            share,
            room,
            names,
            used: Mutex::default(),
        }))
    }

    /// True if a namespace has room again for what is known by name only, so that a new list would bring it back.
    pub fn await_list(&self) -> bool {
        let used = self.used();
        let (share, left) = (self.0.share, self.0.room.left());
        let fits = |usage: &Usage| {
            usage.names > 0
                && usage.missing_bytes <= left
                && usage.bytes + usage.missing_bytes <= share.bytes
                && usage.objects + usage.names <= share.objects
        };
        used.names > 0 && used.namespaces.values().any(fits)
    }

    /// The bytes of what is kept of a namespace.
    pub fn bytes(&self, namespace: &str) -> usize {
        self.used().namespaces.get(namespace).map_or(0, |usage| usage.bytes)
    }

    /// Counts an object of so many bytes in, in place of what it counted for before.
    pub(crate) fn take(&self, namespace: &str, before: Footprint, new: u32) -> Result<(), Exceeded> {
        let Inner { share, room, .. } = &*self.0;
        let (was_kept, old) = match before {
            Footprint::Kept(old) => (true, old as usize),
            Footprint::Nothing | Footprint::Named(_) => (false, 0),
        };
        let mut used = self.used();
        let (bytes, objects) = used
            .namespaces
            .get(namespace)
            .map_or((0, 0), |usage| (usage.bytes, usage.objects));
        let bytes = bytes - old + new as usize;
        if bytes > share.bytes || (!was_kept && objects >= share.objects) {
            return Err(Exceeded::Share(*share));
        }
        if !room.exchange(old, new as usize) {
            return Err(Exceeded::Room(room.most));
        }
        used.change(namespace, before, Footprint::Kept(new));
        Ok(())
    }

    /// Counts an object in by its name only, in place of what it counted for before; answers what it counts for now.
    pub(crate) fn name(&self, namespace: &str, before: Footprint, bytes: u32) -> Footprint {
        let mut used = self.used();
        let names = used.namespaces.get(namespace).map_or(0, |usage| usage.names);
        let is_named = matches!(before, Footprint::Named(_));
        let is_known = names < self.0.names && used.names < self.0.names.saturating_mul(2);
        let now = if is_named || is_known {
            Footprint::Named(bytes)
        } else {
            Footprint::Nothing
        };
        self.free(before);
        used.change(namespace, before, now);
        now
    }

    /// Counts an object out.
    pub(crate) fn release(&self, namespace: &str, before: Footprint) {
        self.free(before);
        self.used().change(namespace, before, Footprint::Nothing);
    }

    fn free(&self, before: Footprint) {
        if let Footprint::Kept(bytes) = before {
            self.0.room.exchange(bytes as usize, 0);
        }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn usage(&self, namespace: &str) -> (usize, usize) {
        let used = self.used();
        let usage = used.namespaces.get(namespace);
        usage.map_or((0, 0), |usage| (usage.objects, usage.bytes))
    }

    #[cfg(test)]
    pub(crate) fn are_empty(&self) -> bool {
        self.used().namespaces.is_empty()
    }
}

impl Used {
    fn change(&mut self, namespace: &str, before: Footprint, now: Footprint) {
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), Usage::default());
        }
        let Some(usage) = self.namespaces.get_mut(namespace) else {
            return;
        };
        match before {
            Footprint::Nothing => {}
            Footprint::Kept(bytes) => {
                usage.objects -= 1;
                usage.bytes -= bytes as usize;
            }
            Footprint::Named(bytes) => {
                self.names -= 1;
                usage.names -= 1;
                usage.missing_bytes -= bytes as usize;
            }
        }
        match now {
            Footprint::Nothing => {}
            Footprint::Kept(bytes) => {
                usage.objects += 1;
                usage.bytes += bytes as usize;
            }
            Footprint::Named(bytes) => {
                self.names += 1;
                usage.names += 1;
                usage.missing_bytes += bytes as usize;
            }
        }
        if usage.objects == 0 && usage.names == 0 {
            self.namespaces.remove(namespace);
        }
    }
}
