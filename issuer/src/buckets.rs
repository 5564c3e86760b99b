//! Limits on how often each source may do something: token buckets in tables of fixed size.
//!
//! Each source has a bucket in each of two tables. It may act while either bucket has a token, and a token is taken from both. So a
//! source that shares neither bucket has exactly its own tokens, and one that shares a bucket still has the other.

use std::array::from_fn;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The tables. Each has a hash with a random key of its own, so no source can choose the ones that it shares a bucket with.
const TABLES: usize = 2;
/// The number of buckets in a table: a quarter of a megabyte for both tables.
const BUCKETS: usize = 8192;
/// The same where every pod of a large cluster has its buckets: two megabytes for both tables. A pod that asks without end
/// shares both its buckets with one of 50,000 others by a chance of 1 in 80,000.
const BUCKETS_FOR_PODS: usize = 65_536;

/// Token buckets.
#[derive(Debug)]
pub struct Buckets {
    most: f32,
    a_second: f32,
    hashes: [RandomState; TABLES],
    began: Instant,
    tables: Mutex<[Box<[TokenBucket]>; TABLES]>,
}

#[derive(Clone, Copy, Debug)]
struct TokenBucket {
    tokens: f32,
    /// The time when it had so many, in milliseconds after the start.
    at: u64,
}

/// The tokens that were taken from each table, to be given back.
#[derive(Clone, Copy, Debug)]
#[must_use = "without it nothing may be done"]
pub struct Taken([f32; TABLES]);

impl Buckets {
    /// Buckets that hold `most` tokens, are full, and get `a_second` tokens a second.
    pub fn new(most: u16, a_second: u16, now: Instant) -> Self {
        Self::sized(BUCKETS, most, a_second, now)
    }

    /// The same with as many buckets as pods need.
    pub fn for_pods(most: u16, a_second: u16, now: Instant) -> Self {
        Self::sized(BUCKETS_FOR_PODS, most, a_second, now)
    }

    fn sized(buckets: usize, most: u16, a_second: u16, now: Instant) -> Self {
        let full = TokenBucket {
            tokens: f32::from(most),
            at: 0,
        };
        Self {
            most: f32::from(most),
            a_second: f32::from(a_second),
            hashes: from_fn(|_| RandomState::new()),
            began: now,
            tables: Mutex::new(from_fn(|_| vec![full; buckets].into())),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, who: &impl Hash, now: Instant) -> Option<Taken> {
        self.change(who, now, |[one, other]| {
            if one.tokens < 1.0 && other.tokens < 1.0 {
                return None;
            }
            let take = |bucket: &mut TokenBucket| {
                let taken = bucket.tokens.min(1.0);
                bucket.tokens -= taken;
                taken
            };
            Some(Taken([take(one), take(other)]))
        })
    }

    /// Gives back what was taken for the same `who`.
    pub fn give_back(&self, who: &impl Hash, Taken(taken): Taken, now: Instant) {
        self.change(who, now, |buckets| {
            for (bucket, taken) in buckets.into_iter().zip(taken) {
                bucket.tokens = (bucket.tokens + taken).min(self.most);
            }
            None::<()>
        });
    }

    fn change<T>(
        &self,
        who: &impl Hash,
        now: Instant,
        change: impl FnOnce([&mut TokenBucket; TABLES]) -> Option<T>,
    ) -> Option<T> {
        let at = now.saturating_duration_since(self.began).as_millis() as u64;
        let [one_hash, other_hash] = self.hashes.each_ref().map(|hash| hash.hash_one(who) as usize);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let [one, other] = &mut *tables;
        // The remainder is always in the table.
        let (one, other) = (
            one.get_mut(one_hash % one.len())?,
            other.get_mut(other_hash % other.len())?,
        );
        for bucket in [&mut *one, &mut *other] {
            let seconds = at.saturating_sub(bucket.at) as f32 / 1000.0;
            bucket.tokens = (bucket.tokens + seconds * self.a_second).min(self.most);
            bucket.at = at.max(bucket.at);
        }
        change([one, other])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn takes(buckets: &Buckets, who: &str, now: Instant) -> bool {
        buckets.take(&who, now).is_some()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate_and_others_are_not_touched() {
        let now = Instant::now();
        let buckets = Buckets::new(3, 2, now);
        assert!((0..3).all(|_| takes(&buckets, "a", now)));
        assert!(!takes(&buckets, "a", now));
        let others = (0..100).filter(|other| buckets.take(other, now).is_some()).count();
        assert!(others >= 99, "{others}");
        let later = now + Duration::from_secs(1);
        let taken = buckets.take(&"a", later).unwrap();
        assert!(takes(&buckets, "a", later) && !takes(&buckets, "a", later));
        buckets.give_back(&"a", taken, later);
        assert!(takes(&buckets, "a", later) && !takes(&buckets, "a", later));
    }

    #[test]
    fn a_source_that_never_stops_has_its_rate_and_no_more_however_it_spreads_its_requests() {
        let now = Instant::now();
        for step in [7, 130, 499, 501, 999] {
            let buckets = Buckets::new(3, 2, now);
            let times = (0..100_000 / step).map(|turn| now + Duration::from_millis(turn * step));
            let taken = times.filter(|time| takes(&buckets, "a", *time)).count();
            assert!(taken <= 4 + 2 * 100, "{step}: {taken}");
        }
    }

    #[test]
    fn a_pod_that_asks_without_end_takes_nothing_from_a_thousand_others() {
        let now = Instant::now();
        // Which pods share a bucket is drawn by lot each time.
        for _ in 0..40 {
            let buckets = Buckets::for_pods(20, 1, now);
            while takes(&buckets, "hostile", now) {}
            let refused = (0..1000).find(|honest| buckets.take(honest, now).is_none());
            assert_eq!(refused, None);
        }
    }

    #[test]
    fn a_crowd_that_asks_without_end_leaves_nearly_all_others_theirs() {
        let now = Instant::now();
        let buckets = Buckets::for_pods(20, 1, now);
        for hostile in 0..1000 {
            while buckets.take(&("hostile", hostile), now).is_some() {}
        }
        let refused = (0..1000).filter(|honest| buckets.take(honest, now).is_none()).count();
        assert!(refused <= 5, "{refused}");
    }
}
