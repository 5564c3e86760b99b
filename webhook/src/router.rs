//! The HTTP surface: one path, and what keeps it standing when too much, too slow or nonsense comes in.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::Timestamp;
use tokenscope_core::{Pairs, Settings};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::{Annotations, Cache};
use crate::csi_drivers::CsiDrivers;
use crate::events::Events;
use crate::facts::Surroundings;
use crate::lookup::{Lookups, Unknown};
use crate::metrics::{Metrics, Outcome};
use crate::review::{self, Answer, Asked, Unreadable};

/// The largest review that is read. The API server takes objects of 3 MiB, and a review may hold two.
pub const MOST_BODY_BYTES: usize = 8 << 20;
/// How long a review may take, its body included. The API server waits for 5 seconds, and a clear answer is better than none.
const DEADLINE: Duration = Duration::from_secs(4);
/// How much the bodies of all reviews that run at a time may hold, so that a crowd of large pods can't exhaust the memory.
const MOST_BYTES_AT_A_TIME: usize = 64 << 20;
/// What a review counts at least: 256 small ones may run at a time. Few ever do, since a review waits for nothing but its
/// body and a rare lookup.
const LEAST_BYTES: usize = MOST_BYTES_AT_A_TIME / 256;

/// What reviews need.
pub struct Webhook {
    /// What the watches have told.
    pub cache: Arc<Cache>,
    /// What they have not.
    pub lookups: Arc<Lookups>,
    /// The CSI drivers that get tokens.
    pub csi_drivers: Arc<CsiDrivers>,
    /// The installation's settings.
    pub settings: Settings,
    /// Where refusals are written.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// `POST /mutate`, as the webhook configuration names it.
pub fn router(webhook: Webhook) -> Router {
    let room = Semaphore::new(MOST_BYTES_AT_A_TIME);
    Router::new()
        .route("/mutate", post(mutate))
        .with_state(Arc::new(Serving { webhook, room }))
}

struct Serving {
    webhook: Webhook,
    /// A permit a byte.
    room: Semaphore,
}

/// Why there is no verdict. The API server takes each as a failed call, and the failure policy decides.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("too many or too large reviews at a time: more than {} MiB", MOST_BYTES_AT_A_TIME >> 20)]
    Shed,
    #[error("the body has more than {} MiB", MOST_BODY_BYTES >> 20)]
    TooLarge,
    #[error("the body did not arrive whole: {0}")]
    Body(String),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("no verdict within {} s", DEADLINE.as_secs())]
    Late,
    #[error("a fault in tokenscope itself: {0}")]
    Panic(String),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Shed => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(_) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Unknown(_) | Self::Panic(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

async fn mutate(State(serving): State<Arc<Serving>>, body: Body) -> Response {
    let began = Instant::now();
    let Serving { webhook, room } = &*serving;
    // The API server always says how long the body is; who doesn't may send the most.
    let length = body.size_hint().upper().map_or(MOST_BODY_BYTES, |bytes| bytes as usize);
    let Ok(_room) = room.try_acquire_many(length.clamp(LEAST_BYTES, MOST_BODY_BYTES) as u32) else {
        webhook.metrics.shed();
        return failed(&Failure::Shed);
    };
    let reviewed = AssertUnwindSafe(timeout(DEADLINE, webhook.review(body)))
        .catch_unwind()
        .await;
    let failure = match reviewed {
        Ok(Ok(Ok(answer))) => {
            webhook.metrics.reviewed(answer.outcome, began.elapsed());
            if let Some(refusal) = answer.refusal {
                webhook.events.report(refusal);
            }
            let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return ([json], answer.body).into_response();
        }
        Ok(Ok(Err(failure))) => failure,
        Ok(Err(_)) => Failure::Late,
        Err(panic) => Failure::Panic(text_of(&*panic)),
    };
    webhook.metrics.reviewed(Outcome::Failed, began.elapsed());
    failed(&failure)
}

impl Webhook {
    async fn review(&self, body: Body) -> Result<Answer, Failure> {
        let body = whole(body).await?;
        let review = match review::read(&body)? {
            Asked::Other { uid } => return Ok(review::allow(&uid)),
            Asked::Pod(review) => review,
        };
        let known = self
            .lookups
            .around(review.namespace(), review.service_account())
            .await?;
        let annotations = known.annotations.as_ref().map(Annotations::pairs);
        let driver_tokens = self.csi_drivers.tokens_of(review.csi_drivers());
        let surroundings = Surroundings {
            namespace_labels: known.labels.borrowed(),
            service_account_annotations: annotations.as_ref().map(Pairs::borrowed),
            driver_tokens: Some(&driver_tokens),
            refused: known.over_share.as_ref().map(ToString::to_string),
        };
        Ok(review.answer(surroundings, &known.policies, &self.settings, (self.clock)()))
    }
}

async fn whole(body: Body) -> Result<Bytes, Failure> {
    match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLarge),
        Err(error) => Err(Failure::Body(error.to_string())),
    }
}

/// The API server shows the text to whoever creates the pod, so it says who speaks.
fn failed(failure: &Failure) -> Response {
    tracing::warn!(%failure, "a review failed");
    (failure.status(), format!("tokenscope: {failure}\n")).into_response()
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("no text")
        .to_owned()
}
