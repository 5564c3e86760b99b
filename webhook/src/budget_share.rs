//! One share of a route's memory, and how much of it one source of reviews may hold.
//!
//! A source is a namespace, as one peer names it. What a peer holds, and what it holds for that namespace, may together be at most
//! twice what stays free. So a namespace alone takes half of a share, and a peer with however many namespaces two thirds; every
//! further one takes less, and whoever holds little finds room. A peer that invents namespaces is still one peer. That the limit
//! follows what is free is the rule of dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
//! Shared-Memory Packet Switches", 1998).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenscope_platform::tls::Peer;
use tokio::sync::Notify;

/// How many bytes of a body are enough to tell its namespace: whatever the API server writes before it is shorter, but for the name of
/// a pod that is far too long.
pub(crate) const TELLING_BYTES: usize = 1 << 10;
/// The number of bytes that are searched for it.
const MOST_SEARCHED: usize = 4 << 10;

/// Whoever a review comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReviewSource {
    peer: IpAddr,
    /// A hash of the namespace's name, once it is known.
    namespace: Option<u64>,
}

/// A part of the memory, in bytes.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    bytes: usize,
    held: Mutex<Held>,
    freed: Notify,
}

/// The bytes that sources hold of a share. Sources that hold nothing are not in it, so that it has no more entries than there are reviews.
#[derive(Debug, Default)]
pub(crate) struct Held {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
    by_source: HashMap<ReviewSource, usize>,
}

impl ReviewSource {
    /// A peer, of whose review the namespace is not known yet.
    pub fn of(peer: Option<Peer>) -> Self {
        Self {
            peer: peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Peer(address)| address),
            namespace: None,
        }
    }

    pub(crate) fn peer(self) -> IpAddr {
        self.peer
    }

    /// True until the namespace is known.
    pub(crate) fn is_unnamed(self) -> bool {
        self.namespace.is_none()
    }

    /// The same peer with the namespace that a review with this beginning is about. Those that name none are one source.
    pub(crate) fn named_by(self, beginning: &[u8], hasher: &RandomState) -> Self {
        Self {
            namespace: Some(hasher.hash_one(namespace_in(beginning))),
            ..self
        }
    }
}

/// The API server writes the request's namespace before the pod. No text before it can look like this key: quotation marks inside
/// a text are escaped.
fn namespace_in(beginning: &[u8]) -> &[u8] {
    const KEY: &[u8] = b"\"namespace\":\"";
    let searched = beginning.get(..MOST_SEARCHED).unwrap_or(beginning);
    let key = searched.windows(KEY.len()).position(|found| found == KEY);
    let name = key.and_then(|at| searched.get(at + KEY.len()..));
    name.and_then(|name| name.split(|&byte| byte == b'"').next())
        .unwrap_or_default()
}

impl BudgetShare {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            held: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// The bytes that are held now.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many bytes for a source, if it may have them now. Whoever has taken them gives them back.
    pub(crate) fn take(&self, source: ReviewSource, bytes: usize) -> bool {
        let mut held = self.held();
        let fits = held.leaves_enough(self.bytes, source, bytes);
        if fits {
            held.all += bytes;
            *held.by_peer.entry(source.peer).or_default() += bytes;
            *held.by_source.entry(source).or_default() += bytes;
        }
        fits
    }

    /// The same, as soon as it may.
    pub(crate) async fn taken(&self, source: ReviewSource, bytes: usize) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on no word is missed.
            freed.as_mut().enable();
            if self.take(source, bytes) {
                return;
            }
            freed.await;
        }
    }

    /// The bytes are free again.
    pub(crate) fn give_back(&self, source: ReviewSource, bytes: usize) {
        {
            let mut held = self.held();
            held.all = held.all.saturating_sub(bytes);
            subtract(&mut held.by_peer, &source.peer, bytes);
            subtract(&mut held.by_source, &source, bytes);
        }
        self.freed.notify_waiters();
    }

    /// Gives what one source holds to another one, whether or not that one may have it.
    pub(crate) fn hand_over(&self, from: ReviewSource, to: ReviewSource, bytes: usize) {
        let mut held = self.held();
        subtract(&mut held.by_source, &from, bytes);
        *held.by_source.entry(to).or_default() += bytes;
    }
}

impl Held {
    /// All that is held.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// The bytes that a peer holds.
    pub(crate) fn of_peer(&self, peer: IpAddr) -> usize {
        self.by_peer.get(&peer).copied().unwrap_or_default()
    }

    /// True if the source may have so many bytes more.
    fn leaves_enough(&self, most: usize, source: ReviewSource, bytes: usize) -> bool {
        let Some(free) = most.saturating_sub(self.all).checked_sub(bytes) else {
            return false;
        };
        let of_peer = self.of_peer(source.peer) + bytes;
        let of_namespace = if source.is_unnamed() {
            0
        } else {
            self.by_source.get(&source).copied().unwrap_or_default() + bytes
        };
        of_peer + of_namespace <= 2 * free
    }
}

fn subtract<K: Eq + Hash>(held: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(holds) = held.get_mut(key) {
        *holds = holds.saturating_sub(bytes);
        if *holds == 0 {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 32 << 20;
    const PIECE: usize = 64 << 10;

    fn peer(last: u8) -> ReviewSource {
        ReviewSource::of(Some(Peer([10, 0, 0, last].into())))
    }

    fn review(namespace: &str) -> String {
        format!(
            "{{\"request\":{{\"name\":\"a\\\",\\\"namespace\\\":\\\"b\",\"namespace\":\"{namespace}\",\"object\":{{\"metadata\":{{\"namespace\":\"c\"}}}}}}}}"
        )
    }

    /// Takes all that the source gets.
    fn fill(share: &BudgetShare, source: ReviewSource) {
        while share.take(source, PIECE) {}
    }

    fn free(share: &BudgetShare) -> usize {
        SHARE - share.held().all()
    }

    #[test]
    fn the_namespace_is_that_of_the_request_and_none_that_a_pod_brings() {
        assert_eq!(namespace_in(review("shop").as_bytes()), b"shop");
        for none in ["", "{}", "{\"namespace\":\"", "{\"namespace\":null}"] {
            assert_eq!(namespace_in(none.as_bytes()), b"", "{none}");
        }
        let late = format!("{}{}", " ".repeat(MOST_SEARCHED), review("shop"));
        assert_eq!(namespace_in(late.as_bytes()), b"");
    }

    #[test]
    fn one_namespace_takes_half_and_leaves_the_others_of_its_peer_a_large_review() {
        let share = BudgetShare::new(SHARE);
        let hasher = RandomState::new();
        let of = |name: &str| peer(1).named_by(review(name).as_bytes(), &hasher);
        fill(&share, of("crowd"));
        assert_eq!(free(&share), SHARE / 2);
        assert!(share.take(of("shop"), 3 << 20));
        assert!(!share.take(of("crowd"), PIECE));
    }

    #[test]
    fn a_peer_that_invents_namespaces_takes_two_thirds_however_many_they_are() {
        let share = BudgetShare::new(SHARE);
        let hasher = RandomState::new();
        for number in 0..1000 {
            fill(
                &share,
                peer(1).named_by(review(&format!("n{number}")).as_bytes(), &hasher),
            );
        }
        assert!(free(&share) >= SHARE / 3, "{} bytes are free", free(&share));
        assert!(share.take(peer(2).named_by(review("shop").as_bytes(), &hasher), 3 << 20));
    }

    #[test]
    fn five_peers_that_crowd_together_leave_a_sixth_one_room() {
        let share = BudgetShare::new(SHARE);
        let round = || {
            (1..=5)
                .map(|last| usize::from(share.take(peer(last), PIECE)))
                .sum::<usize>()
        };
        while round() > 0 {}
        assert!(share.take(peer(6), 1 << 20), "{} bytes are free", free(&share));
    }

    #[tokio::test]
    async fn whoever_waits_takes_what_is_given_back_and_nothing_is_left_of_whoever_holds_nothing() {
        let share = BudgetShare::new(4);
        let (first, second) = (peer(1), peer(2));
        let named = first.named_by(b"", &RandomState::new());
        assert!(share.take(first, 2));
        share.hand_over(first, named, 2);
        assert!(!share.take(second, 2));
        tokio::join!(share.taken(second, 2), async { share.give_back(named, 2) });
        assert_eq!(share.held().of_peer(second.peer()), 2);
        share.give_back(second, 2);
        let held = share.held();
        assert_eq!((held.all(), held.by_peer.len(), held.by_source.len()), (0, 0, 0));
    }
}
