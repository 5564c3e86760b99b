//! The HTTP surface: two paths, and their limits against too many, slow or malformed requests.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use jiff::Timestamp;
use tokenscope_core::{Pairs, Settings};
use tokenscope_index::KeptAnnotations;
use tokenscope_platform::freshness::Freshness;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::tls::{GiveWay, Peer};
use tokio::time::timeout;

use crate::budget::{BufferedBody, ByteBudget, LEAST_LARGE_BYTES, Refused, ReviewSource};
use crate::cache::Cache;
use crate::csi_drivers::SharedCsiDrivers;
use crate::deadlines::ReviewDeadlines;
use crate::events::RefusalEvents;
use crate::facts::ReviewContext;
use crate::few_turns::done_in_few_turns;
use crate::lookup::{AdmissionContext, LiveLookups, LookupError};
use crate::metrics::{ReviewOutcome, Shed, StripMark, WebhookMetrics};
use crate::review::{self, Asked, Review, ReviewAnswer, ReviewError};
use crate::strip_mark;
use crate::work::{LONGEST_QUEUE, SlowWork, Undone, Work};

/// The bytes that the bodies and answers of `/mutate` may hold: some hundred small ones at a time, and a few of the largest.
const REVIEW_BYTES: (usize, usize) = (16 << 20, 32 << 20);
/// The bytes that those of `/strip-mark` may hold: pods that bring the mark are rare, and a crowd on one path must not starve the other.
const STRIP_MARK_BYTES: (usize, usize) = (4 << 20, 16 << 20);
// However small large reviews are, their bytes run out before the places where they wait: only of bytes has each source its share.
const _: () = assert!(REVIEW_BYTES.1 / LEAST_LARGE_BYTES <= LONGEST_QUEUE);
const _: () = assert!(STRIP_MARK_BYTES.1 / LEAST_LARGE_BYTES <= LONGEST_QUEUE);
/// The number of large reviews that are decided at a time. The runtime has eight threads for this and for the resolution of names.
const LARGE_REVIEWS: usize = 2;
/// The same for `/strip-mark`.
const LARGE_STRIPS: usize = 1;
/// The number of reviews that are decided at a time and are slow because of the policies about them.
const SLOW_REVIEWS: usize = 2;
/// The bytes of policies, counted for each comparison with the pod, up to which a review is decided at once. Patterns that are half
/// stars cost about 23 nanoseconds a byte, so that is three milliseconds; usual ones cost a tenth of it.
const MOST_BYTES_DECIDED_AT_ONCE: usize = 128 << 10;

/// The state that reviews need.
pub struct Webhook {
    /// The objects that the watches have told of.
    pub cache: Arc<Cache>,
    /// The age of their last words.
    pub freshness: Freshness,
    /// Lookups of what they have not told.
    pub lookups: Arc<LiveLookups>,
    /// The CSI drivers that get tokens.
    pub csi_drivers: Arc<SharedCsiDrivers>,
    /// The installation's settings. They change with the authorities of the issuer's certificate.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The queue of refusals to be written.
    pub events: RefusalEvents,
    /// The deadlines of reviews.
    pub deadlines: ReviewDeadlines,
    /// The metrics.
    pub metrics: WebhookMetrics,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// `POST /mutate` and `POST /strip-mark`, as the webhook configuration names them.
pub fn router(webhook: Webhook) -> Router {
    let reviews = ByteBudget::new(REVIEW_BYTES.0, REVIEW_BYTES.1, webhook.deadlines);
    let strips = ByteBudget::new(STRIP_MARK_BYTES.0, STRIP_MARK_BYTES.1, webhook.deadlines);
    webhook
        .metrics
        .show_bytes([("mutate", reviews.clone()), ("strip-mark", strips.clone())]);
    let serving = Arc::new(WebhookService {
        webhook,
        reviews: Route {
            budget: reviews,
            work: Work::new(LARGE_REVIEWS),
        },
        strips: Route {
            budget: strips,
            work: Work::new(LARGE_STRIPS),
        },
        slow: SlowWork::new(SLOW_REVIEWS),
    });
    Router::new()
        .route("/mutate", post(mutate))
        .route("/strip-mark", post(strip))
        .with_state(serving)
}

struct WebhookService {
    webhook: Webhook,
    reviews: Route,
    strips: Route,
    slow: SlowWork,
}

/// The results of a review so far.
enum ReviewProgress {
    Answered(ReviewAnswer),
    Slow(SlowReview),
}

/// A review that is to be decided where it keeps no connection waiting.
struct SlowReview {
    body: BufferedBody,
    namespace: Box<str>,
    known: AdmissionContext,
}

/// The memory and threads that one path may use.
struct Route {
    budget: Arc<ByteBudget>,
    work: Work,
}

/// The reasons why there is no verdict. The API server takes each as a failed call, and the failure policy decides.
///
/// `Display` is what it shows to whoever creates the pod: fixed texts. Causes are for the log.
#[derive(Debug, thiserror::Error)]
enum ReviewFailure {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too many wait already.
    #[error(transparent)]
    Undone(Undone),
    #[error("the review can't be read: {0}")]
    Unreadable(#[from] ReviewError),
    #[error("what is around the pod is not known, and the API server could not be asked for it")]
    Lookup(#[from] LookupError),
    #[error("no verdict within {} s", .0.as_secs_f32())]
    Late(Duration),
    #[error("a fault in tokenscope itself")]
    Fault(#[source] Undone),
}

impl From<Undone> for ReviewFailure {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Queue | Undone::Namespace => Self::Undone(undone),
            Undone::Panic(_) => Self::Fault(undone),
        }
    }
}

impl ReviewFailure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(Refused::Full | Refused::Slow) | Self::Undone(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(Refused::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(Refused::Broken) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Lookup(_) | Self::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The reason why this was turned away only because of others, if it was.
    fn shed(&self) -> Option<Shed> {
        match self {
            Self::Refused(Refused::Full) => Some(Shed::Bytes),
            Self::Refused(Refused::Slow) => Some(Shed::Slow),
            Self::Undone(_) => Some(Shed::Queue),
            _ => None,
        }
    }
}

async fn mutate(
    State(serving): State<Arc<WebhookService>>,
    connection: Option<Extension<GiveWay>>,
    peer: Option<Extension<Peer>>,
    body: Body,
) -> Response {
    let began = Instant::now();
    let metrics = &serving.webhook.metrics;
    let connection = connection.map(|Extension(connection)| connection);
    let failure = match in_time(serving.review(body, source(peer), connection), &serving.webhook).await {
        Ok((answer, outcome)) => {
            metrics.reviewed(outcome, began.elapsed());
            return answer;
        }
        Err(failure) => failure,
    };
    match failure.shed() {
        Some(cause) => metrics.shed(cause),
        None => metrics.reviewed(ReviewOutcome::Failed, began.elapsed()),
    }
    failed(&failure)
}

async fn strip(State(serving): State<Arc<WebhookService>>, peer: Option<Extension<Peer>>, body: Body) -> Response {
    let metrics = &serving.webhook.metrics;
    let failure = match in_time(serving.strips.strip(body, source(peer)), &serving.webhook).await {
        Ok((answer, removed)) => {
            metrics.stripped(if removed { StripMark::Removed } else { StripMark::Absent });
            return answer;
        }
        Err(failure) => failure,
    };
    metrics.stripped(match failure.shed() {
        Some(_) => StripMark::Shed,
        None => StripMark::Failed,
    });
    failed(&failure)
}

fn source(peer: Option<Extension<Peer>>) -> ReviewSource {
    ReviewSource::of(peer.map(|Extension(peer)| peer))
}

/// The work's result, or that it is late. No timer is set where there is nothing to wait for.
async fn in_time<T>(
    work: impl Future<Output = Result<T, ReviewFailure>>,
    webhook: &Webhook,
) -> Result<T, ReviewFailure> {
    let mut work = pin!(work);
    if let Some(result) = done_in_few_turns(work.as_mut()).await {
        return result;
    }
    let deadline = webhook.deadlines.review;
    timeout(deadline, work)
        .await
        .unwrap_or(Err(ReviewFailure::Late(deadline)))
}

impl WebhookService {
    async fn review(
        self: &Arc<Self>,
        body: Body,
        source: ReviewSource,
        connection: Option<GiveWay>,
    ) -> Result<(Response, ReviewOutcome), ReviewFailure> {
        let Route { budget, work } = &self.reviews;
        let body = budget.read(body, source).await?;
        let source = body.source();
        let this = self.clone();
        let progress = work
            .run(body.bytes().len(), async move { this.webhook.review(body).await })
            .await??;
        let answer = match progress {
            ReviewProgress::Answered(answer) => answer,
            ReviewProgress::Slow(slow) => self.decide_slowly(slow).await?,
        };
        let body = budget.hold(answer.body, source, connection).await?;
        self.webhook
            .metrics
            .ungranted_tokens
            .inc_by(answer.ungranted_tokens as u64);
        if let Some(refusal) = answer.refusal {
            self.webhook.events.report(source.peer(), refusal);
        }
        Ok((json(body.into()), answer.outcome))
    }

    async fn decide_slowly(self: &Arc<Self>, slow: SlowReview) -> Result<ReviewAnswer, ReviewFailure> {
        let this = self.clone();
        let namespace = slow.namespace.clone();
        let work = move || this.webhook.answer_slow(&slow);
        Ok(self.slow.run(&namespace, work).await??)
    }
}

impl Route {
    async fn strip(&self, body: Body, source: ReviewSource) -> Result<(Response, bool), ReviewFailure> {
        let body = self.budget.read(body, source).await?;
        let answer = self
            .work
            .run(body.bytes().len(), async move { strip_mark::answer(body.bytes()) })
            .await??;
        Ok((json(answer.body.into()), answer.removed))
    }
}

impl Webhook {
    async fn review(&self, body: BufferedBody) -> Result<ReviewProgress, ReviewFailure> {
        let review = match review::read(body.bytes())? {
            Asked::Other { uid } => return Ok(ReviewProgress::Answered(review::allow(&uid))),
            Asked::Pod(review) => review,
        };
        let known = self
            .lookups
            .around(body.source().peer(), review.namespace(), review.service_account())
            .await?;
        if !is_slow_to_decide(&review, &known) {
            return Ok(ReviewProgress::Answered(self.answer(&review, &known)));
        }
        let namespace = review.namespace().into();
        drop(review);
        Ok(ReviewProgress::Slow(SlowReview { body, namespace, known }))
    }

    /// The answer to a slow review. What is read of it borrows its body, so it is read once more by the thread that decides.
    fn answer_slow(&self, slow: &SlowReview) -> Result<ReviewAnswer, ReviewError> {
        Ok(match review::read(slow.body.bytes())? {
            Asked::Other { uid } => review::allow(&uid),
            Asked::Pod(review) => self.answer(&review, &slow.known),
        })
    }

    fn answer(&self, review: &Review<'_>, known: &AdmissionContext) -> ReviewAnswer {
        let annotations = known.annotations.as_ref().map(KeptAnnotations::pairs);
        let driver_tokens = self.csi_drivers.tokens_of(review.csi_drivers());
        let surroundings = ReviewContext {
            namespace_labels: known.labels.borrowed(),
            service_account_annotations: annotations.as_ref().map(Pairs::borrowed),
            driver_tokens: Some(&driver_tokens),
            refused: known.over_share.as_ref().map(ToString::to_string),
            lacks_policies: known.lacks_policies,
            stale: self.freshness.is_stale(),
        };
        let settings = self.settings.load();
        review.answer(surroundings, &known.policies, &settings, (self.clock)())
    }
}

/// True if to decide may take so long that no thread should do it that serves connections.
fn is_slow_to_decide(review: &Review<'_>, known: &AdmissionContext) -> bool {
    let bytes = known
        .policies
        .compared_bytes(review.namespace(), &known.labels.borrowed());
    bytes.saturating_mul(review.comparisons()) > MOST_BYTES_DECIDED_AT_ONCE
}

fn json(body: Body) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}

/// The API server shows the text to whoever creates the pod, so it says who speaks.
fn failed(failure: &ReviewFailure) -> Response {
    tracing::warn!(failure = chain(failure), "a review failed");
    (failure.status(), format!("tokenscope: {failure}\n")).into_response()
}
