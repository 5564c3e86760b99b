//! How often somebody may do something: a token bucket for each, in a table of fixed size.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many buckets there are. Those that fall into one share it; nobody can choose with whom, since the hash has a random key.
const BUCKETS: usize = 8192;

/// Token buckets.
#[derive(Debug)]
pub struct Buckets {
    most: f32,
    a_second: f32,
    random: RandomState,
    began: Instant,
    table: Mutex<Box<[TokenBucket]>>,
}

#[derive(Clone, Copy, Debug)]
struct TokenBucket {
    tokens: f32,
    /// When that was, in milliseconds after the start.
    at: u64,
}

impl Buckets {
    /// Full ones of `most` tokens, which fill with so many a second.
    pub fn new(most: u16, a_second: u16, now: Instant) -> Self {
        let full = TokenBucket {
            tokens: f32::from(most),
            at: 0,
        };
        Self {
            most: f32::from(most),
            a_second: f32::from(a_second),
            random: RandomState::new(),
            began: now,
            table: Mutex::new(vec![full; BUCKETS].into()),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, who: &impl Hash, now: Instant) -> bool {
        self.change(who, now, |tokens| (*tokens >= 1.0).then(|| *tokens -= 1.0).is_some())
    }

    /// Gives one back.
    pub fn give_back(&self, who: &impl Hash, now: Instant) {
        self.change(who, now, |tokens| *tokens = (*tokens + 1.0).min(self.most));
    }

    fn change<T: Default>(&self, who: &impl Hash, now: Instant, change: impl FnOnce(&mut f32) -> T) -> T {
        let at = now.saturating_duration_since(self.began).as_millis() as u64;
        let index = self.random.hash_one(who) as usize % BUCKETS;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // The remainder is always in the table.
        let Some(bucket) = table.get_mut(index) else {
            return T::default();
        };
        let seconds = at.saturating_sub(bucket.at) as f32 / 1000.0;
        bucket.tokens = (bucket.tokens + seconds * self.a_second).min(self.most);
        bucket.at = at.max(bucket.at);
        change(&mut bucket.tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_has_its_burst_and_then_its_rate_and_others_are_not_touched() {
        let now = Instant::now();
        let buckets = Buckets::new(3, 2, now);
        assert!((0..3).all(|_| buckets.take(&"a", now)));
        assert!(!buckets.take(&"a", now));
        let others = (0..100).filter(|other| buckets.take(other, now)).count();
        assert!(others >= 99, "{others}");
        let later = now + Duration::from_secs(1);
        assert!(buckets.take(&"a", later) && buckets.take(&"a", later) && !buckets.take(&"a", later));
        buckets.give_back(&"a", later);
        assert!(buckets.take(&"a", later) && !buckets.take(&"a", later));
    }
}
