//! The sizes of all objects of one kind, by namespace and without the objects: they tell whether another process can keep them.
//!
//! A [`crate::Store`] knows that of its own objects. This counts by the same sizes for a process that keeps other things of them, and
//! needs no new list to know that all fit again, since it knows the size of each object. Names are known by a hash of 64 bits with a key
//! of this process, so that nobody can choose two names that count as one.
//!
//! An object takes at most 45 bytes, mostly about 30: a node of the map holds 5 to 11 of them and takes 208 bytes with what the allocator
//! adds, or 304 where it has nodes below it. However objects come and go, that does not change. A namespace takes at most 450 bytes more.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::share::{Exceeded, Share, entry_bytes};

/// The most objects that are known by their size. A namespace of which some are not counts as one that can't be kept, until a list shows
/// fewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MostKnown {
    /// Of one namespace: more than fit into its share.
    pub(crate) of_namespace: usize,
    /// Of all together: so many that the room is used up before, however they are spread over namespaces.
    pub(crate) of_all: usize,
}

/// The sizes of the objects of one kind.
#[derive(Debug)]
pub(crate) struct Tally {
    share: Share,
    room: usize,
    most: MostKnown,
    hash: RandomState,
    namespaces: BTreeMap<Box<str>, NamespaceSizes>,
    /// The number of objects that are known.
    objects: usize,
    /// The bytes of what fits into the shares of all namespaces together.
    bytes: usize,
    listing: bool,
}

/// The objects of a namespace.
#[derive(Debug, Default)]
struct NamespaceSizes {
    sizes: BTreeMap<u64, Size>,
    bytes: usize,
    /// The bound because of which there are objects that are not known, if there are.
    leaves_out: Option<ReachedBound>,
    /// The same, as far as the list that runs has come.
    leaves_out_in_list: Option<ReachedBound>,
    /// True if it grew while the room of all namespaces was used up.
    beyond_room: bool,
}

/// The bound beyond which an object is not known.
#[derive(Clone, Copy, Debug)]
enum ReachedBound {
    OfNamespace,
    OfAll,
}

/// An object's size in bytes.
#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u32,
    /// True if the list that runs, if one does, has named it.
    listed: bool,
}

impl Tally {
    /// Nothing is counted yet. Of each namespace this share can be kept, and of all together `room` bytes.
    pub(crate) fn new(share: Share, room: usize, most: MostKnown) -> Self {
        Self {
            share,
            room,
            most,
            hash: RandomState::new(),
            namespaces: BTreeMap::new(),
            objects: 0,
            bytes: 0,
            listing: false,
        }
    }

    /// The bound because of which not all objects of a namespace can be kept, if they can't.
    pub(crate) fn exceeded(&self, namespace: &str) -> Option<Exceeded> {
        self.bound_of(self.namespaces.get(namespace)?)
    }

    /// The namespaces of which not all objects can be kept.
    pub(crate) fn all_exceeded(&self) -> impl Iterator<Item = &str> {
        let namespaces = self.namespaces.iter();
        namespaces.filter_map(|(name, group)| self.bound_of(group).map(|_| &**name))
    }

    /// True if a list runs: until it ends, what is here is neither the old state nor the new one.
    pub(crate) fn is_listing(&self) -> bool {
        self.listing
    }

    /// True if a namespace has few objects again of which some are not known, so that only a list can tell how many they are.
    pub(crate) fn wants_list(&self) -> bool {
        let MostKnown { of_namespace, of_all } = self.most;
        let is_small = |group: &NamespaceSizes| group.leaves_out.is_some() && group.sizes.len() < of_namespace / 2;
        !self.listing && self.objects < of_all && self.namespaces.values().any(is_small)
    }

    /// A list begins.
    pub(crate) fn begin_list(&mut self) {
        self.listing = true;
        for group in self.namespaces.values_mut() {
            group.leaves_out_in_list = None;
            group.sizes.values_mut().for_each(|size| size.listed = false);
        }
    }

    /// A list has ended: what it did not name is gone.
    pub(crate) fn end_list(&mut self) {
        self.listing = false;
        let (mut objects, mut bytes) = (0, 0);
        self.namespaces.retain(|_, group| {
            group.sizes.retain(|_, size| size.listed);
            group.bytes = group.sizes.values().map(|size| size.bytes as usize).sum();
            group.leaves_out = group.leaves_out_in_list;
            objects += group.sizes.len();
            bytes += group.fitting(self.share);
            !group.is_needless()
        });
        self.objects = objects;
        self.note_bytes(bytes);
    }

    /// Counts an object whose value takes so many bytes, in place of the one of its name. Answers true if the room of all namespaces was used
    /// up and no longer is, so that others may be within their bounds again; then alone the cost is linear in the namespaces.
    pub(crate) fn put(&mut self, namespace: &str, name: &str, bytes: usize) -> bool {
        let size = Size {
            bytes: entry_bytes(name, bytes),
            listed: true,
        };
        let hash = self.hash.hash_one(name);
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), NamespaceSizes::default());
        }
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let (fitted, before) = (group.fitting(self.share), group.bytes);
        let is_known = group.sizes.contains_key(&hash);
        let left_out = if group.sizes.len() >= self.most.of_namespace {
            Some(ReachedBound::OfNamespace)
        } else {
            (self.objects >= self.most.of_all).then_some(ReachedBound::OfAll)
        };
        if left_out.is_some() && !is_known {
            group.leaves_out = left_out;
            group.leaves_out_in_list = left_out;
            return false;
        }
        let old = group.sizes.insert(hash, size).map_or(0, |old| old.bytes as usize);
        group.bytes = group.bytes - old + size.bytes as usize;
        self.objects += usize::from(!is_known);
        let bytes = self.bytes - fitted + group.fitting(self.share);
        group.beyond_room |= bytes > self.room && group.bytes > before;
        self.note_bytes(bytes)
    }

    /// Counts an object out. Answers as [`Self::put`].
    pub(crate) fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let hash = self.hash.hash_one(name);
        let Some(group) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let (fitted, mut bytes) = (group.fitting(self.share), self.bytes);
        if let Some(size) = group.sizes.remove(&hash) {
            group.bytes -= size.bytes as usize;
            self.objects -= 1;
            bytes = bytes - fitted + group.fitting(self.share);
        }
        if group.is_needless() {
            self.namespaces.remove(namespace);
        }
        self.note_bytes(bytes)
    }

    /// Notes how many bytes fit. Where that is within the room again, which is the answer, no namespace is beyond it.
    fn note_bytes(&mut self, bytes: usize) -> bool {
        let was_used_up = std::mem::replace(&mut self.bytes, bytes) > self.room;
        let has_room_again = was_used_up && bytes <= self.room;
        if has_room_again {
            self.namespaces.values_mut().for_each(|group| group.beyond_room = false);
        }
        has_room_again
    }

    fn bound_of(&self, group: &NamespaceSizes) -> Option<Exceeded> {
        if group.sizes.len() > self.share.objects || group.bytes > self.share.bytes {
            return Some(Exceeded::Share(self.share));
        }
        match group.leaves_out {
            Some(ReachedBound::OfNamespace) => Some(Exceeded::Share(self.share)),
            Some(ReachedBound::OfAll) => Some(Exceeded::Room(self.room)),
            None => group.beyond_room.then_some(Exceeded::Room(self.room)),
        }
    }
}

impl NamespaceSizes {
    fn is_needless(&self) -> bool {
        self.sizes.is_empty() && self.leaves_out.is_none()
    }

    /// The bytes of what fits into a share, about: where there are too many objects, those of as many of middle size.
    fn fitting(&self, share: Share) -> usize {
        let objects = self.sizes.len();
        let bytes = if objects > share.objects {
            self.bytes / objects * share.objects
        } else {
            self.bytes
        };
        bytes.min(share.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokenscope_fixtures::Numbers;

    use super::*;
    use crate::shares::{Room, Shares};
    use crate::store::Store;

    const SHARE: Share = Share {
        objects: 8,
        bytes: 4000,
    };
    const MOST: MostKnown = MostKnown {
        of_namespace: 100,
        of_all: 300,
    };

    /// A store that reads a list anew whenever one would bring something back: the truth of what the other process keeps.
    fn kept(objects: &HashMap<(String, String), usize>) -> Store<()> {
        let mut store = Store::new("objects", Shares::new(SHARE, Room::new(usize::MAX)));
        store.begin_list();
        for ((namespace, name), bytes) in objects {
            store.put(namespace, name, (), *bytes);
        }
        store.end_list();
        store
    }

    #[test]
    fn a_namespace_counts_as_over_its_share_exactly_while_a_store_can_not_keep_all_of_it() {
        let mut exceeded = 0;
        for seed in 0..50 {
            let mut numbers = Numbers::new(seed);
            let mut tally = Tally::new(SHARE, usize::MAX, MOST);
            let mut objects = HashMap::new();
            for _ in 0..200 {
                let key = (format!("n{}", numbers.below(2)), format!("o{}", numbers.below(12)));
                match numbers.below(5) {
                    0 | 1 => {
                        tally.remove(&key.0, &key.1);
                        objects.remove(&key);
                    }
                    2 if numbers.below(8) == 0 => {
                        objects.retain(|_, _| numbers.below(3) > 0);
                        tally.begin_list();
                        for ((namespace, name), bytes) in &objects {
                            tally.put(namespace, name, *bytes);
                        }
                        tally.end_list();
                    }
                    _ => {
                        let bytes = numbers.below(900);
                        tally.put(&key.0, &key.1, bytes);
                        objects.insert(key, bytes);
                    }
                }
                let store = kept(&objects);
                for namespace in ["n0", "n1"] {
                    assert_eq!(
                        tally.exceeded(namespace),
                        store.exceeded(namespace),
                        "seed {seed}: {objects:?}"
                    );
                    exceeded += usize::from(tally.exceeded(namespace).is_some());
                }
                assert_eq!(tally.objects, objects.len());
                assert!(!tally.wants_list());
            }
        }
        assert!(exceeded > 1000, "{exceeded}");
    }

    #[test]
    fn where_the_room_of_all_is_used_up_a_namespace_that_grows_then_is_named_until_others_have_made_room() {
        let mut tally = Tally::new(SHARE, 6000, MOST);
        for namespace in ["first", "second"] {
            for number in 0..10 {
                tally.put(namespace, &number.to_string(), 300);
            }
        }
        let exceeded: Vec<_> = ["first", "second", "third"].map(|name| tally.exceeded(name)).into();
        assert_eq!(
            exceeded,
            [Some(Exceeded::Share(SHARE)), Some(Exceeded::Share(SHARE)), None]
        );
        assert!(!tally.put("third", "one", 300));
        assert_eq!(tally.exceeded("third"), Some(Exceeded::Room(6000)));
        let has_room_again = (0..10).map(|number| tally.remove("first", &number.to_string()));
        assert_eq!(has_room_again.filter(|answer| *answer).count(), 1);
        assert_eq!((tally.exceeded("first"), tally.exceeded("third")), (None, None));
        assert!(tally.exceeded("second").is_some(), "it is over its own share");

        assert!(!tally.put("first", "large", 2400));
        assert_eq!(tally.exceeded("first"), Some(Exceeded::Room(6000)));
        assert!(
            tally.put("third", "one", 0),
            "an object that gets smaller makes room too"
        );
        assert_eq!(tally.exceeded("first"), None);
    }

    #[test]
    fn beyond_the_bound_of_objects_that_are_known_a_namespace_stays_over_until_a_list_shows_fewer() {
        let share = Share {
            objects: usize::MAX,
            bytes: usize::MAX,
        };
        let mut tally = Tally::new(share, usize::MAX, MOST);
        for number in 0..=MOST.of_namespace {
            tally.put("crowd", &number.to_string(), 0);
        }
        assert_eq!(tally.objects, MOST.of_namespace);
        for number in 0..MOST.of_namespace {
            assert!(!tally.wants_list() || number > MOST.of_namespace / 2);
            tally.remove("crowd", &number.to_string());
        }
        assert_eq!(tally.exceeded("crowd"), Some(Exceeded::Share(share)));
        assert!(tally.wants_list());
        tally.begin_list();
        tally.put("crowd", "one", 0);
        tally.end_list();
        assert!(tally.exceeded("crowd").is_none() && !tally.wants_list());
    }

    #[test]
    fn beyond_the_bound_of_all_objects_that_are_known_the_room_is_named_and_not_the_share_of_a_namespace() {
        let mut tally = Tally::new(SHARE, 6000, MOST);
        for number in 0..MOST.of_all {
            tally.put(&format!("crowd-{}", number % 3), &number.to_string(), 0);
        }
        tally.put("other", "one", 0);
        assert_eq!(tally.objects, MOST.of_all);
        assert_eq!(tally.exceeded("other"), Some(Exceeded::Room(6000)));
    }
}
