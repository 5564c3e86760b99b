//! The time since each watch last received something: decisions are only as recent as that.
//!
//! Every event and every bookmark counts, and so does a page of a list that is read again. API servers send a bookmark about
//! once a minute, also where nothing changes. kube's watcher does not pass bookmarks on, so the time is noted where the bytes
//! arrive. An error does not count, and neither does a watch that ends without having sent anything.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::{Frame, SizeHint};
use kube::client::Body;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tower::{BoxError, Service};

use crate::metrics::encode_gauges;

/// A watch that nobody has asked for again so long after it ended was given up. Pauses between tries are much shorter.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The beginning of an error's line in a watch's answer.
const ERROR: &[u8] = br#"{"type":"ERROR""#;

/// The watches of a process; a clone is a handle to the same ones.
#[derive(Clone, Debug)]
pub struct Freshness(Arc<Watches>);

#[derive(Debug)]
struct Watches {
    began: Instant,
    limit: Option<Duration>,
    /// There are as many as the program has watches.
    by_path: RwLock<BTreeMap<String, Arc<Watch>>>,
}

/// Times are in milliseconds after the process began.
#[derive(Debug)]
struct Watch {
    /// The resource, and its namespace if only one is watched.
    name: String,
    began: Instant,
    word: AtomicU64,
    /// The number of requests that run.
    running: AtomicUsize,
    /// The time at which the last request ended.
    ended: AtomicU64,
}

impl Default for Freshness {
    /// Watches that are never called stale.
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl Freshness {
    /// No watches yet. One is stale when its last word is older than `limit`; with zero none ever is.
    pub fn new(limit: Duration) -> Self {
        Self(Arc::new(Watches {
            began: Instant::now(),
            limit: (!limit.is_zero()).then_some(limit),
            by_path: RwLock::default(),
        }))
    }

    /// True if any watch is stale. Cheap enough for each decision.
    pub fn is_stale(&self) -> bool {
        let Some(limit) = self.0.limit else { return false };
        let watches = self.0.by_path.read().unwrap_or_else(PoisonError::into_inner);
        watches.values().any(|watch| watch.is_wanted() && watch.age() > limit)
    }

    /// The watches that are stale, a line each; none if none is.
    pub fn stale(&self) -> Option<String> {
        let limit = self.0.limit?;
        let mut lines = String::new();
        for (name, age) in self.ages() {
            if age > limit {
                // Writing into a String can't fail.
                let _ = writeln!(
                    lines,
                    "watch of {name}: no word for {} s, at most {} s are allowed",
                    age.as_secs(),
                    limit.as_secs()
                );
            }
        }
        (!lines.is_empty()).then_some(lines)
    }

    /// The age of each watch's last word.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        let watches = self.0.by_path.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = watches.values().filter(|watch| watch.is_wanted());
        wanted.map(|watch| (watch.name.clone(), watch.age())).collect()
    }

    /// What a request means for the watch of its path: it is one, or a page of a list that a watch begins with.
    fn noted(&self, request: &Request<Body>) -> Option<Noted> {
        if request.method() != Method::GET {
            return None;
        }
        let query = request.uri().query()?;
        let has = |wanted: fn(&str) -> bool| query.split('&').any(wanted);
        let path = request.uri().path();
        if has(|pair| pair == "watch=true") {
            let watch = self.watch(path);
            return Some(Noted {
                running: RunningWatch::new(watch),
                is_watch: true,
            });
        }
        let watches = self.0.by_path.read().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.get(path).filter(|_| has(|pair| pair.starts_with("limit=")))?;
        Some(Noted {
            running: RunningWatch::new(watch.clone()),
            is_watch: false,
        })
    }

    fn watch(&self, path: &str) -> Arc<Watch> {
        let mut watches = self.0.by_path.write().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|_, watch| watch.is_wanted());
        let watch = watches.entry(path.to_owned()).or_insert_with(|| {
            let watch = Watch {
                name: name(path),
                began: self.0.began,
                word: AtomicU64::new(0),
                running: AtomicUsize::new(0),
                ended: AtomicU64::new(0),
            };
            // Its age begins with its first request.
            watch.note();
            watch.ended.store(watch.now(), Ordering::Relaxed);
            Arc::new(watch)
        });
        watch.clone()
    }
}

/// `serviceaccounts` of `/api/v1/serviceaccounts`, and `shop/secrets` of `/api/v1/namespaces/shop/secrets`.
fn name(path: &str) -> String {
    match path.split_once("/namespaces/") {
        Some((_, name)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

impl Watch {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn note(&self) {
        self.word.store(self.now(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.word.load(Ordering::Relaxed)))
    }

    /// True if somebody still asks for it.
    fn is_wanted(&self) -> bool {
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        self.running.load(Ordering::Relaxed) > 0 || self.began.elapsed().saturating_sub(ended) < GIVEN_UP
    }
}

/// The metric `tokenscope_watch_age_seconds`.
impl Collector for Freshness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metric = (
            "tokenscope_watch_age_seconds",
            "How old the last word of each watch is, bookmarks included",
        );
        let ages = self.ages().into_iter().map(|(name, age)| (name, age.as_secs_f64()));
        encode_gauges(&mut encoder, metric, "watch", ages)
    }
}

/// A request whose answer is noted.
#[derive(Debug)]
struct Noted {
    running: RunningWatch,
    is_watch: bool,
}

/// A request of a watch that runs until this is dropped.
#[derive(Debug)]
struct RunningWatch(Arc<Watch>);

impl RunningWatch {
    fn new(watch: Arc<Watch>) -> Self {
        watch.running.fetch_add(1, Ordering::Relaxed);
        Self(watch)
    }
}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.0.ended.store(self.0.now(), Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes the words of watches as they pass.
#[derive(Clone, Debug)]
pub(crate) struct Noting<S> {
    inner: S,
    freshness: Freshness,
}

impl<S> Noting<S> {
    pub(crate) fn new(inner: S, freshness: Freshness) -> Self {
        Self { inner, freshness }
    }
}

impl<S, B> Service<Request<Body>> for Noting<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send + 'static>,
{
    type Response = Response<NotedBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let noted = self.freshness.noted(&request);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let noted = noted.filter(|_| answer.status().is_success());
            let running = match noted {
                Some(Noted {
                    running,
                    is_watch: true,
                }) => Some(running),
                // Pages are read whole before they get here.
                Some(Noted { running, .. }) => {
                    running.0.note();
                    None
                }
                None => None,
            };
            Ok(answer.map(|body| NotedBody { body, running }))
        })
    }
}

/// The body of an answer whose pieces are noted if it is a watch's.
#[derive(Debug)]
pub(crate) struct NotedBody<B> {
    body: B,
    running: Option<RunningWatch>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for NotedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(RunningWatch(watch)), Some(Ok(frame))) = (&self.running, &frame)
            && frame.data_ref().is_some_and(|data| !data.starts_with(ERROR))
        {
            watch.note();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicBool;

    use futures::StreamExt as _;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::{Api, Client};
    use tokenscope_fixtures::until;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);
    const BOOKMARK: &str = r#"{"type":"BOOKMARK","object":{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
    const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old"}}"#;

    /// Watches service accounts at an API server that says `line` every 50 ms while `talks`, and refuses watches else.
    fn watching(line: &'static str, talks: &Arc<AtomicBool>) -> (Freshness, JoinHandle<()>) {
        let talks = talks.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            let talks = talks.clone();
            let status = if talks.load(Ordering::Relaxed) { 200 } else { 403 };
            let lines = futures::stream::unfold(talks, move |talks| async move {
                sleep(Duration::from_millis(50)).await;
                let line = Bytes::from(format!("{line}\n"));
                talks
                    .load(Ordering::Relaxed)
                    .then_some((Ok::<_, Infallible>(line), talks))
            });
            let body = axum::body::Body::from_stream(lines);
            async move { Ok::<_, BoxError>(Response::builder().status(status).body(body).unwrap()) }
        });
        let freshness = Freshness::new(LIMIT);
        let client = Client::new(Noting::new(server, freshness.clone()), "default");
        let watch = crate::watch::watch(Api::<ServiceAccount>::all(client), "serviceaccounts");
        let task = tokio::spawn(watch.for_each(async |_| ()));
        (freshness, task)
    }

    #[tokio::test]
    async fn bookmarks_keep_a_watch_fresh_and_refusals_make_it_stale() {
        let talks = Arc::new(AtomicBool::new(true));
        let (freshness, task) = watching(BOOKMARK, &talks);
        // Older than the limit, and fresh all the same. While a machine stalls nothing is told.
        let began = Instant::now();
        until(|| began.elapsed() >= LIMIT * 2 && freshness.stale().is_none() && !freshness.is_stale()).await;
        talks.store(false, Ordering::Relaxed);
        sleep(LIMIT * 2).await;
        assert!(freshness.is_stale());
        let stale = freshness.stale().unwrap();
        assert!(stale.starts_with("watch of serviceaccounts: no word for "), "{stale}");

        let registry = crate::metrics::Registry::new();
        registry.register_collector(freshness.clone());
        let text = registry.encode().unwrap();
        assert!(
            text.contains("tokenscope_watch_age_seconds{watch=\"serviceaccounts\"} "),
            "{text}"
        );
        task.abort();
    }

    #[tokio::test]
    async fn a_watch_that_only_tells_errors_is_stale() {
        let (freshness, task) = watching(GONE, &Arc::new(AtomicBool::new(true)));
        sleep(LIMIT * 2).await;
        assert!(freshness.is_stale());
        task.abort();
    }

    #[test]
    fn without_a_limit_nothing_is_stale() {
        let freshness = Freshness::default();
        freshness.watch("/api/v1/serviceaccounts");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!((freshness.is_stale(), freshness.stale()), (false, None));
        assert_eq!(freshness.ages()[0].0, "serviceaccounts");
    }

    #[test]
    fn a_watch_is_named_by_what_it_watches() {
        assert_eq!(
            name("/apis/tokenscope.io/v1alpha1/tokenscopepolicies"),
            "tokenscopepolicies"
        );
        assert_eq!(name("/api/v1/namespaces/shop/secrets"), "shop/secrets");
    }
}
