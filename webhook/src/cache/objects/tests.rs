//! Events in any order, against a model of the cluster.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

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

/// Objects, all that readers of them were told, and the cluster.
struct World {
    objects: Objects<usize>,
    room: Room,
    mirror: BTreeSet<(String, String)>,
    cluster: BTreeMap<Name, usize>,
}

impl World {
    fn new(room: usize) -> Self {
        let room = Room::new(room);
        Self {
            objects: Objects::new("objects", SHARE, room.clone()),
            room,
            mirror: BTreeSet::new(),
            cluster: BTreeMap::new(),
        }
    }

    fn tell(&mut self, (namespace, name): Name, bytes: usize) {
        let mirror = &mut self.mirror;
        let mut gone = |namespace: &str, name: &str| {
            mirror.remove(&(namespace.into(), name.into()));
        };
        if self.objects.keep(namespace, name, bytes, bytes, &mut gone) {
            mirror.insert((namespace.into(), name.into()));
        }
    }

    fn list(&mut self) {
        self.objects.begin_list();
        for (name, bytes) in self.cluster.clone() {
            self.tell(name, bytes);
            self.check_bounds();
        }
        let mirror = &mut self.mirror;
        self.objects.end_list(&mut |namespace, name| {
            mirror.remove(&(namespace.into(), name.into()));
        });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(name, bytes) => {
                self.cluster.insert(name, bytes);
                self.tell(name, bytes);
            }
            Step::Delete(name) => {
                if self.cluster.remove(&name).is_some() {
                    self.objects.remove(name.0, name.1);
                    self.mirror.remove(&(name.0.into(), name.1.into()));
                }
            }
            Step::Interrupted(told, changes) => {
                self.objects.begin_list();
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
        if self.objects.wants_list() {
            self.list();
        }
        assert!(!self.objects.wants_list());
    }

    fn check_bounds(&self) {
        let mut used = 0;
        for (name, namespace) in &self.objects.namespaces {
            let bytes: usize = namespace.objects.values().map(|kept| kept.bytes as usize).sum();
            assert_eq!(namespace.bytes, bytes, "{name}");
            assert!(
                bytes <= SHARE.bytes && namespace.objects.len() <= SHARE.objects,
                "{name}"
            );
            used += bytes;
        }
        assert_eq!(self.room.used(), used);
        assert!(used <= self.room.most());
    }

    /// What readers see of a namespace.
    fn kept(&self, namespace: &str) -> BTreeMap<String, usize> {
        let objects = self.objects.iter(namespace);
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

proptest! {
    #[test]
    fn whatever_the_order_of_events_it_ends_as_after_a_fresh_list(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new(usize::MAX);
        for step in steps {
            world.step(step);
        }
        world.settle();

        let mut fresh = World::new(usize::MAX);
        fresh.cluster.clone_from(&world.cluster);
        fresh.list();
        for namespace in NAMESPACES {
            prop_assert_eq!(world.objects.exceeded(namespace), fresh.objects.exceeded(namespace));
            if world.objects.exceeded(namespace).is_none() {
                prop_assert_eq!(world.kept(namespace), fresh.kept(namespace));
                prop_assert_eq!(world.kept(namespace), world.in_cluster(namespace));
            }
        }
    }

    #[test]
    fn what_is_kept_is_true_and_what_is_left_out_is_known_to_be(
        steps in proptest::collection::vec(step(), 0..60), room in 0..2 * SHARE.bytes
    ) {
        let mut world = World::new(room);
        for step in steps {
            world.step(step);
            let mut mirror = BTreeSet::new();
            for namespace in NAMESPACES {
                let (kept, in_cluster) = (world.kept(namespace), world.in_cluster(namespace));
                prop_assert!(kept.iter().all(|(name, bytes)| in_cluster.get(name) == Some(bytes)));
                prop_assert!(kept == in_cluster || world.objects.exceeded(namespace).is_some());
                mirror.extend(kept.into_keys().map(|name| (namespace.to_owned(), name)));
            }
            prop_assert_eq!(&mirror, &world.mirror);
        }
    }
}

#[test]
fn a_namespace_over_its_share_takes_nothing_from_another_and_recovers() {
    let mut world = World::new(usize::MAX);
    world.step(Step::Apply(("two", "a"), 100));
    for name in NAMES {
        world.step(Step::Apply(("one", name), 100));
    }
    assert_eq!(world.objects.exceeded("one"), Some(Exceeded::Share(SHARE)));
    assert_eq!((world.objects.exceeded("two"), world.kept("two").len()), (None, 1));
    assert!(!world.objects.wants_list(), "a list would change nothing");

    for name in &NAMES[..3] {
        world.step(Step::Delete(("one", name)));
    }
    assert!(world.objects.wants_list());
    assert!(world.objects.exceeded("one").is_some(), "nobody knows yet");
    world.settle();
    assert_eq!((world.objects.exceeded("one"), world.kept("one").len()), (None, 6));
}

#[test]
fn a_namespace_that_is_empty_again_leaves_nothing_behind() {
    let mut world = World::new(usize::MAX);
    for name in NAMES {
        world.step(Step::Apply(("one", name), 100));
    }
    for name in NAMES {
        world.step(Step::Delete(("one", name)));
    }
    world.settle();
    assert!(world.objects.namespaces.is_empty());
}
