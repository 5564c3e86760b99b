//! Bounds on how often the API server is asked, by source, so that whoever asks for much keeps nobody else from asking.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The most lookups that run at a time in all. The API server answers one in milliseconds.
pub(super) const MOST_AT_A_TIME: usize = 64;
/// The most of one source that run at a time.
pub(super) const MOST_OF_A_SOURCE: usize = 8;
/// The number of one source that begin each second, on average.
pub(super) const PER_SECOND: f64 = 20.0;
/// The most that may begin at once after a rest: a namespace is often made with many service accounts and pods in one go.
pub(super) const BURST: f64 = 40.0;
/// The number of sources that are known at a time. Each is of a namespace that exists.
const MOST_SOURCES: usize = 1024;
/// The time for which it is remembered that something does not exist.
pub(super) const MISSING_FOR: Duration = Duration::from_secs(1);
/// The number of missing objects that are remembered.
const MOST_MISSING: usize = 1024;

/// The source of lookups: a namespace, as one peer names it in its reviews. So a neighbour that sends invented reviews takes nothing from
/// the namespaces that they name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LookupSource {
    pub(super) peer: IpAddr,
    pub(super) namespace: Box<str>,
}

/// True if a peer that has so many of `all` may have one more, where there are `most`: it has at most twice what is free, so that
/// others find room however many namespaces it names.
pub(super) fn leaves_enough(of_peer: usize, all: usize, most: usize) -> bool {
    all < most && of_peer <= 2 * (most - all)
}

/// A token bucket for each source.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<LookupSource, Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn tokens(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + elapsed * PER_SECOND).min(BURST)
    }
}

impl Rates {
    /// True if one more may begin now; if so, it counts.
    pub(super) fn admit(&mut self, source: &LookupSource, now: Instant) -> bool {
        if let Some(bucket) = self.0.get_mut(source) {
            let tokens = bucket.tokens(now);
            if tokens < 1.0 {
                return false;
            }
            *bucket = Bucket {
                tokens: tokens - 1.0,
                at: now,
            };
            return true;
        }
        // Below a third of them no peer can have too many.
        if self.0.len() * 3 >= MOST_SOURCES {
            // A full bucket says no more than none.
            self.0.retain(|_, bucket| bucket.tokens(now) < BURST);
        }
        let of_peer = self.0.keys().filter(|known| known.peer == source.peer).count();
        if !leaves_enough(of_peer, self.0.len(), MOST_SOURCES) {
            return false;
        }
        let tokens = BURST - 1.0;
        self.0.insert(source.clone(), Bucket { tokens, at: now });
        true
    }
}

/// The objects that were found not to exist, for a moment.
#[derive(Debug)]
pub(super) struct MissingObjects<K>(HashMap<K, Instant>);

impl<K> Default for MissingObjects<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> MissingObjects<K> {
    pub(super) fn contains(&self, thing: &K, now: Instant) -> bool {
        self.0.get(thing).is_some_and(|&at| now - at < MISSING_FOR)
    }

    pub(super) fn insert(&mut self, thing: K, now: Instant) {
        if self.0.len() >= MOST_MISSING {
            self.0.retain(|_, at| now - *at < MISSING_FOR);
        }
        if self.0.len() < MOST_MISSING {
            self.0.insert(thing, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: u32, namespace: &str) -> LookupSource {
        LookupSource {
            peer: IpAddr::from(peer.to_be_bytes()),
            namespace: namespace.into(),
        }
    }

    #[test]
    fn a_source_has_a_burst_and_then_its_rate_and_takes_nothing_from_another() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted =
            |rates: &mut Rates, namespace, at| (0..100).filter(|_| rates.admit(&source(1, namespace), at)).count();
        assert_eq!(admitted(&mut rates, "a", now), 40);
        assert_eq!(admitted(&mut rates, "b", now), 40);
        assert_eq!(admitted(&mut rates, "a", now + Duration::from_millis(500)), 10);
        assert_eq!(admitted(&mut rates, "a", now + Duration::from_secs(60)), 40);
    }

    #[test]
    fn neither_sources_nor_missing_things_grow_without_end() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted = (0..5000).filter(|&n| rates.admit(&source(n, "shop"), now)).count();
        assert_eq!((admitted, rates.0.len()), (MOST_SOURCES, MOST_SOURCES));
        assert!(
            rates.admit(&source(1, "new"), now + Duration::from_secs(1)),
            "full buckets make room"
        );

        let mut missing = MissingObjects::default();
        (0..5000).for_each(|n| missing.insert(n, now));
        assert_eq!(missing.0.len(), MOST_MISSING);
        missing.insert(5000, now + MISSING_FOR);
        assert!(missing.contains(&5000, now + MISSING_FOR) && !missing.contains(&0, now + MISSING_FOR));
    }

    #[test]
    fn a_peer_that_names_very_many_namespaces_leaves_sources_and_lookups_to_others() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted = (0..5000)
            .filter(|n| rates.admit(&source(1, &format!("n{n}")), now))
            .count();
        assert!((600..700).contains(&admitted), "{admitted}");
        assert!(rates.admit(&source(2, "shop"), now));

        let lookups = |of_peer| leaves_enough(of_peer, of_peer, MOST_AT_A_TIME);
        let of_one_peer = (0..MOST_AT_A_TIME).take_while(|&of_peer| lookups(of_peer)).count();
        assert!(
            leaves_enough(0, of_one_peer, MOST_AT_A_TIME) && of_one_peer < 50,
            "{of_one_peer}"
        );
    }
}
