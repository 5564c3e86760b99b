//! The bodies of exchanges that are in memory: bounded in number and length. Where there is no room for another one, the one that
//! has been arriving the longest gives way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use tokenscope_platform::eviction::Evictable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::exchange_request::MOST_BODY_BYTES;

/// The most bodies that may be in memory: 16 MiB of them.
const MOST_BODIES: usize = (16 << 20) / MOST_BODY_BYTES;
/// The longest time that a body may arrive before it can be asked to give way.
const PATIENCE: Duration = Duration::from_millis(200);
/// The time that a body which needs the place waits for the one that gives way. That one only has to be woken, which takes part of a second where
/// the processor is busy.
const HANDOVER: Duration = Duration::from_secs(1);

/// The reason why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefused {
    /// There are too many, and none gives way.
    #[error("too many requests at a time: try again later")]
    Full,
    /// It arrived too slowly, and another one needed its place.
    #[error("the request arrived too slowly while others needed its place")]
    Slow,
    /// It is too long.
    #[error("the request has more than {} KiB", MOST_BODY_BYTES >> 10)]
    TooLarge,
    /// The connection broke.
    #[error("the request did not arrive whole")]
    Broken,
}

/// The room for bodies.
#[derive(Debug)]
pub struct Bodies {
    places: Arc<Semaphore>,
    arriving: Arc<Evictable<Instant>>,
}

/// A whole body, which takes its place until it is dropped.
pub struct WholeBody {
    /// Its bytes.
    pub bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::new(MOST_BODIES)
    }
}

impl Bodies {
    /// Room for so many.
    pub fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            arriving: Arc::default(),
        }
    }

    /// The whole body.
    pub async fn read(&self, body: Body) -> Result<WholeBody, BodyRefused> {
        if body.size_hint().lower() > MOST_BODY_BYTES as u64 {
            return Err(BodyRefused::TooLarge);
        }
        let place = self.place().await?;
        let mut arrival = std::pin::pin!(collect(body));
        // Mostly it is there already.
        let bytes = if let Some(arrived) = arrival.as_mut().now_or_never() {
            arrived?
        } else {
            let membership = self.arriving.join(Instant::now());
            tokio::select! {
                biased;
                arrived = arrival => arrived?,
                () = membership.evicted() => return Err(BodyRefused::Slow),
            }
        };
        Ok(WholeBody { bytes, _place: place })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, BodyRefused> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let had_its_time = |began: &Instant| (began.elapsed() >= PATIENCE).then_some(*began);
        if !self.arriving.evict(had_its_time) && !self.arriving.is_any_leaving() {
            return Err(BodyRefused::Full);
        }
        match timeout(HANDOVER, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(BodyRefused::Full),
        }
    }
}

async fn collect(mut body: Body) -> Result<Vec<u8>, BodyRefused> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyRefused::Broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > MOST_BODY_BYTES {
            return Err(BodyRefused::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
