//! A bound on the memory that the bodies and answers of one route hold at a time.
//!
//! Bytes count as they arrive, not as they are announced, and those of an answer until they were written. The first
//! [`SMALL_BYTES`] of each come from one share and all further ones from another, so that large reviews, however many, never
//! keep a small one out. Where a share is used up, the body that has been arriving the longest gives way, or else the
//! connection that has not taken its answer for the longest time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use tokenscope_platform::eviction::{Evictable, Membership};
use tokenscope_platform::tls::GiveWay;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::soon::soon;

/// Up to here a review is small: a pod of three containers has about 6 KiB, and one of fifty less than 64.
pub const SMALL_BYTES: usize = 64 << 10;
/// The largest body that is read. The API server takes objects of 3 MiB, and a review may hold two.
pub const MOST_BODY_BYTES: usize = 8 << 20;
/// What a body counts at least, so that very short ones are bounded in number.
const LEAST_BYTES: usize = 4 << 10;
/// How long a body may arrive, and an answer be written, before it can be asked to give way. The API server sends and takes
/// them at once.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long whoever needs memory waits for the one that gives way.
const HANDOVER: Duration = Duration::from_millis(300);

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
    small: BudgetShare,
    large: BudgetShare,
    /// The bodies that are arriving, by when they began.
    arriving: Arc<Evictable<Instant>>,
    /// The answers that are being written, by when they were made.
    leaving: Arc<Evictable<Instant>>,
}

/// One part of it: a permit a byte.
#[derive(Debug)]
struct BudgetShare {
    bytes: usize,
    free: Arc<Semaphore>,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
struct Account {
    budget: Arc<ByteBudget>,
    bytes: usize,
    permits: [Option<OwnedSemaphorePermit>; 2],
}

/// A whole body, which counts until it is dropped.
#[derive(Debug)]
pub struct BufferedBody {
    bytes: Vec<u8>,
    _account: Account,
}

impl ByteBudget {
    /// So many bytes for the small, and for what is beyond [`SMALL_BYTES`].
    pub fn new(small: usize, large: usize) -> Arc<Self> {
        Arc::new(Self {
            small: BudgetShare::new(small),
            large: BudgetShare::new(large),
            arriving: Arc::default(),
            leaving: Arc::default(),
        })
    }

    /// The bytes in use: of the small share, and of the large one.
    pub fn in_use(&self) -> [usize; 2] {
        [&self.small, &self.large].map(|share| share.bytes - share.free.available_permits())
    }

    /// The whole body.
    pub async fn read(self: &Arc<Self>, body: Body) -> Result<BufferedBody, Refused> {
        let mut arrival = std::pin::pin!(self.collect(body));
        // Mostly it is there already, and nobody needs to be told of it.
        if let Some(arrived) = soon(arrival.as_mut()).await {
            return arrived;
        }
        let membership = self.arriving.join(Instant::now());
        tokio::select! {
            biased;
            arrived = arrival => arrived,
            () = membership.evicted() => Err(Refused::Slow),
        }
    }

    async fn collect(self: &Arc<Self>, mut body: Body) -> Result<BufferedBody, Refused> {
        let announced = body.size_hint().lower();
        if announced > MOST_BODY_BYTES as u64 {
            return Err(Refused::TooLarge);
        }
        let mut account = self.account();
        account.charge(LEAST_BYTES).await?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else {
                continue;
            };
            let needed = bytes.len() + data.len();
            if needed > MOST_BODY_BYTES {
                return Err(Refused::TooLarge);
            }
            if needed > bytes.capacity() {
                // Twice as much each time, so that no byte is copied often; never more than what was announced.
                let most = (announced as usize).max(needed);
                let capacity = needed
                    .max(bytes.capacity() * 2)
                    .max(LEAST_BYTES)
                    .min(most.max(LEAST_BYTES));
                account.charge(capacity.saturating_sub(account.bytes)).await?;
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(BufferedBody {
            bytes,
            _account: account,
        })
    }

    /// An answer's text, which counts until it was written or its connection gave way.
    pub async fn hold(self: &Arc<Self>, text: String, connection: Option<GiveWay>) -> Result<Bytes, Refused> {
        struct WrittenAnswer {
            text: String,
            _account: Account,
            _membership: Option<Membership<Instant>>,
        }
        impl AsRef<[u8]> for WrittenAnswer {
            fn as_ref(&self) -> &[u8] {
                self.text.as_bytes()
            }
        }
        let mut account = self.account();
        account.charge(text.capacity()).await?;
        Ok(Bytes::from_owner(WrittenAnswer {
            text,
            _account: account,
            _membership: connection.map(|GiveWay(token)| self.leaving.join_with(Instant::now(), token)),
        }))
    }

    fn account(self: &Arc<Self>) -> Account {
        Account {
            budget: self.clone(),
            bytes: 0,
            permits: [None, None],
        }
    }

    /// Makes the body give way that has been arriving the longest, if it had its time, or else the connection with the oldest
    /// answer. Whether there was one.
    fn evict(&self) -> bool {
        let had_its_time = |began: &Instant| (began.elapsed() >= PATIENCE).then_some(*began);
        self.arriving.evict(had_its_time) || self.leaving.evict(had_its_time)
    }
}

impl BudgetShare {
    fn new(bytes: usize) -> Self {
        Self {
            bytes,
            free: Arc::new(Semaphore::new(bytes)),
        }
    }
}

impl Account {
    /// Counts so many bytes more.
    async fn charge(&mut self, bytes: usize) -> Result<(), Refused> {
        let small = SMALL_BYTES.saturating_sub(self.bytes).min(bytes);
        let budget = self.budget.clone();
        for ((share, bytes), permits) in [(&budget.small, small), (&budget.large, bytes - small)]
            .into_iter()
            .zip(&mut self.permits)
        {
            if bytes == 0 {
                continue;
            }
            let more = budget.acquire(share, bytes).await?;
            match permits {
                Some(permits) => permits.merge(more),
                None => *permits = Some(more),
            }
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl ByteBudget {
    async fn acquire(&self, share: &BudgetShare, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        let bytes = u32::try_from(bytes).map_err(|_| Refused::TooLarge)?;
        if let Ok(permits) = share.free.clone().try_acquire_many_owned(bytes) {
            return Ok(permits);
        }
        if !self.evict() && !self.arriving.is_any_leaving() && !self.leaving.is_any_leaving() {
            return Err(Refused::Full);
        }
        match timeout(HANDOVER, share.free.clone().acquire_many_owned(bytes)).await {
            Ok(Ok(permits)) => Ok(permits),
            _ => Err(Refused::Full),
        }
    }
}

impl BufferedBody {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_does_not_take_its_answers_gives_way_to_others() {
        let budget = ByteBudget::new(2 * SMALL_BYTES, 0);
        let answer = || "a".repeat(SMALL_BYTES);
        let token = CancellationToken::new();
        let connection = Some(GiveWay(token.clone()));
        let first = budget.hold(answer(), connection.clone()).await.unwrap();
        let second = budget.hold(answer(), connection).await.unwrap();
        tokio::spawn(async move {
            token.cancelled().await;
            drop((first, second));
        });
        assert_eq!(
            budget.hold(answer(), None).await.err(),
            Some(Refused::Full),
            "it has its time"
        );
        tokio::time::sleep(PATIENCE).await;
        let held = budget.hold(answer(), None).await.unwrap();
        assert_eq!(budget.in_use(), [SMALL_BYTES, 0]);
        drop(held);
        assert_eq!(budget.in_use(), [0, 0]);
    }
}
