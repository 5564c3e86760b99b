//! The HTTP surface: discovery, keys and the exchange, and their limits against too many, slow or malformed requests.
//!
//! Nothing in a request says where the issuer is: neither `Host` nor `X-Forwarded-Host` is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use jiff::Timestamp;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::tls::Peer;
use tokio::time::timeout;

use crate::audit::{AuditLog, AuditRecord};
use crate::bodies::{Bodies, BodyRefused};
use crate::buckets::Buckets;
use crate::cluster_keys::{ClusterKeys, KnownCluster, LEAST_GAP};
use crate::deadlines::ExchangeDeadlines;
use crate::decision::NotGranted;
use crate::events::ExchangeRefusalEvents;
use crate::exchange::{Exchange, Issued, UnsignedToken};
use crate::exchange_error::ExchangeError;
use crate::exchange_request::ExchangeRequest;
use crate::metrics::{ExchangeOutcome, IssuerMetrics};
use crate::oauth::{OAuthError, OAuthErrorCode, token_body};
use crate::signers::{CurrentSigners, ServedDocument, Signers};
use crate::subject_token::{Caller, Expected, InvalidSubjectToken, SubjectToken};
use crate::token_review::{NotConfirmed, TokenReviews};
use crate::work::{NotDone, SignatureThreads};

/// The path at which tokens are exchanged.
pub const TOKEN_PATH: &str = "/token";

/// The state that requests share.
pub struct IssuerService {
    /// Exchanges.
    pub exchange: Arc<Exchange>,
    /// The audience that a subject token must have.
    pub audience: Box<str>,
    /// The keys of the cluster.
    pub cluster: Arc<ClusterKeys>,
    /// The keys of the issuer.
    pub signers: CurrentSigners,
    /// The bound on tokens from each source that prove nothing.
    pub sources: Buckets,
    /// The room for bodies.
    pub bodies: Bodies,
    /// The threads for signatures, and for decisions that take long.
    pub threads: SignatureThreads,
    /// The log of issued and refused tokens.
    pub audit: AuditLog,
    /// Asks the API server about each token, where that is wanted.
    pub reviews: Option<TokenReviews>,
    /// Tells the pods' authors of refusals.
    pub events: ExchangeRefusalEvents,
    /// The longest times of an exchange.
    pub deadlines: ExchangeDeadlines,
    /// The metrics.
    pub metrics: IssuerMetrics,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// `GET` of discovery and keys below the issuer's path, and `POST /token`.
pub fn router(issuer: IssuerService) -> Router {
    let url = issuer.exchange.issuer.clone();
    Router::new()
        .route(&url.discovery_path(), get(discovery))
        .route(&url.keys_path(), get(keys))
        .route(TOKEN_PATH, post(token))
        .with_state(Arc::new(issuer))
}

async fn discovery(State(issuer): State<Arc<IssuerService>>, headers: HeaderMap) -> Response {
    // Which claims tokens have depends on the policies as well as on the keys.
    let policies = issuer.exchange.index.policies();
    document(&issuer, &headers, |signers| match &policies {
        Some(policies) => signers.discovery_with(policies.context_keys()),
        None => signers.discovery.clone(),
    })
}

async fn keys(State(issuer): State<Arc<IssuerService>>, headers: HeaderMap) -> Response {
    document(&issuer, &headers, |signers| signers.keys.clone())
}

fn document(issuer: &IssuerService, headers: &HeaderMap, which: impl FnOnce(&Signers) -> ServedDocument) -> Response {
    let signers = issuer.signers.load();
    let Some(served) = signers.as_ref().map(|signers| which(signers)) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "there are no keys yet\n").into_response();
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == served.tag.as_bytes());
    let (status, body) = if known {
        (StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        (StatusCode::OK, Body::from(served.text.clone()))
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::ETAG, &*served.tag),
    ];
    (status, headers, body).into_response()
}

/// The reason why an exchange brought no token.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("this address has sent too many requests that were refused: try again later")]
    Source,
    #[error("the content type should be application/x-www-form-urlencoded")]
    ContentType,
    #[error(transparent)]
    Body(#[from] BodyRefused),
    #[error(transparent)]
    Request(#[from] OAuthError),
    #[error("the keys of the cluster are not known: try again later")]
    NoClusterKeys,
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Review(#[from] NotConfirmed),
    #[error(transparent)]
    NotDone(#[from] NotDone),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl Failure {
    fn outcome(&self) -> ExchangeOutcome {
        match self {
            Self::Source | Self::Exchange(ExchangeError::TooMany | ExchangeError::TooManyOfNamespace(_)) => {
                ExchangeOutcome::Limited
            }
            Self::ContentType | Self::Request(_) | Self::Body(BodyRefused::TooLarge | BodyRefused::Broken) => {
                ExchangeOutcome::InvalidRequest
            }
            Self::Body(BodyRefused::Full | BodyRefused::Slow) | Self::NotDone(NotDone::Queue | NotDone::Namespace) => {
                ExchangeOutcome::Shed
            }
            Self::Exchange(ExchangeError::Subject(_)) | Self::Review(NotConfirmed::Refused) => {
                ExchangeOutcome::InvalidSubject
            }
            Self::Exchange(ExchangeError::NoPod(..) | ExchangeError::PodEnded(..)) => ExchangeOutcome::NoPod,
            Self::NoClusterKeys
            | Self::Review(
                NotConfirmed::Full | NotConfirmed::NamespaceFull(_) | NotConfirmed::Late | NotConfirmed::Asking(_),
            )
            | Self::Exchange(
                ExchangeError::Stale
                | ExchangeError::PodNotYet(..)
                | ExchangeError::NoRoom(..)
                | ExchangeError::NoRoomForPolicies(_)
                | ExchangeError::NoKey { .. }
                | ExchangeError::NotGranted(NotGranted::NoPolicyUid(_)),
            ) => ExchangeOutcome::Unavailable,
            Self::Exchange(
                ExchangeError::NotGranted(NotGranted::Claims { .. })
                | ExchangeError::Lifetime { .. }
                | ExchangeError::TooLong { .. },
            ) => ExchangeOutcome::InvalidClaims,
            // Whoever may change the pod or its namespace can put these right, so an Event tells of them.
            Self::Exchange(
                ExchangeError::NotGranted(_) | ExchangeError::OverShare(_) | ExchangeError::ServiceAccountNotKept(..),
            ) => ExchangeOutcome::NotGranted,
            Self::Exchange(ExchangeError::Sign(_)) | Self::NotDone(NotDone::Panic) => ExchangeOutcome::Failed,
            Self::Late(_) => ExchangeOutcome::Late,
        }
    }

    fn answer(&self) -> OAuthError {
        let code = match self {
            Self::Request(error) => return error.clone(),
            Self::Exchange(error) => return error.answer(),
            Self::ContentType | Self::Body(BodyRefused::TooLarge | BodyRefused::Broken) => {
                OAuthErrorCode::InvalidRequest
            }
            Self::Review(NotConfirmed::Refused) => OAuthErrorCode::InvalidGrant,
            Self::NotDone(NotDone::Panic) => OAuthErrorCode::ServerError,
            Self::Source
            | Self::Body(_)
            | Self::NoClusterKeys
            | Self::Review(_)
            | Self::NotDone(NotDone::Queue | NotDone::Namespace)
            | Self::Late(_) => OAuthErrorCode::TemporarilyUnavailable,
        };
        OAuthError::new(code, self.to_string())
    }
}

async fn token(State(issuer): State<Arc<IssuerService>>, peer: Option<Extension<Peer>>, request: Request) -> Response {
    let began = Instant::now();
    let peer = peer.map(|Extension(peer)| peer);
    let mut audit = AuditRecord::default();
    let taken = issuer.sources.take(&peer, began);
    let exchanged = if taken.is_some() {
        let exchanged = timeout(issuer.deadlines.exchange, issuer.exchange(request, &mut audit)).await;
        exchanged.unwrap_or(Err(Failure::Late(issuer.deadlines.exchange)))
    } else {
        Err(Failure::Source)
    };
    // Whoever proved to be a pod of the cluster is counted by the pod, as long as the pod keeps within its own limit.
    if let Some(taken) = taken.filter(|_| audit.within_limits) {
        issuer.sources.give_back(&peer, taken, Instant::now());
    }
    let outcome = exchanged
        .as_ref()
        .map_or_else(Failure::outcome, |_| ExchangeOutcome::Issued);
    let (status, body) = match &exchanged {
        Ok(issued) => {
            issuer.audit.issued(&audit, issued, peer);
            (StatusCode::OK, token_body(&issued.token, issued.expires_in))
        }
        Err(failure) => {
            issuer.audit.refused(&audit, outcome, peer, || chain(failure));
            let answer = failure.answer();
            issuer.tell(&audit, outcome, &answer.description);
            (answer.code.status(), answer.body())
        }
    };
    issuer.metrics.exchanged(outcome, began.elapsed());
    answer(status, body)
}

fn answer(status: StatusCode, body: String) -> Response {
    // RFC 6749 §5.1: an answer with a token is stored nowhere, and says so in both ways.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    let mut response = (status, headers, body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let second = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
    }
    response
}

impl IssuerService {
    async fn exchange(&self, request: Request, audit: &mut AuditRecord) -> Result<Issued, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !content_type.is_some_and(is_form) {
            return Err(Failure::ContentType);
        }
        let body = self.bodies.read(request.into_body()).await?;
        let request = ExchangeRequest::read(&body.bytes)?;
        audit.audience = Some(request.audience.clone());
        let caller = self.caller(&request.subject_token).await?;
        audit.caller = Some(caller.clone());
        self.exchange.admit(&caller, Instant::now())?;
        audit.within_limits = true;
        if let Some(reviews) = &self.reviews {
            // Whatever can be refused here costs the API server nothing. What it says comes before the signature, and all is judged
            // again then, since it may take a while.
            self.decide(&caller, &request, audit).await?;
            reviews.confirm(&request.subject_token, &caller).await?;
        }
        let unsigned = self.decide(&caller, &request, audit).await?;
        if unsigned.is_slow() {
            return Ok(self.threads.run(move || unsigned.sign()).await??);
        }
        Ok(unsigned.sign()?)
    }

    /// Decides, and notes the policy that grants a token, also where none can be made by its grant.
    async fn decide(
        &self,
        caller: &Caller,
        request: &ExchangeRequest<'_>,
        audit: &mut AuditRecord,
    ) -> Result<UnsignedToken, Failure> {
        let decided = self.decided(caller, request).await;
        audit.policy = match &decided {
            Ok(unsigned) => Some(unsigned.policy().clone()),
            Err(Failure::Exchange(error)) => error.policy().cloned(),
            Err(_) => None,
        };
        decided
    }

    /// Decides here and now, as nearly all decisions are faster than the way to another thread. Of those that are not, a namespace has
    /// one at a time on a thread.
    async fn decided(&self, caller: &Caller, request: &ExchangeRequest<'_>) -> Result<UnsignedToken, Failure> {
        let (expires_in, clock) = (request.expires_in, self.clock);
        if !self.exchange.is_slow_to_decide(caller) {
            return Ok(self.exchange.decide(caller, &request.audience, expires_in, clock())?);
        }
        let (exchange, audience) = (self.exchange.clone(), request.audience.clone());
        let owned = caller.clone();
        let decide = move || exchange.decide(&owned, &audience, expires_in, clock());
        Ok(self.threads.run_of_namespace(&caller.namespace, decide).await??)
    }

    fn tell(&self, audit: &AuditRecord, outcome: ExchangeOutcome, reason: &str) {
        if let Some(caller) = audit.caller.as_ref().filter(|_| audit.within_limits) {
            let (audience, index) = (audit.audience.as_ref(), &self.exchange.index);
            self.events.report(outcome, caller, audience, index, reason);
        }
    }

    /// The caller that a subject token proves. One key that is not known makes the cluster be asked for its keys again.
    async fn caller(&self, token: &str) -> Result<Caller, Failure> {
        let known = self.cluster.known(Instant::now()).ok_or(Failure::NoClusterKeys)?;
        match self.verified(token, &known) {
            Err(Failure::Exchange(ExchangeError::Subject(InvalidSubjectToken::UnknownKey))) => {
                let refreshed = self.cluster.refresh_within(LEAST_GAP, self.deadlines.keys).await;
                let known = self.cluster.known(Instant::now()).ok_or(Failure::NoClusterKeys)?;
                if refreshed {
                    return self.verified(token, &known);
                }
                Err(ExchangeError::Subject(InvalidSubjectToken::UnknownKey).into())
            }
            other => other,
        }
    }

    /// Verifies here and now: to give a signature's thirty microseconds to another thread would cost as much again.
    fn verified(&self, token: &str, known: &KnownCluster) -> Result<Caller, Failure> {
        let expected = Expected {
            issuer: &known.issuer,
            audience: &self.audience,
        };
        let now = (self.clock)().as_second();
        let subject = SubjectToken::read(token, &expected, now).map_err(ExchangeError::Subject)?;
        Ok(Exchange::verify(subject, known)?)
    }
}

fn is_form(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|b| *b == b';').next().unwrap_or_default();
    media_type
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}
