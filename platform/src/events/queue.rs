//! Notices that wait to be written: bounded for each namespace, and namespaces take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::{EventLimits, Notice};

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    limits: EventLimits,
    namespaces: HashMap<Box<str>, NamespaceQueue>,
    /// The namespaces of which something waits, the next one first.
    turns: VecDeque<Box<str>>,
    waiting: usize,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct NamespaceQueue {
    waiting: VecDeque<Notice>,
    /// When what was taken in: a hash, since texts are long.
    remembered: HashMap<u64, Instant>,
}

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// The same was taken in lately.
    Known,
    /// It, or one of a namespace with more waiting, was dropped.
    Dropped,
}

impl Queue {
    /// An empty one.
    pub(super) fn new(limits: EventLimits) -> Self {
        Self {
            limits,
            namespaces: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            hasher: RandomState::new(),
        }
    }

    /// True if so many more may wait.
    pub(super) fn has_room_for(&self, notices: usize) -> bool {
        self.waiting + notices <= self.limits.waiting
    }

    /// Takes a notice in, if there is room.
    pub(super) fn push(&mut self, notice: Notice, now: Instant) -> Pushed {
        let limits = self.limits;
        let name: Box<str> = notice.namespace().into();
        if !self.namespaces.contains_key(&name) {
            if self.namespaces.len() >= limits.namespaces {
                self.namespaces
                    .retain(|_, namespace| namespace.is_needed(now, limits.repeat));
            }
            if self.namespaces.len() >= limits.namespaces {
                return Pushed::Dropped;
            }
        }
        // All that is said of the object: who names another kind or name with its UID must not silence it.
        let about = &notice.about;
        let about = (&about.api_version, &about.kind, &about.name, &about.uid);
        let hash = self.hasher.hash_one((about, &notice.message));
        let namespace = self.namespaces.entry(name.clone()).or_default();
        if namespace.knows(hash, now, limits.repeat) {
            return Pushed::Known;
        }
        if namespace.waiting.len() >= limits.waiting_of_a_namespace || !namespace.can_remember(now, &limits) {
            return Pushed::Dropped;
        }
        let waiting = namespace.waiting.len();
        let one_gives_way = self.waiting >= limits.waiting;
        if one_gives_way && !self.drop_of_a_namespace_with_more_than(waiting + 1) {
            return Pushed::Dropped;
        }
        if waiting == 0 {
            self.turns.push_back(name.clone());
        }
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.remembered.insert(hash, now);
            namespace.waiting.push_back(notice);
            self.waiting += 1;
        }
        if one_gives_way { Pushed::Dropped } else { Pushed::Waits }
    }

    /// The next notice: the oldest of the namespace whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        let name = self.turns.pop_front()?;
        let namespace = self.namespaces.get_mut(&name)?;
        let notice = namespace.waiting.pop_front()?;
        self.waiting -= 1;
        if !namespace.waiting.is_empty() {
            self.turns.push_back(name);
        }
        Some(notice)
    }

    fn drop_of_a_namespace_with_more_than(&mut self, least: usize) -> bool {
        let longest = self
            .namespaces
            .values_mut()
            .max_by_key(|namespace| namespace.waiting.len());
        // What is longer than one stays in turn.
        let Some(longest) = longest.filter(|longest| longest.waiting.len() > least) else {
            return false;
        };
        longest.waiting.pop_back();
        self.waiting -= 1;
        true
    }
}

impl NamespaceQueue {
    fn knows(&self, hash: u64, now: Instant, repeat: Duration) -> bool {
        self.remembered.get(&hash).is_some_and(|&at| now - at < repeat)
    }

    fn can_remember(&mut self, now: Instant, limits: &EventLimits) -> bool {
        if self.remembered.len() >= limits.remembered_of_a_namespace {
            self.remembered.retain(|_, at| now - *at < limits.repeat);
        }
        self.remembered.len() < limits.remembered_of_a_namespace
    }

    fn is_needed(&self, now: Instant, repeat: Duration) -> bool {
        !self.waiting.is_empty() || self.remembered.values().any(|&at| now - at < repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    const REPEAT: Duration = Duration::from_secs(300);
    const MOST_OF_A_NAMESPACE: usize = 16;
    const MOST_REMEMBERED: usize = 64;
    const MOST: usize = 512;
    const MOST_NAMESPACES: usize = 1024;

    fn queue() -> Queue {
        Queue::new(EventLimits {
            waiting: MOST,
            waiting_of_a_namespace: MOST_OF_A_NAMESPACE,
            repeat: REPEAT,
            remembered_of_a_namespace: MOST_REMEMBERED,
            namespaces: MOST_NAMESPACES,
            pause: Duration::ZERO,
            deadline: Duration::ZERO,
        })
    }

    fn notice(namespace: &str, uid: usize) -> Notice {
        Notice {
            name: None,
            about: ObjectReference {
                kind: Some("ReplicaSet".into()),
                name: Some("orders-1".into()),
                namespace: Some(namespace.into()),
                uid: Some(uid.to_string()),
                ..ObjectReference::default()
            },
            verified_as: None,
            reason: "CredentialsRefused",
            message: "a pod was refused".to_owned(),
        }
    }

    #[test]
    fn the_same_is_taken_in_again_after_five_minutes_only() {
        let (mut queue, now) = (queue(), Instant::now());
        assert_eq!(queue.push(notice("shop", 1), now), Pushed::Waits);
        assert_eq!(queue.push(notice("shop", 1), now + REPEAT / 2), Pushed::Known);
        assert_eq!(queue.push(notice("shop", 2), now + REPEAT / 2), Pushed::Waits);
        assert_eq!(queue.push(notice("shop", 1), now + REPEAT), Pushed::Waits);
    }

    #[test]
    fn a_namespace_with_many_invented_owners_takes_no_turn_of_another() {
        let (mut queue, now) = (queue(), Instant::now());
        let mut waits = 0;
        for uid in 0..1300 {
            waits += usize::from(queue.push(notice("noisy", uid), now) == Pushed::Waits);
        }
        assert_eq!(waits, MOST_OF_A_NAMESPACE);
        assert_eq!(queue.push(notice("quiet", 1), now), Pushed::Waits);
        let next: Vec<_> = (0..3)
            .filter_map(|_| queue.pop())
            .map(|next| Box::<str>::from(next.namespace()))
            .collect();
        assert_eq!(next, ["noisy", "quiet", "noisy"].map(Box::from));
    }

    #[test]
    fn a_namespace_writes_so_many_in_five_minutes_and_no_more() {
        let (mut queue, now) = (queue(), Instant::now());
        let mut push_and_pop = |uid, at| {
            let waits = queue.push(notice("noisy", uid), at) == Pushed::Waits;
            assert_eq!(queue.pop().is_some(), waits);
            waits
        };
        let written = (0..1000).filter(|&uid| push_and_pop(uid, now)).count();
        assert_eq!(written, MOST_REMEMBERED);
        assert!(push_and_pop(2000, now + REPEAT), "and then again");
    }

    #[test]
    fn where_all_is_full_the_namespace_with_most_gives_way() {
        let (mut queue, now) = (queue(), Instant::now());
        for namespace in 0..40 {
            for uid in 0..MOST_OF_A_NAMESPACE {
                queue.push(notice(&format!("noisy-{namespace}"), uid), now);
            }
        }
        assert_eq!(queue.waiting, MOST);
        assert_eq!(queue.push(notice("quiet", 1), now), Pushed::Dropped);
        assert_eq!(queue.waiting, MOST);
        let waiting: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(waiting.len(), MOST);
        let quiet = waiting.iter().position(|notice| *notice.namespace() == *"quiet");
        assert!(quiet.is_some_and(|at| at <= 40), "{quiet:?}");
    }

    #[test]
    fn namespaces_are_not_remembered_without_end() {
        let (mut queue, now) = (queue(), Instant::now());
        for namespace in 0..2 * MOST_NAMESPACES {
            queue.push(notice(&format!("namespace-{namespace}"), 1), now);
            queue.pop();
        }
        assert_eq!(queue.namespaces.len(), MOST_NAMESPACES);
        assert_eq!(queue.push(notice("new", 1), now + REPEAT), Pushed::Waits);
        assert_eq!(queue.namespaces.len(), 1);
    }
}
