//! The keys that the cluster's service account tokens are verified with: fetched from the API server and remembered.
//!
//! A fetch has a deadline, follows no redirects and reads a bounded body. Keys are fetched anew every [`REFRESH`], and at most every
//! [`LEAST_GAP`] when a token names one that is not known, in a task that no request can end. Where no fetch succeeds, the last ones are used for [`STALE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use tokenscope_platform::telemetry::chain;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::keys::{self, InvalidJwks, PublicJwk, VerificationKeys};

/// The time after which keys are fetched again.
pub const REFRESH: Duration = Duration::from_secs(300);
/// The least time between two requests to the API server because of unknown keys.
pub const LEAST_GAP: Duration = Duration::from_secs(10);
/// The longest time for which keys are used while the API server can't be asked. A leaked key of the cluster is believed no longer than this.
pub const STALE: Duration = Duration::from_secs(24 * 3600);
/// For both documents together.
const DEADLINE: Duration = Duration::from_secs(5);
/// Enough for 200 keys.
const MOST_BYTES: usize = 1 << 20;

/// The path at which the API server publishes its issuer and keys (Kubernetes, "Service account issuer discovery").
const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// The cluster's issuer and keys at one moment.
pub struct KnownCluster {
    /// The issuer of its service account tokens.
    pub issuer: Box<str>,
    /// The keys.
    pub keys: VerificationKeys,
    /// The keys as they are published.
    pub published: Vec<PublicJwk>,
    fetched: Instant,
}

/// The reason why the cluster's keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeysError {
    /// No answer in time.
    #[error("the API server has not sent its issuer and keys within {} s", DEADLINE.as_secs())]
    Late,
    /// The request can't be made.
    #[error("the request can't be made")]
    Request(#[from] http::Error),
    /// No answer.
    #[error("the API server can't be asked for {0}")]
    Send(&'static str, #[source] Box<kube::Error>),
    /// Another answer than the document.
    #[error("the API server answered {1} to {0}")]
    Status(&'static str, StatusCode),
    /// The body broke or is too large.
    #[error("the answer to {0} did not arrive whole, or has more than {most} KiB", most = MOST_BYTES >> 10)]
    Body(&'static str),
    /// The discovery document can't be read.
    #[error("the API server's discovery document can't be read")]
    Discovery(#[source] serde_json::Error),
    /// The keys can't be used.
    #[error("the API server's keys can't be used")]
    Keys(#[from] InvalidJwks),
    /// The API server takes tokens of the exchange's audience itself.
    #[error(
        "the API server's issuer is {0:?}, which is the audience of exchanges too, and by default the API server takes tokens of that audience itself: choose another --exchange-audience, or say with --api-audience what it takes"
    )]
    Audience(Box<str>),
}

/// Fetches and remembers the cluster's issuer and keys.
pub struct ClusterKeys {
    client: Client,
    /// The issuer, where it is not the one that the API server names.
    issuer: Option<Box<str>>,
    /// The audience of exchanges, unless it is known otherwise that the API server does not take it.
    audience: Option<Box<str>>,
    known: ArcSwapOption<KnownCluster>,
    /// The time when the API server was last asked. Whoever holds the lock asks, and others wait for that answer.
    asked: Arc<Mutex<Option<Instant>>>,
    /// The number of tries that have ended.
    tries: watch::Sender<u64>,
}

impl ClusterKeys {
    /// Nothing is fetched yet. `issuer` stands in for the one that the API server names. No keys are taken from an API server
    /// that names `audience` as its issuer: its own audience is that by default (kube-apiserver, `--api-audiences`).
    pub fn new(client: Client, issuer: Option<Box<str>>, audience: Option<Box<str>>) -> Self {
        Self {
            client,
            issuer,
            audience,
            known: ArcSwapOption::empty(),
            asked: Arc::default(),
            tries: watch::Sender::default(),
        }
    }

    /// The keys and the issuer that are known, unless they are too old.
    pub fn known(&self, now: Instant) -> Option<Arc<KnownCluster>> {
        let known = self.known.load_full()?;
        (now.saturating_duration_since(known.fetched) < STALE).then_some(known)
    }

    /// Fetches, unless that was done or tried within `gap`. Whether there is something new.
    pub async fn refresh(&self, gap: Duration) -> Result<bool, ClusterKeysError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < gap) {
            return Ok(false);
        }
        self.try_once(&mut asked).await?;
        Ok(true)
    }

    /// The same in a task of its own, for which nobody waits longer than `wait`: a caller that gives up ends no fetch, and there
    /// is one at a time. Whether there is something new.
    pub async fn refresh_within(self: &Arc<Self>, gap: Duration, wait: Duration) -> bool {
        let before = self.fetched();
        let mut tries = self.tries.subscribe();
        // Whoever holds it fetches.
        if let Ok(mut asked) = self.asked.clone().try_lock_owned() {
            if asked.is_some_and(|at| at.elapsed() < gap) {
                return false;
            }
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.try_once(&mut asked).await {
                    tracing::warn!(error = chain(&error), "the cluster's keys can't be fetched");
                }
            });
        }
        // Without an answer in time, what was known before is what there is.
        let _ = timeout(wait, tries.changed()).await;
        self.fetched() != before
    }

    fn fetched(&self) -> Option<Instant> {
        self.known.load().as_ref().map(|known| known.fetched)
    }

    async fn try_once(&self, asked: &mut Option<Instant>) -> Result<(), ClusterKeysError> {
        *asked = Some(Instant::now());
        let fetched = self.fetch().await.map(|known| self.known.store(Some(Arc::new(known))));
        self.tries.send_modify(|tries| *tries += 1);
        fetched
    }

    async fn fetch(&self) -> Result<KnownCluster, ClusterKeysError> {
        let (issuer, published) = fetch(&self.client).await?;
        if self.audience.as_ref() == Some(&issuer) {
            return Err(ClusterKeysError::Audience(issuer));
        }
        Ok(KnownCluster {
            issuer: self.issuer.clone().unwrap_or(issuer),
            keys: VerificationKeys::of(&published),
            published,
            fetched: Instant::now(),
        })
    }

    /// Keeps the keys fresh for ever; `told` hears after each try whether there are keys, or why not.
    pub async fn keep(&self, told: impl Fn(Result<(), String>)) {
        loop {
            let tried = self.refresh(Duration::ZERO).await;
            if let Err(error) = &tried {
                tracing::warn!(error = chain(error), "the cluster's keys can't be fetched");
            }
            let pause = if tried.is_ok() { REFRESH } else { LEAST_GAP };
            told(match (self.known(Instant::now()), tried) {
                (Some(_), _) => Ok(()),
                (None, Err(error)) => Err(chain(&error)),
                (None, Ok(_)) => Err("there are none yet".to_owned()),
            });
            tokio::time::sleep(pause).await;
        }
    }
}

/// The cluster's issuer and its keys for signatures, within the deadline.
pub async fn fetch(client: &Client) -> Result<(Box<str>, Vec<PublicJwk>), ClusterKeysError> {
    let fetched = timeout(DEADLINE, fetch_documents(client)).await;
    fetched.map_err(|_| ClusterKeysError::Late)?
}

async fn fetch_documents(client: &Client) -> Result<(Box<str>, Vec<PublicJwk>), ClusterKeysError> {
    #[derive(Deserialize)]
    struct ClusterDiscovery {
        issuer: Box<str>,
    }
    let discovery = get(client, DISCOVERY).await?;
    let discovery: ClusterDiscovery = serde_json::from_slice(&discovery).map_err(ClusterKeysError::Discovery)?;
    let published = keys::read(&get(client, KEYS).await?, None)?;
    Ok((discovery.issuer, published))
}

async fn get(client: &Client, path: &'static str) -> Result<Vec<u8>, ClusterKeysError> {
    let request = Request::get(path)
        .header("accept", "application/json, application/jwk-set+json")
        .body(Body::empty())?;
    let response = client
        .send(request)
        .await
        .map_err(|error| ClusterKeysError::Send(path, Box::new(error)))?;
    if response.status() != StatusCode::OK {
        return Err(ClusterKeysError::Status(path, response.status()));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    body.map(|body| body.to_bytes().to_vec())
        .map_err(|_| ClusterKeysError::Body(path))
}
