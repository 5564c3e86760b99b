//! Notices that wait to be written: bounded for each source, and sources take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{EventLimits, Notice};

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    limits: EventLimits,
    sources: HashMap<NoticeSource, SourceQueue>,
    /// The sources of which something waits, the next one first.
    turns: VecDeque<NoticeSource>,
    waiting: usize,
    hasher: RandomState,
}

/// A namespace, and the peer who has told of it, where it is not this process that knows: what a neighbour makes up about a namespace takes
/// nothing from what is true of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NoticeSource {
    namespace: Box<str>,
    peer: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct SourceQueue {
    waiting: VecDeque<Notice>,
    /// When what was taken in: a hash, since texts are long.
    remembered: HashMap<u64, Instant>,
    /// The time at which something was taken in last.
    last: Option<Instant>,
}

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// The same was taken in lately.
    Known,
    /// It, or one of a source with more waiting, was dropped.
    Dropped,
}

impl Queue {
    /// An empty one.
    pub(super) fn new(limits: EventLimits) -> Self {
        Self {
            limits,
            sources: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            hasher: RandomState::new(),
        }
    }

    /// True if so many more of a namespace may wait that this process itself tells of.
    pub(super) fn has_room_for(&self, namespace: &str, notices: usize) -> bool {
        let source = NoticeSource {
            namespace: namespace.into(),
            peer: None,
        };
        let of_source = self.sources.get(&source).map_or(0, |of_source| of_source.waiting.len());
        self.waiting + notices <= self.limits.waiting && of_source + notices <= self.limits.waiting_of_a_namespace
    }

    /// Takes a notice in that this peer has told of, or this process itself, if there is room.
    pub(super) fn push(&mut self, notice: Notice, peer: Option<IpAddr>, now: Instant) -> Pushed {
        let limits = self.limits;
        let source = NoticeSource {
            namespace: notice.namespace().into(),
            peer,
        };
        if !self.sources.contains_key(&source) && !self.has_place_for_another(now) {
            return Pushed::Dropped;
        }
        let hash = hash(&self.hasher, &notice);
        if self.knows(&source.namespace, hash, now) {
            return Pushed::Known;
        }
        let of_source = self.sources.entry(source.clone()).or_default();
        if of_source.waiting.len() >= limits.waiting_of_a_namespace || !of_source.can_remember(now, &limits) {
            return Pushed::Dropped;
        }
        let waiting = of_source.waiting.len();
        let one_gives_way = self.waiting >= limits.waiting;
        if one_gives_way && !self.drop_of_a_source_with_more_than(waiting + 1) {
            return Pushed::Dropped;
        }
        if waiting == 0 {
            self.turns.push_back(source.clone());
        }
        if let Some(of_source) = self.sources.get_mut(&source) {
            of_source.remembered.insert(hash, now);
            of_source.last = Some(now);
            of_source.waiting.push_back(notice);
            self.waiting += 1;
        }
        if one_gives_way { Pushed::Dropped } else { Pushed::Waits }
    }

    /// The next notice: the oldest of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        let source = self.turns.pop_front()?;
        let of_source = self.sources.get_mut(&source)?;
        let notice = of_source.waiting.pop_front()?;
        self.waiting -= 1;
        if !of_source.waiting.is_empty() {
            self.turns.push_back(source);
        }
        Some(notice)
    }

    /// Whoever told of it: the same is written once.
    fn knows(&self, namespace: &str, hash: u64, now: Instant) -> bool {
        let mut sources = self
            .sources
            .iter()
            .filter(|(source, _)| *source.namespace == *namespace);
        sources.any(|(_, of_source)| of_source.knows(hash, now, self.limits.repeat))
    }

    /// True if something of one source more may be remembered. Where there are too many, what is known of the one that has been quiet the
    /// longest is forgotten: its notices may be written once more, which is better than that none of a new one is.
    fn has_place_for_another(&mut self, now: Instant) -> bool {
        let limits = self.limits;
        if self.sources.len() < limits.namespaces {
            return true;
        }
        self.sources
            .retain(|_, of_source| of_source.is_needed(now, limits.repeat));
        if self.sources.len() < limits.namespaces {
            return true;
        }
        let quiet = self
            .sources
            .iter()
            .filter(|(_, of_source)| of_source.waiting.is_empty());
        let longest = quiet.min_by_key(|(_, of_source)| of_source.last);
        let Some(longest) = longest.map(|(source, _)| source.clone()) else {
            return false;
        };
        self.sources.remove(&longest);
        true
    }

    fn drop_of_a_source_with_more_than(&mut self, least: usize) -> bool {
        let longest = self
            .sources
            .values_mut()
            .max_by_key(|of_source| of_source.waiting.len());
        // What is longer than one stays in turn.
        let Some(longest) = longest.filter(|longest| longest.waiting.len() > least) else {
            return false;
        };
        // It was not written, so it silences nothing.
        if let Some(dropped) = longest.waiting.pop_back() {
            longest.remembered.remove(&hash(&self.hasher, &dropped));
        }
        self.waiting -= 1;
        true
    }
}

/// All that is said of the object: who names another kind or name with its UID must not silence it.
fn hash(hasher: &RandomState, notice: &Notice) -> u64 {
    let about = &notice.about;
    let about = (&about.api_version, &about.kind, &about.name, &about.uid);
    hasher.hash_one((about, &notice.message))
}

impl SourceQueue {
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
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

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
        assert_eq!(queue.push(notice("shop", 1), None, now), Pushed::Waits);
        assert_eq!(queue.push(notice("shop", 1), None, now + REPEAT / 2), Pushed::Known);
        assert_eq!(queue.push(notice("shop", 2), None, now + REPEAT / 2), Pushed::Waits);
        assert_eq!(queue.push(notice("shop", 1), None, now + REPEAT), Pushed::Waits);
    }

    #[test]
    fn a_namespace_whose_part_is_full_leaves_room_to_others() {
        let (mut queue, now) = (queue(), Instant::now());
        for uid in 0..MOST_OF_A_NAMESPACE {
            assert!(queue.has_room_for("crowd", 1), "{uid}");
            assert_eq!(queue.push(notice("crowd", uid), None, now), Pushed::Waits);
        }
        assert!(!queue.has_room_for("crowd", 1) && queue.has_room_for("shop", 2));
    }

    #[test]
    fn a_namespace_with_many_invented_owners_takes_no_turn_of_another() {
        let (mut queue, now) = (queue(), Instant::now());
        let mut waits = 0;
        for uid in 0..1300 {
            waits += usize::from(queue.push(notice("noisy", uid), None, now) == Pushed::Waits);
        }
        assert_eq!(waits, MOST_OF_A_NAMESPACE);
        assert_eq!(queue.push(notice("quiet", 1), None, now), Pushed::Waits);
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
            let waits = queue.push(notice("noisy", uid), None, at) == Pushed::Waits;
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
                queue.push(notice(&format!("noisy-{namespace}"), uid), None, now);
            }
        }
        assert_eq!(queue.waiting, MOST);
        assert_eq!(queue.push(notice("quiet", 1), None, now), Pushed::Dropped);
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
            queue.push(notice(&format!("namespace-{namespace}"), 1), None, now);
            queue.pop();
        }
        assert_eq!(queue.sources.len(), MOST_NAMESPACES);
        assert_eq!(queue.push(notice("new", 1), None, now + REPEAT), Pushed::Waits);
        assert_eq!(queue.sources.len(), 1);
    }

    #[test]
    fn more_namespaces_than_are_remembered_silence_no_further_one() {
        let (mut queue, now) = (queue(), Instant::now());
        for namespace in 0..MOST_NAMESPACES {
            queue.push(notice(&format!("namespace-{namespace}"), 1), None, now);
            queue.pop();
        }
        let later = now + REPEAT / 2;
        assert_eq!(queue.push(notice("namespace-0", 2), None, later), Pushed::Waits);
        assert_eq!(queue.push(notice("new", 1), None, later), Pushed::Waits);
        assert_eq!(queue.sources.len(), MOST_NAMESPACES);
        let known = queue.push(notice("namespace-0", 1), None, later);
        assert_eq!(known, Pushed::Known, "what has been quiet for longer was forgotten");
    }

    #[test]
    fn what_a_neighbour_makes_up_about_a_namespace_takes_nothing_from_what_is_true_of_it() {
        let (mut queue, now) = (queue(), Instant::now());
        let [neighbour, api_server] = [9, 1].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        for uid in 0..1000 {
            queue.push(notice("shop", uid), neighbour, now);
            queue.pop();
        }
        assert_eq!(queue.push(notice("shop", 1000), neighbour, now), Pushed::Dropped);
        assert_eq!(queue.push(notice("shop", 1000), api_server, now), Pushed::Waits);
        let another = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(
            queue.push(notice("shop", 1000), another, now),
            Pushed::Known,
            "the same is written once"
        );
    }
}
