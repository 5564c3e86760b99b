//! Refusals that wait to be written: bounded for each namespace, and namespaces take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::review::OwnerEvent;

/// A controller tries again and again: the same about the same is written once in this time.
pub(super) const REPEAT: Duration = Duration::from_secs(300);
/// How many refusals of one namespace may wait.
pub(super) const MOST_OF_A_NAMESPACE: usize = 16;
/// How many different refusals of one namespace are written in [`REPEAT`], for so many are remembered.
pub(super) const MOST_REMEMBERED: usize = 64;
/// How many refusals may wait in all. One takes less than 4 KiB.
pub(super) const MOST: usize = 512;
/// Of how many namespaces something is remembered.
pub(super) const MOST_NAMESPACES: usize = 1024;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    namespaces: HashMap<Box<str>, Namespace>,
    /// The namespaces of which something waits, the next one first.
    turns: VecDeque<Box<str>>,
    waiting: usize,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Namespace {
    waiting: VecDeque<OwnerEvent>,
    /// When what was taken in: a hash, since texts are long.
    remembered: HashMap<u64, Instant>,
}

/// What became of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// The same was taken in lately.
    Known,
    /// It, or one of a namespace of which more wait, was dropped.
    Dropped,
}

impl Queue {
    /// Takes a refusal in, if there is room.
    pub(super) fn push(&mut self, refusal: OwnerEvent, now: Instant) -> Pushed {
        if !self.namespaces.contains_key(&refusal.namespace) {
            if self.namespaces.len() >= MOST_NAMESPACES {
                self.namespaces.retain(|_, namespace| namespace.is_needed(now));
            }
            if self.namespaces.len() >= MOST_NAMESPACES {
                return Pushed::Dropped;
            }
        }
        // All that a review says of the owner: who names another kind or name with its UID must not silence it.
        let owner = &refusal.owner;
        let owner = (&owner.api_version, &owner.kind, &owner.name, &owner.uid);
        let hash = self.hasher.hash_one((owner, &refusal.message));
        let namespace = self.namespaces.entry(refusal.namespace.clone()).or_default();
        if namespace.knows(hash, now) {
            return Pushed::Known;
        }
        if namespace.waiting.len() >= MOST_OF_A_NAMESPACE || !namespace.can_remember(now) {
            return Pushed::Dropped;
        }
        let waiting = namespace.waiting.len();
        let one_gives_way = self.waiting >= MOST;
        if one_gives_way && !self.drop_of_a_namespace_with_more_than(waiting + 1) {
            return Pushed::Dropped;
        }
        if waiting == 0 {
            self.turns.push_back(refusal.namespace.clone());
        }
        if let Some(namespace) = self.namespaces.get_mut(&refusal.namespace) {
            namespace.remembered.insert(hash, now);
            namespace.waiting.push_back(refusal);
            self.waiting += 1;
        }
        if one_gives_way { Pushed::Dropped } else { Pushed::Waits }
    }

    /// The next refusal: the oldest of the namespace whose turn it is.
    pub(super) fn pop(&mut self) -> Option<OwnerEvent> {
        let name = self.turns.pop_front()?;
        let namespace = self.namespaces.get_mut(&name)?;
        let refusal = namespace.waiting.pop_front()?;
        self.waiting -= 1;
        if !namespace.waiting.is_empty() {
            self.turns.push_back(name);
        }
        Some(refusal)
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

impl Namespace {
    fn knows(&self, hash: u64, now: Instant) -> bool {
        self.remembered.get(&hash).is_some_and(|&at| now - at < REPEAT)
    }

    fn can_remember(&mut self, now: Instant) -> bool {
        if self.remembered.len() >= MOST_REMEMBERED {
            self.remembered.retain(|_, at| now - *at < REPEAT);
        }
        self.remembered.len() < MOST_REMEMBERED
    }

    fn is_needed(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.remembered.values().any(|&at| now - at < REPEAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenscope_core::pod::OwnerReference;

    fn refusal(namespace: &str, uid: usize) -> OwnerEvent {
        OwnerEvent {
            namespace: namespace.into(),
            owner: OwnerReference {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: "orders-1".into(),
                uid: uid.to_string().into(),
                controller: Some(true),
            },
            message: "a pod was refused".to_owned(),
        }
    }

    #[test]
    fn the_same_is_taken_in_again_after_five_minutes_only() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.push(refusal("shop", 1), now), Pushed::Waits);
        assert_eq!(queue.push(refusal("shop", 1), now + REPEAT / 2), Pushed::Known);
        assert_eq!(queue.push(refusal("shop", 2), now + REPEAT / 2), Pushed::Waits);
        assert_eq!(queue.push(refusal("shop", 1), now + REPEAT), Pushed::Waits);
    }

    #[test]
    fn a_namespace_with_many_invented_owners_takes_no_turn_of_another() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut waits = 0;
        for uid in 0..1300 {
            waits += usize::from(queue.push(refusal("noisy", uid), now) == Pushed::Waits);
        }
        assert_eq!(waits, MOST_OF_A_NAMESPACE);
        assert_eq!(queue.push(refusal("quiet", 1), now), Pushed::Waits);
        let next: Vec<_> = (0..3).filter_map(|_| queue.pop()).map(|next| next.namespace).collect();
        assert_eq!(next, ["noisy", "quiet", "noisy"].map(Box::from));
    }

    #[test]
    fn a_namespace_writes_so_many_in_five_minutes_and_no_more() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut push_and_pop = |uid, at| {
            let waits = queue.push(refusal("noisy", uid), at) == Pushed::Waits;
            assert_eq!(queue.pop().is_some(), waits);
            waits
        };
        let written = (0..1000).filter(|&uid| push_and_pop(uid, now)).count();
        assert_eq!(written, MOST_REMEMBERED);
        assert!(push_and_pop(2000, now + REPEAT), "and then again");
    }

    #[test]
    fn where_all_is_full_the_namespace_with_most_gives_way() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for namespace in 0..40 {
            for uid in 0..MOST_OF_A_NAMESPACE {
                queue.push(refusal(&format!("noisy-{namespace}"), uid), now);
            }
        }
        assert_eq!(queue.waiting, MOST);
        assert_eq!(queue.push(refusal("quiet", 1), now), Pushed::Dropped);
        assert_eq!(queue.waiting, MOST);
        let waiting: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(waiting.len(), MOST);
        let quiet = waiting.iter().position(|refusal| *refusal.namespace == *"quiet");
        assert!(quiet.is_some_and(|at| at <= 40), "{quiet:?}");
    }

    #[test]
    fn namespaces_are_not_remembered_without_end() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for namespace in 0..2 * MOST_NAMESPACES {
            queue.push(refusal(&format!("namespace-{namespace}"), 1), now);
            queue.pop();
        }
        assert_eq!(queue.namespaces.len(), MOST_NAMESPACES);
        assert_eq!(queue.push(refusal("new", 1), now + REPEAT), Pushed::Waits);
        assert_eq!(queue.namespaces.len(), 1);
    }
}
