//! Members of a bounded crowd, of which one can be asked to give way to a new one.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All that are there now. Whoever makes them bounds their number; finding the one to evict looks at each once.
#[derive(Debug)]
pub struct Evictable<T> {
    members: Mutex<HashMap<u64, Arc<Member<T>>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Member<T> {
    state: T,
    evicted: CancellationToken,
}

/// One that is there until this is dropped.
#[derive(Debug)]
pub struct Membership<T> {
    key: u64,
    member: Arc<Member<T>>,
    members: Arc<Evictable<T>>,
}

impl<T> Default for Evictable<T> {
    fn default() -> Self {
        Self {
            members: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }
}

impl<T> Evictable<T> {
    /// One more. What it does is told through `state`, which both sides share.
    pub fn join(self: &Arc<Self>, state: T) -> Membership<T> {
        self.join_with(state, CancellationToken::new())
    }

    /// The same, where evicting it cancels that token: of several members with one token, all are evicted with the first.
    pub fn join_with(self: &Arc<Self>, state: T, evicted: CancellationToken) -> Membership<T> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member { state, evicted });
        self.locked().insert(key, member.clone());
        Membership {
            key,
            member,
            members: self.clone(),
        }
    }

    /// The number of members that were not evicted and of which this is true.
    pub fn count(&self, is: impl Fn(&T) -> bool) -> usize {
        let members = self.locked();
        members
            .values()
            .filter(|member| member.stays() && is(&member.state))
            .count()
    }

    /// True if any was evicted and is still there: what it held is about to be free.
    pub fn is_any_leaving(&self) -> bool {
        self.locked().values().any(|member| !member.stays())
    }

    /// Evicts the one with the lowest rank; one without a rank stays. Whether there was one.
    pub fn evict<R: Ord>(&self, rank: impl Fn(&T) -> Option<R>) -> bool {
        let members = self.locked();
        let ranked = members.values().filter(|member| member.stays());
        let lowest = ranked
            .filter_map(|member| Some((rank(&member.state)?, member)))
            .min_by(|(one, _), (other, _)| one.cmp(other));
        if let Some((_, member)) = &lowest {
            member.evicted.cancel();
        }
        lowest.is_some()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member<T>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Member<T> {
    fn stays(&self) -> bool {
        !self.evicted.is_cancelled()
    }
}

impl<T> Membership<T> {
    /// The token that is cancelled when this member is evicted, and evicts it when it is cancelled.
    pub fn eviction(&self) -> &CancellationToken {
        &self.member.evicted
    }

    /// Ends once this member was evicted.
    pub async fn evicted(&self) {
        self.member.evicted.cancelled().await;
    }
}

impl<T> Deref for Membership<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.member.state
    }
}

impl<T> Drop for Membership<T> {
    fn drop(&mut self) {
        self.members.locked().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_lowest_rank_goes_once_and_who_has_none_stays() {
        let members = Arc::new(Evictable::default());
        let (second, first, exempt) = (members.join(2), members.join(1), members.join(0));
        let evict = || members.evict(|&rank| (rank > 0).then_some(rank));
        assert!(evict());
        assert!(members.is_any_leaving());
        assert!(first.evicted().now_or_never().is_some() && second.evicted().now_or_never().is_none());
        assert!(evict());
        assert!(second.evicted().now_or_never().is_some());
        assert!(!evict());
        assert!(exempt.evicted().now_or_never().is_none());
        assert_eq!(members.count(|_| true), 1);
        drop(exempt);
        assert_eq!(members.count(|_| true), 0);
    }
}
