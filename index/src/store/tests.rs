//! Events in any order, against a model of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::share::{ENTRY_BYTES, Share};
use crate::shares::Room;

/// Six objects of ordinary size fit.
const SHARE: Share = Share {
    objects: 6,
    bytes: 6 * (ENTRY_BYTES + 1 + 100),
};
const NAMESPACES: [&str; 2] = ["one", "two"];
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

type Name = (&'static str, &'static str);

/// What happens in a cluster, and what a watch tells of it.
#[derive(Clone, Debug)]
enum Step {
    Apply(Name, usize),
    Delete(Name),
    /// A list that breaks off after so many objects, changes that nobody told of, and the list that follows.
    Interrupted(usize, Vec<(Name, Option<usize>)>),
    List,
}

/// A store, all that its readers were told, and the cluster.
struct Watched {
    store: Store<usize>,
    shares: Shares,
    room: Room,
    mirror: BTreeSet<(String, String)>,
    cluster: BTreeMap<Name, usize>,
}

impl Watched {
    fn new(room: usize, names: usize) -> Self {
        let room = Room::new(room);
        let shares = Shares::naming(SHARE, room.clone(), names);
        Self {
            store: Store::new("objects", shares.clone()),
            shares,
            room,
            mirror: BTreeSet::new(),
            cluster: BTreeMap::new(),
        }
    }

    fn note(&mut self, updates: Vec<Update<usize>>) {
        for Update {
            namespace,
            name,
            before,
        } in updates
        {
            let key = (namespace.into_string(), name.into_string());
            assert_eq!(before.is_some(), self.mirror.remove(&key));
            if self.store.value(&key.0, &key.1).is_some() {
                self.mirror.insert(key);
            }
        }
    }

    fn tell(&mut self, (namespace, name): Name, bytes: usize) {
        let updates = self.store.put(namespace, name, bytes, bytes);
        self.note(updates);
    }

    fn list(&mut self) {
        self.store.begin_list();
        for (name, bytes) in self.cluster.clone() {
            self.tell(name, bytes);
            self.check_bounds();
        }
        let updates = self.store.end_list();
        self.note(updates);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(name, bytes) => {
                self.cluster.insert(name, bytes);
                self.tell(name, bytes);
            }
            Step::Delete(name) => {
                if self.cluster.remove(&name).is_some() {
                    let updates = self.store.remove(name.0, name.1);
                    self.note(updates);
                }
            }
            Step::Interrupted(told, changes) => {
                self.store.begin_list();
                for (name, bytes) in self.cluster.clone().into_iter().take(told) {
                    self.tell(name, bytes);
                }
                for (name, bytes) in changes {
                    match bytes {
                        Some(bytes) => drop(self.cluster.insert(name, bytes)),
                        None => drop(self.cluster.remove(&name)),
                    }
                }
                self.list();
            }
            Step::List => self.list(),
        }
        self.check_bounds();
    }

    /// Lists that were asked for are made. One is enough.
    fn settle(&mut self) {
        if self.store.wants_list() {
            self.list();
        }
        assert!(!self.store.wants_list());
    }

    fn check_bounds(&self) {
        let mut used = 0;
        for (name, group) in &self.store.namespaces {
            let kept = group.entries().filter(|(_, entry)| entry.value.is_some());
            let bytes: usize = kept.map(|(_, entry)| entry.bytes as usize).sum();
            assert_eq!(self.shares.usage(name), (group.kept(), bytes), "{name}");
            assert!(bytes <= SHARE.bytes && group.kept() <= SHARE.objects, "{name}");
            used += bytes;
        }
        assert_eq!(self.room.used(), used);
    }

    /// What readers see of a namespace.
    fn kept(&self, namespace: &str) -> BTreeMap<String, usize> {
        let objects = self.store.iter(namespace);
        objects.map(|(name, value)| (name.to_owned(), *value)).collect()
    }

    fn in_cluster(&self, namespace: &str) -> BTreeMap<String, usize> {
        let own = self.cluster.iter().filter(|((of, _), _)| *of == namespace);
        own.map(|((_, name), bytes)| ((*name).to_owned(), *bytes)).collect()
    }
}

fn name() -> impl Strategy<Value = Name> {
    (
        proptest::sample::select(&NAMESPACES[..]),
        proptest::sample::select(&NAMES[..]),
    )
}

/// Ordinary ones, and those that take a third of a share.
fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(100usize), 1 => Just(400usize)]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (name(), proptest::option::of(bytes()));
    prop_oneof![
        6 => (name(), bytes()).prop_map(|(name, bytes)| Step::Apply(name, bytes)),
        4 => name().prop_map(Step::Delete),
        1 => (0..9usize, proptest::collection::vec(change, 0..9))
            .prop_map(|(told, changes)| Step::Interrupted(told, changes)),
        1 => Just(Step::List),
    ]
}

/// How many are known by name beyond the share: none, one, or all.
fn names() -> impl Strategy<Value = usize> {
    proptest::sample::select(vec![0, 1, usize::MAX])
}

proptest! {
    #[test]
    fn whatever_the_order_of_events_it_ends_as_after_a_fresh_list(
        steps in proptest::collection::vec(step(), 0..60), names in names()
    ) {
        let mut watched = Watched::new(usize::MAX, names);
        for step in steps {
            watched.step(step);
        }
        watched.settle();

        let mut fresh = Watched::new(usize::MAX, names);
        fresh.cluster.clone_from(&watched.cluster);
        fresh.list();
        for namespace in NAMESPACES {
            prop_assert_eq!(watched.store.exceeded(namespace), fresh.store.exceeded(namespace));
            if watched.store.exceeded(namespace).is_none() {
                prop_assert_eq!(watched.kept(namespace), fresh.kept(namespace));
                prop_assert_eq!(watched.kept(namespace), watched.in_cluster(namespace));
            }
        }
    }

    #[test]
    fn what_is_kept_is_true_and_what_is_left_out_is_known_to_be(
        steps in proptest::collection::vec(step(), 0..60), room in 0..2 * SHARE.bytes, names in names()
    ) {
        let mut watched = Watched::new(room, names);
        for step in steps {
            watched.step(step);
            let mut mirror = BTreeSet::new();
            for namespace in NAMESPACES {
                let (kept, in_cluster) = (watched.kept(namespace), watched.in_cluster(namespace));
                prop_assert!(kept.iter().all(|(name, bytes)| in_cluster.get(name) == Some(bytes)));
                prop_assert!(kept == in_cluster || watched.store.exceeded(namespace).is_some());
                mirror.extend(kept.into_keys().map(|name| (namespace.to_owned(), name)));
            }
            prop_assert_eq!(&mirror, &watched.mirror);
        }
    }
}

#[test]
fn a_namespace_over_its_share_takes_nothing_from_another_and_recovers() {
    let mut watched = Watched::new(usize::MAX, 0);
    watched.step(Step::Apply(("two", "a"), 100));
    for name in NAMES {
        watched.step(Step::Apply(("one", name), 100));
    }
    assert_eq!(watched.store.exceeded("one"), Some(Exceeded::Share(SHARE)));
    assert_eq!((watched.store.exceeded("two"), watched.kept("two").len()), (None, 1));
    assert!(!watched.store.wants_list(), "a list would change nothing");

    for name in &NAMES[..3] {
        watched.step(Step::Delete(("one", name)));
    }
    assert!(watched.store.wants_list());
    assert!(watched.store.exceeded("one").is_some(), "nobody knows yet");
    watched.settle();
    assert_eq!((watched.store.exceeded("one"), watched.kept("one").len()), (None, 6));
}

#[test]
fn a_namespace_that_is_empty_again_leaves_nothing_behind() {
    let mut watched = Watched::new(usize::MAX, 0);
    for name in NAMES {
        watched.step(Step::Apply(("one", name), 100));
    }
    for name in NAMES {
        watched.step(Step::Delete(("one", name)));
    }
    watched.settle();
    assert!(watched.store.namespaces.is_empty() && watched.shares.are_empty());
}

#[test]
fn a_namespace_whose_objects_are_known_by_name_recovers_without_a_list_where_what_did_not_fit_goes() {
    let mut watched = Watched::new(usize::MAX, 2);
    for name in &NAMES[..8] {
        watched.step(Step::Apply(("one", name), 100));
    }
    assert!(watched.store.exceeded("one").is_some() && watched.store.contains("one", "h"));
    assert_eq!(watched.store.value("one", "h"), None);
    for name in &NAMES[6..8] {
        watched.step(Step::Delete(("one", name)));
    }
    assert_eq!(watched.store.exceeded("one"), None);
    assert!(!watched.store.wants_list());

    for name in &NAMES[6..8] {
        watched.step(Step::Apply(("one", name), 100));
    }
    watched.step(Step::Delete(("one", "a")));
    assert!(!watched.store.wants_list(), "not all would fit");
    watched.step(Step::Delete(("one", "b")));
    assert!(watched.store.wants_list());
    watched.settle();
    assert_eq!(watched.store.exceeded("one"), None);
}

#[test]
fn kinds_that_share_a_namespaces_share_know_of_each_others_room() {
    let shares = Shares::naming(SHARE, Room::new(usize::MAX), usize::MAX);
    let (mut pods, mut accounts) = (Store::new("pods", shares.clone()), Store::new("accounts", shares));
    for name in NAMES {
        pods.put("one", name, (), 100);
    }
    accounts.put("one", "a", (), 100);
    assert!(accounts.exceeded("one").is_some() && !accounts.wants_list());
    for name in NAMES {
        pods.remove("one", name);
    }
    assert!(accounts.wants_list());
    accounts.begin_list();
    accounts.put("one", "a", (), 100);
    accounts.end_list();
    assert!(accounts.exceeded("one").is_none() && !accounts.wants_list());
}

#[test]
fn what_is_known_already_is_replaced_without_counting_as_listed() {
    let mut watched = Watched::new(usize::MAX, 0);
    watched.step(Step::Apply(("one", "a"), 100));
    watched.store.begin_list();
    assert!(watched.store.replace("one", "b", 1, 1).is_empty(), "it is not known");
    assert_eq!(watched.store.replace("one", "a", 50, 50).len(), 1);
    assert_eq!(watched.store.value("one", "a"), Some(&50));
    assert_eq!(watched.store.end_list().len(), 1);
    assert!(watched.store.is_empty());
}

#[test]
fn what_is_left_out_for_want_of_room_is_read_again_when_another_namespace_makes_some() {
    let full = |store: &mut Store<u32>| {
        for name in &NAMES[..6] {
            store.put("one", name, 0, 100);
        }
        store.put("two", "a", 0, 100);
        assert!(store.exceeded("two").is_some() && !store.wants_list());
    };
    let of_room = || {
        let bytes = 6 * (100 + ENTRY_BYTES + 1);
        Store::new("objects", Shares::new(SHARE, Room::new(bytes)))
    };
    let mut store = of_room();
    full(&mut store);
    store.remove("one", "a");
    assert!(store.wants_list());

    let mut store = of_room();
    full(&mut store);
    store.put("one", "a", 1, 10);
    assert!(store.wants_list());

    // In a list what goes last makes room after what came first was left out.
    let mut store = of_room();
    full(&mut store);
    store.begin_list();
    store.put("two", "a", 0, 100);
    store.end_list();
    assert!(store.exceeded("two").is_none() || store.wants_list());
}

#[test]
fn another_version_of_an_object_that_is_kept_asks_for_a_list_only_if_it_is_smaller() {
    let mut store = Store::new("objects", Shares::new(SHARE, Room::new(usize::MAX)));
    for name in &NAMES[..7] {
        store.put("one", name, 0, 100);
    }
    assert!(store.exceeded("one").is_some() && !store.wants_list());
    store.put("one", "a", 1, 100);
    assert!(!store.wants_list(), "nothing has more room than before");
    store.put("one", "a", 1, 99);
    assert!(store.wants_list());
}
