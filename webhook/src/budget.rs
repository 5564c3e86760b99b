//! A bound on the memory that the bodies and answers of one route hold at a time.
//!
//! Bytes count as they arrive, not as they are announced, and those of an answer until they were written. The first
//! [`SMALL_BYTES`] of each come from one share and all further ones from another, so that large reviews, however many, never
//! keep a small one out. Of either share, no peer and no namespace takes so much that others find no room
//! (`budget_share.rs`). Where a source may have no more, or a share is used up, the body that has been arriving the
//! longest gives way, or else the connection that has not taken its answer for the longest time, but none of a peer that holds less.

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use tokenscope_platform::eviction::{Evictable, Membership};
use tokenscope_platform::tls::GiveWay;
use tokio::time::timeout;

pub use crate::budget_share::ReviewSource;
use crate::budget_share::{BudgetShare, TELLING_BYTES};
use crate::deadlines::ReviewDeadlines;
use crate::few_turns::done_in_few_turns;

/// Up to here a review is small: a pod of three containers has about 6 KiB, and one of fifty less than 64.
pub const SMALL_BYTES: usize = 64 << 10;
/// The largest body that is read. The API server takes objects of 3 MiB, and a review may hold two.
pub const MOST_BODY_BYTES: usize = 8 << 20;
/// The least that a body counts, so that very short ones are bounded in number.
const LEAST_BYTES: usize = 4 << 10;
/// What a body beyond [`SMALL_BYTES`] counts at least of the share of the large ones, so that whoever sends very many that are hardly
/// large is bounded in number too: they wait for the same threads.
pub(crate) const LEAST_LARGE_BYTES: usize = 256 << 10;
/// The time for which the rest of a body that is too large may arrive.
const REST: Duration = Duration::from_secs(2);

/// The reason why a body or an answer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The share is used up, and nothing gives way.
    #[error("too many or too large reviews at a time")]
    Full,
    /// The body arrived too slowly, and another one needed its memory.
    #[error("the body arrived too slowly while others needed its memory")]
    Slow,
    /// The body is larger than any that is read.
    #[error("the body has more than {} MiB", MOST_BODY_BYTES >> 20)]
    TooLarge,
    /// The connection broke.
    #[error("the body did not arrive whole")]
    Broken,
}

/// The memory of one route.
#[derive(Debug)]
pub struct ByteBudget {
    /// The first bytes of each, and what is beyond them.
    shares: [BudgetShare; 2],
    /// The bodies that are arriving.
    arriving: Arc<Evictable<Occupant>>,
    /// The answers that are being written.
    leaving: Arc<Evictable<Occupant>>,
    /// For the names of namespaces.
    hasher: RandomState,
    deadlines: ReviewDeadlines,
}

/// Whose body arrives, or whose answer is written, and since when.
#[derive(Clone, Copy, Debug)]
struct Occupant {
    peer: IpAddr,
    since: Instant,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
struct Account {
    budget: Arc<ByteBudget>,
    source: ReviewSource,
    /// Of each share.
    held: [usize; 2],
}

/// A whole body, which counts until it is dropped.
#[derive(Debug)]
pub struct BufferedBody {
    bytes: Vec<u8>,
    account: Account,
}

impl ByteBudget {
    /// So many bytes for the small, and for what is beyond [`SMALL_BYTES`].
    pub fn new(small: usize, large: usize, deadlines: ReviewDeadlines) -> Arc<Self> {
        Arc::new(Self {
            shares: [BudgetShare::new(small), BudgetShare::new(large)],
            arriving: Arc::default(),
            leaving: Arc::default(),
            hasher: RandomState::new(),
            deadlines,
        })
    }

    /// The bytes in use: of the small share, and of the large one.
    pub fn in_use(&self) -> [usize; 2] {
        self.shares.each_ref().map(|share| share.held().all())
    }

    /// The whole body of a review from this source.
    pub async fn read(self: &Arc<Self>, body: Body, source: ReviewSource) -> Result<BufferedBody, Refused> {
        let mut arrival = std::pin::pin!(self.collect(body, source));
        // Mostly it is there already, and nobody needs to be told of it.
        if let Some(arrived) = done_in_few_turns(arrival.as_mut()).await {
            return arrived;
        }
        let membership = self.arriving.join(Occupant::now(source));
        tokio::select! {
            biased;
            arrived = arrival => arrived,
            () = membership.evicted() => Err(Refused::Slow),
        }
    }

    async fn collect(self: &Arc<Self>, mut body: Body, source: ReviewSource) -> Result<BufferedBody, Refused> {
        let mut account = self.account(source);
        account.charge(LEAST_BYTES).await?;
        let announced = body.size_hint().lower();
        if announced > MOST_BODY_BYTES as u64 {
            // As many as of a body that says nothing of its size: those that are read, and those that are taken then.
            discard(body, 2 * MOST_BODY_BYTES).await;
            return Err(Refused::TooLarge);
        }
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else {
                continue;
            };
            let needed = bytes.len() + data.len();
            if needed > MOST_BODY_BYTES {
                drop(bytes);
                discard(body, MOST_BODY_BYTES).await;
                return Err(Refused::TooLarge);
            }
            if needed > bytes.capacity() {
                // Twice as much each time, so that no byte is copied often; never more than what was announced.
                let most = (announced as usize).max(needed);
                let capacity = needed
                    .max(bytes.capacity() * 2)
                    .max(LEAST_BYTES)
                    .min(most.max(LEAST_BYTES));
                account
                    .charge(counted(capacity).saturating_sub(account.bytes()))
                    .await?;
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&data);
            if account.source.is_unnamed() && bytes.len() >= TELLING_BYTES {
                account.name(&bytes);
            }
        }
        Ok(BufferedBody { bytes, account })
    }

    /// An answer's text to this source, which counts until it was written or its connection gave way.
    pub async fn hold(
        self: &Arc<Self>,
        text: String,
        source: ReviewSource,
        connection: Option<GiveWay>,
    ) -> Result<Bytes, Refused> {
        struct WrittenAnswer {
            text: String,
            _account: Account,
            _membership: Option<Membership<Occupant>>,
        }
        impl AsRef<[u8]> for WrittenAnswer {
            fn as_ref(&self) -> &[u8] {
                self.text.as_bytes()
            }
        }
        let mut account = self.account(source);
        account.charge(text.capacity()).await?;
        Ok(Bytes::from_owner(WrittenAnswer {
            text,
            _account: account,
            _membership: connection.map(|GiveWay(token)| self.leaving.join_with(Occupant::now(source), token)),
        }))
    }

    fn account(self: &Arc<Self>, source: ReviewSource) -> Account {
        Account {
            budget: self.clone(),
            source,
            held: [0, 0],
        }
    }

    /// Takes bytes of a share, where others have to give way for them at need.
    async fn acquire(&self, share: &BudgetShare, source: ReviewSource, bytes: usize) -> Result<(), Refused> {
        if share.take(source, bytes) {
            return Ok(());
        }
        if !self.evict(share, source, bytes) && !self.arriving.is_any_leaving() && !self.leaving.is_any_leaving() {
            return Err(Refused::Full);
        }
        let taken = timeout(self.deadlines.handover, share.taken(source, bytes)).await;
        taken.map_err(|_| Refused::Full)
    }

    /// Makes the body give way that has been arriving the longest, if it had its time, or else the connection with the oldest
    /// answer. It is of the same peer, or of one that holds no less of the share than this one would. Whether there was one.
    fn evict(&self, share: &BudgetShare, source: ReviewSource, bytes: usize) -> bool {
        let held = share.held();
        let wanted = held.of_peer(source.peer()) + bytes;
        let had_its_time = |one: &Occupant| {
            let may_stay = one.peer != source.peer() && held.of_peer(one.peer) < wanted;
            (!may_stay && one.since.elapsed() >= self.deadlines.patience).then_some(one.since)
        };
        self.arriving.evict(had_its_time) || self.leaving.evict(had_its_time)
    }
}

/// Takes the rest of a body that is refused, up to so many bytes, and keeps none of it. A client that still sends while
/// the server hangs up finds a broken connection, and reads no answer (RFC 9112, 9.6).
async fn discard(mut body: Body, most: usize) {
    let mut left = most;
    let rest = async {
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Whoever takes longer goes without the answer.
    let _ = timeout(REST, rest).await;
}

/// The count of a body that has room for so many bytes.
fn counted(capacity: usize) -> usize {
    if capacity > SMALL_BYTES {
        capacity.max(SMALL_BYTES + LEAST_LARGE_BYTES)
    } else {
        capacity
    }
}

impl Occupant {
    fn now(source: ReviewSource) -> Self {
        Self {
            peer: source.peer(),
            since: Instant::now(),
        }
    }
}

impl Account {
    /// The count in all.
    fn bytes(&self) -> usize {
        self.held.iter().sum()
    }

    /// Counts so many bytes more.
    async fn charge(&mut self, bytes: usize) -> Result<(), Refused> {
        let small = SMALL_BYTES.saturating_sub(self.bytes()).min(bytes);
        let parts = [small, bytes - small];
        for ((share, bytes), held) in self.budget.shares.iter().zip(parts).zip(&mut self.held) {
            if bytes > 0 {
                self.budget.acquire(share, self.source, bytes).await?;
                *held += bytes;
            }
        }
        Ok(())
    }

    /// What is counted is that of the namespace from now on that a review with this beginning is about.
    fn name(&mut self, beginning: &[u8]) {
        let named = self.source.named_by(beginning, &self.budget.hasher);
        for (share, held) in self.budget.shares.iter().zip(self.held) {
            if held > 0 {
                share.hand_over(self.source, named, held);
            }
        }
        self.source = named;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for (share, held) in self.budget.shares.iter().zip(self.held) {
            if held > 0 {
                share.give_back(self.source, held);
            }
        }
    }
}

impl BufferedBody {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whoever sent it.
    pub fn source(&self) -> ReviewSource {
        self.account.source
    }
}

#[cfg(test)]
mod tests {
    use tokenscope_platform::tls::Peer;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Longer than any test takes.
    const HOUR: Duration = Duration::from_secs(3600);

    /// A budget of three small ones, with so much patience.
    fn of_three(patience: Duration) -> Arc<ByteBudget> {
        let deadlines = ReviewDeadlines {
            patience,
            handover: HOUR,
            ..ReviewDeadlines::default()
        };
        ByteBudget::new(3 * SMALL_BYTES, 0, deadlines)
    }

    /// Two answers that leave no room for a third one of another peer: the budget with this patience, and the third one.
    async fn third(patience: Duration) -> (Arc<ByteBudget>, Result<Bytes, Refused>) {
        let budget = of_three(patience);
        let answer = || "a".repeat(SMALL_BYTES);
        let source = |last: u8| ReviewSource::of(Some(Peer([10, 0, 0, last].into())));
        let token = CancellationToken::new();
        let connection = Some(GiveWay(token.clone()));
        let first = budget.hold(answer(), source(1), connection.clone()).await.unwrap();
        let second = budget.hold(answer(), source(2), connection).await.unwrap();
        tokio::spawn(async move {
            token.cancelled().await;
            drop((first, second));
        });
        let third = budget.hold(answer(), source(3), None).await;
        (budget, third)
    }

    #[tokio::test]
    async fn a_connection_that_does_not_take_its_answers_gives_way_to_others() {
        let (_budget, refused) = third(HOUR).await;
        assert_eq!(refused.err(), Some(Refused::Full), "it has its time");
        let (budget, held) = third(Duration::ZERO).await;
        let held = held.unwrap();
        assert_eq!(budget.in_use(), [SMALL_BYTES, 0]);
        drop(held);
        assert_eq!(budget.in_use(), [0, 0]);
    }

    #[tokio::test]
    async fn no_slow_body_gives_way_to_a_peer_that_holds_more() {
        let budget = of_three(Duration::ZERO);
        let answer = || "a".repeat(SMALL_BYTES);
        let source = |last: u8| ReviewSource::of(Some(Peer([10, 0, 0, last].into())));
        let token = CancellationToken::new();
        let little = budget.hold(answer(), source(1), Some(GiveWay(token.clone()))).await;
        let much = budget.hold(answer(), source(2), None).await;
        assert!(little.is_ok() && much.is_ok());
        let more = budget.hold(answer(), source(2), None).await;
        assert_eq!(more.err(), Some(Refused::Full));
        assert!(!token.is_cancelled());
    }
}
