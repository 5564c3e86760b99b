//! The past as far as this process saw it, so that the absence of a fact has an age too.
//!
//! A policy, a boundary or an annotation can keep a grant from a pod, and leaves no trace when it is deleted. So each deletion that
//! the process sees is noted here. It sees none before its first lists, and none while a watch is interrupted, until its next list.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;
use tokenscope_core::{Policy, Selector, TokenSource};

use super::times::whole_seconds;

/// The most times for which a watch was interrupted that are remembered. Beyond, the oldest two count as one.
const MOST_GAPS: usize = 32;
/// The most removals that are remembered of all namespaces together, and as many of the cluster. A policy has less than 32 KiB.
const MOST_REMOVED: usize = 64;
/// The longest delay of a watch: whatever is older than its last word by more than this, it has told.
const LAG: SignedDuration = SignedDuration::from_mins(1);

/// The kinds whose objects can keep a grant away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Namespaces.
    Namespaces,
    /// Service accounts.
    ServiceAccounts,
    /// Policies of namespaces.
    Policies,
    /// Policies of the cluster.
    ClusterPolicies,
    /// Boundaries.
    Boundaries,
}

/// The watch of a kind.
#[derive(Clone, Copy, Debug)]
enum WatchState {
    /// No list was whole yet.
    None,
    /// It told something last at this time.
    Watching(Timestamp),
    /// It was interrupted: nothing is known from this time on until the list is whole.
    Listing(Timestamp),
}

/// Something that is gone, and may have kept a grant away until then.
#[derive(Clone, Debug)]
pub(crate) enum Removed {
    /// The statement of a policy.
    Policy(Arc<Policy>),
    /// The statement of a boundary for the namespaces that it selected.
    Boundary(Selector),
    /// Annotations of a service account of this name.
    Account(Box<str>),
    /// Anything.
    Unknown,
}

#[derive(Debug)]
struct Removal {
    /// None for what is the cluster's.
    namespace: Option<Box<str>>,
    at: Timestamp,
    what: Removed,
}

impl Removal {
    /// True for a policy that may have kept grants away in other namespaces too: it took context keys of the issuer, of which there are
    /// few for all policies.
    fn is_of_all(&self) -> bool {
        match &self.what {
            Removed::Policy(policy) => policy.token.source == TokenSource::Issuer && !policy.claims.context.is_empty(),
            Removed::Boundary(_) | Removed::Account(_) | Removed::Unknown => false,
        }
    }
}

/// The past as far as this process has seen it.
#[derive(Debug)]
pub(crate) struct Past {
    kinds: [WatchState; 5],
    /// Before it, nothing is known.
    since: Timestamp,
    /// Times for which a watch was interrupted, in order.
    gaps: VecDeque<(Timestamp, Timestamp)>,
    of_namespaces: VecDeque<Removal>,
    of_cluster: VecDeque<Removal>,
    /// The least time by which the API servers' clocks are ahead of this process's own, as far as they have shown.
    ahead: SignedDuration,
    /// By namespace, the time of the last removal that is no longer in the list. A namespace that is gone is not in it.
    forgotten: HashMap<Box<str>, Timestamp>,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            kinds: [WatchState::None; 5],
            since: Timestamp::UNIX_EPOCH,
            gaps: VecDeque::new(),
            of_namespaces: VecDeque::new(),
            of_cluster: VecDeque::new(),
            ahead: SignedDuration::ZERO,
            forgotten: HashMap::new(),
        }
    }
}

impl Past {
    /// Notes a time that an API server has set.
    pub(crate) fn note_time(&mut self, set: Timestamp, now: Timestamp) {
        self.ahead = self.ahead.max(now.duration_until(set));
    }

    /// The time by the clocks of API servers, and as they keep it: what happens now is not older than that.
    pub(crate) fn time(&self, now: Timestamp) -> Timestamp {
        whole_seconds(now.checked_add(self.ahead).unwrap_or(Timestamp::MAX))
    }

    /// Notes that a watch has told something, whatever it was. Answers true if it was interrupted, and has told all that there is now.
    pub(crate) fn note_event<K>(&mut self, kind: Watched, event: &Event<K>, now: Timestamp) -> bool {
        let state = &mut self.kinds[kind as usize];
        match (event, *state) {
            (Event::Init, WatchState::Watching(last)) => *state = WatchState::Listing(last - LAG),
            (Event::InitDone, WatchState::None) => {
                *state = WatchState::Watching(now);
                self.since = self.since.max(now);
            }
            (Event::InitDone, WatchState::Listing(from)) => {
                *state = WatchState::Watching(now);
                self.note_gap(from, now);
                return true;
            }
            (Event::InitDone | Event::Apply(_) | Event::Delete(_), WatchState::Watching(_)) => {
                *state = WatchState::Watching(now);
            }
            _ => {}
        }
        false
    }

    fn note_gap(&mut self, from: Timestamp, to: Timestamp) {
        self.gaps.push_back((from, to));
        if self.gaps.len() > MOST_GAPS
            && let (Some((from, _)), Some((_, to))) = (self.gaps.pop_front(), self.gaps.pop_front())
        {
            self.gaps.push_front((from, to));
        }
    }

    /// True if nothing is unknown of any moment from the first of these to the last, and of what went after it.
    pub(crate) fn is_known(&self, first: Timestamp, last: Timestamp) -> bool {
        let is_seen = |state: &WatchState| match state {
            WatchState::None => false,
            WatchState::Watching(_) => true,
            WatchState::Listing(from) => last < *from,
        };
        self.kinds.iter().all(is_seen)
            && first > self.since
            && self.gaps.iter().all(|(from, to)| last < *from || *to < first)
    }

    /// Notes that something is gone that was there until now.
    pub(crate) fn note_removed(&mut self, namespace: Option<&str>, what: Removed, now: Timestamp) {
        let removal = Removal {
            namespace: namespace.map(Into::into),
            at: now,
            what,
        };
        let list = match namespace {
            Some(_) => &mut self.of_namespaces,
            None => &mut self.of_cluster,
        };
        list.push_back(removal);
        if list.len() <= MOST_REMOVED {
            return;
        }
        let Some(oldest) = list.pop_front() else {
            return;
        };
        let is_of_all = oldest.is_of_all();
        match oldest.namespace {
            Some(namespace) if !is_of_all => {
                self.forgotten.insert(namespace, oldest.at);
            }
            _ => self.since = self.since.max(oldest.at),
        }
    }

    /// Forgets what was of a namespace that is gone: its pods are gone too.
    pub(crate) fn forget_namespace(&mut self, namespace: &str) {
        self.forgotten.remove(namespace);
        self.of_namespaces
            .retain(|removal| removal.is_of_all() || removal.namespace.as_deref() != Some(namespace));
    }

    /// What was there at this moment for pods of a namespace, or may have been, and is gone.
    pub(crate) fn removed_since<'a>(&'a self, namespace: &'a str, at: Timestamp) -> impl Iterator<Item = &'a Removed> {
        let forgotten = self.forgotten.get(namespace).filter(|gone| **gone >= at);
        let own = self.of_namespaces.iter();
        let own = own.filter(move |removal| removal.is_of_all() || removal.namespace.as_deref() == Some(namespace));
        let known = own.chain(&self.of_cluster).filter(move |removal| removal.at >= at);
        let unknown = forgotten.map(|_| &Removed::Unknown);
        unknown.into_iter().chain(known.map(|removal| &removal.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Watched; 5] = [
        Watched::Namespaces,
        Watched::ServiceAccounts,
        Watched::Policies,
        Watched::ClusterPolicies,
        Watched::Boundaries,
    ];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen_since(second: i64) -> Past {
        let mut past = Past::default();
        for kind in ALL {
            past.note_event::<()>(kind, &Event::InitDone, at(second));
        }
        past
    }

    fn is_known(past: &Past, second: i64) -> bool {
        past.is_known(at(second), at(second))
    }

    #[test]
    fn nothing_is_known_before_every_kind_was_listed_nor_of_what_was_before() {
        let mut past = Past::default();
        for (second, kind) in ALL.into_iter().enumerate() {
            assert!(!is_known(&past, 1000));
            past.note_event::<()>(kind, &Event::InitDone, at(100 + second as i64));
        }
        assert!(is_known(&past, 1000));
        assert!(!is_known(&past, 104) && is_known(&past, 105));
    }

    #[test]
    fn while_a_watch_was_interrupted_nothing_is_known_and_what_was_before_stays_known() {
        let mut past = seen_since(100);
        past.note_event(Watched::Policies, &Event::Apply(()), at(1000));
        assert!(!past.note_event::<()>(Watched::Policies, &Event::Init, at(2000)));
        assert!(is_known(&past, 939) && !is_known(&past, 1500) && !is_known(&past, 3000));
        assert!(past.note_event::<()>(Watched::Policies, &Event::InitDone, at(2010)));
        assert!(is_known(&past, 939) && !is_known(&past, 1500) && !is_known(&past, 2010));
        assert!(is_known(&past, 2011));
    }

    #[test]
    fn a_time_is_known_if_no_moment_of_it_is_unknown() {
        let mut past = seen_since(100);
        past.note_event(Watched::Policies, &Event::Apply(()), at(1000));
        past.note_event::<()>(Watched::Policies, &Event::Init, at(2000));
        assert!(past.is_known(at(800), at(939)) && !past.is_known(at(800), at(940)));
        past.note_event::<()>(Watched::Policies, &Event::InitDone, at(2010));
        for (first, last, known) in [
            (800, 939, true),
            (800, 940, false),
            (800, 3000, false),
            (1500, 1600, false),
            (2010, 3000, false),
            (2011, 3000, true),
            (100, 500, false),
            (101, 500, true),
        ] {
            assert_eq!(past.is_known(at(first), at(last)), known, "{first} to {last}");
        }
    }

    #[test]
    fn of_many_interruptions_the_oldest_count_as_one() {
        let mut past = seen_since(100);
        for round in 1..=40 {
            past.note_event(Watched::Policies, &Event::Apply(()), at(round * 1000));
            past.note_event::<()>(Watched::Policies, &Event::Init, at(round * 1000 + 10));
            past.note_event::<()>(Watched::Policies, &Event::InitDone, at(round * 1000 + 20));
        }
        assert_eq!(past.gaps.len(), MOST_GAPS);
        assert!(is_known(&past, 500) && !is_known(&past, 1500) && !is_known(&past, 5500));
        assert!(is_known(&past, 39_500));
    }

    #[test]
    fn a_clock_that_is_behind_the_api_servers_makes_nothing_older_than_it_is() {
        let mut past = seen_since(100);
        past.note_time(at(199), at(200));
        assert_eq!(past.time(at(200)), at(200));
        past.note_time(at(230), at(200));
        past.note_time(at(301), at(300));
        assert_eq!(past.time(at(300)), at(330));
        assert_eq!(
            past.time(Timestamp::MAX),
            Timestamp::from_second(Timestamp::MAX.as_second()).unwrap()
        );
    }

    #[test]
    fn what_went_is_told_of_its_namespace_and_what_is_forgotten_counts_as_anything() {
        let mut past = seen_since(100);
        past.note_removed(Some("shop"), Removed::Account("orders".into()), at(200));
        let count = |past: &Past, namespace: &str, second| past.removed_since(namespace, at(second)).count();
        assert_eq!((count(&past, "shop", 200), count(&past, "shop", 201)), (1, 0));
        assert_eq!(count(&past, "other", 150), 0);

        for second in 0..MOST_REMOVED as i64 {
            past.note_removed(Some("churn"), Removed::Unknown, at(300 + second));
        }
        let of_shop: Vec<_> = past.removed_since("shop", at(200)).collect();
        assert!(matches!(of_shop[..], [Removed::Unknown]), "{of_shop:?}");
        assert!(is_known(&past, 150), "one namespace makes nothing unknown elsewhere");
        past.forget_namespace("shop");
        assert_eq!(count(&past, "shop", 150), 0);

        for second in 0..=MOST_REMOVED as i64 {
            past.note_removed(None, Removed::Unknown, at(500 + second));
        }
        assert!(!is_known(&past, 500) && is_known(&past, 501));
        assert_eq!(count(&past, "any", 501), MOST_REMOVED);
    }
}
