//! The whole HTTP surface, driven without a listener, in front of an API server that is a function.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod bytes;
mod events;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod lookups;
mod reviews;
mod watches;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenscope_core::Settings;
use tokenscope_fixtures::until;
use tokenscope_platform::freshness::Freshness;
use tokenscope_platform::metrics::Registry;
use tokenscope_platform::tls::Peer;
use tokenscope_webhook::cache::Cache;
use tokenscope_webhook::deadlines::ReviewDeadlines;
use tokenscope_webhook::events::events;
use tokenscope_webhook::lookup::LiveLookups;
use tokenscope_webhook::metrics::WebhookMetrics;
use tokenscope_webhook::router::{Webhook, router};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::fixtures::{ReviewFixture, app, asking};

/// A webhook, and what it sent to the API server.
struct Harness {
    router: Router,
    registry: Registry,
    cache: Arc<Cache>,
    requests: mpsc::UnboundedReceiver<(String, Value)>,
    /// How many strangers have connected.
    strangers: AtomicU32,
}

/// The address that reviews come from.
const API_SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

/// Longer than any test takes, also on a machine that stalls.
const HOUR: Duration = Duration::from_secs(3600);
/// Far more than anything takes that is not held up.
const SOON: Duration = Duration::from_secs(60);

/// Nothing is late and nothing gives way.
const PATIENT: ReviewDeadlines = ReviewDeadlines {
    review: HOUR,
    lookup: HOUR,
    patience: HOUR,
    handover: HOUR,
};

/// What the API server answers to a path, and how long it takes.
type Answers = fn(&str) -> (StatusCode, Value, Duration);

/// ReplicaSets `orders-1` and `orders-2` of namespace `shop` exist.
fn owners(path: &str) -> (StatusCode, Value, Duration) {
    let Some(number) = path.strip_prefix("/apis/apps/v1/namespaces/shop/replicasets/orders-") else {
        return nothing(path);
    };
    let owner = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": format!("orders-{number}"), "namespace": "shop", "uid": format!("u-{number}")}});
    (StatusCode::OK, owner, Duration::ZERO)
}

fn nothing(_: &str) -> (StatusCode, Value, Duration) {
    (StatusCode::NOT_FOUND, failure(404, "NotFound"), Duration::ZERO)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code})
}

/// Lists policies, cluster policies and boundaries: there are none.
fn list_policies(cache: &Cache) {
    for cluster in [false, true] {
        cache.apply_policy(cluster, Event::Init);
        cache.apply_policy(cluster, Event::InitDone);
    }
    cache.apply_boundary(Event::Init);
    cache.apply_boundary(Event::InitDone);
}

impl Harness {
    fn new(answers: Answers) -> Self {
        Self::within(PATIENT, answers)
    }

    fn within(deadlines: ReviewDeadlines, answers: Answers) -> Self {
        let harness = Self::unlisted(deadlines, answers);
        list_policies(&harness.cache);
        harness.cache.apply_policy(
            false,
            Event::Apply(policy("orders", &json!(["arn:aws:iam::111122223333:role/shop/*"]))),
        );
        harness
    }

    /// One that has no list of policies or boundaries yet.
    fn unlisted(deadlines: ReviewDeadlines, answers: Answers) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let api_server = tower::service_fn(move |request: Request<kube::client::Body>| {
            let sender = sender.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                sender
                    .send((path.clone(), serde_json::from_slice(&body).unwrap_or_default()))
                    .unwrap();
                let (status, answer, delay) = answers(&path);
                tokio::time::sleep(delay).await;
                let answer = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        let client = Client::new(api_server, "default");
        let registry = Registry::new();
        let metrics = WebhookMetrics::new(&registry);
        let cache = Arc::new(Cache::default());
        metrics.show_sizes(&registry, &cache);
        let (events, writer) = events(client.clone(), "webhook-0", Timestamp::now, metrics.clone());
        tokio::spawn(writer.run(tokio_util::sync::CancellationToken::new()));
        let router = router(Webhook {
            csi_drivers: Arc::default(),
            lookups: LiveLookups::new(cache.clone(), client, metrics.clone(), deadlines.lookup),
            cache: cache.clone(),
            freshness: Freshness::default(),
            settings: Arc::new(arc_swap::ArcSwap::from_pointee(Settings::default())),
            events,
            deadlines,
            metrics,
            clock: Timestamp::now,
        });
        cache.apply_namespace(Event::Apply(object(
            json!({"metadata": {"name": "shop", "labels": {"team": "shop"}}}),
        )));
        Self {
            router,
            registry,
            cache,
            requests,
            strangers: AtomicU32::new(0),
        }
    }

    /// One that knows service account `shop/orders`, which asks for nothing.
    fn knowing(answers: Answers) -> Self {
        Self::knowing_within(PATIENT, answers)
    }

    fn knowing_within(deadlines: ReviewDeadlines, answers: Answers) -> Self {
        let harness = Self::within(deadlines, answers);
        let account = object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders"}}));
        harness.cache.apply_service_account(Event::Apply(account));
        harness
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, String) {
        self.post_to("/mutate", body).await
    }

    async fn respond(&self, path: &str, body: impl Into<Body>) -> Response<Body> {
        self.respond_to(API_SERVER, path, body).await
    }

    async fn respond_to(&self, address: IpAddr, path: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::post(path)
            .extension(Peer(address))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn post_to(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let response = tokio::time::timeout(SOON, self.respond(path, body)).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn review(&self, pod: &Value) -> Value {
        let (status, body) = self.post(ReviewFixture::new().request(pod).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    }

    /// The Events of namespace `shop` that were sent since the last call.
    fn events(&mut self) -> Vec<Value> {
        let requests = std::iter::from_fn(|| self.requests.try_recv().ok());
        let events = requests.filter(|(path, _)| path == "/api/v1/namespaces/shop/events");
        events.map(|(_, event)| event).collect()
    }

    /// All Events of the namespace, once there are so many; those beyond them show by then.
    async fn events_of(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        until(|| {
            events.extend(self.events());
            events.len() >= count
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        events.extend(self.events());
        events
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.registry.encode().unwrap();
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .unwrap_or_else(|| panic!("no {line} in {text}"));
        value.trim().parse().unwrap()
    }

    /// Waits until a number is at least this.
    async fn until_at_least(&self, least: u64, number: impl Fn(&Self) -> u64) {
        until(|| number(self) >= least).await;
    }

    /// Starts a request whose body brings so many bytes and then nothing more, each time from another address.
    fn stuck(&self, path: &str, bytes: usize) -> JoinHandle<StatusCode> {
        let number = self.strangers.fetch_add(1, Ordering::Relaxed);
        let stranger = IpAddr::from((0x0a01_0000 + number).to_be_bytes());
        self.stuck_from(stranger, path, vec![vec![b' '; bytes]])
    }

    /// Starts a request from this address, whose body brings these pieces and then nothing more.
    fn stuck_from(&self, address: IpAddr, path: &str, pieces: Vec<Vec<u8>>) -> JoinHandle<StatusCode> {
        let begun = futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
        let body = Body::from_stream(begun.chain(futures::stream::pending()));
        let request = Request::post(path).extension(Peer(address)).body(body).unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { router.oneshot(request).await.unwrap().status() })
    }

    fn bytes_in_flight(&self, path: &str, share: &str) -> u64 {
        self.metric(&format!(
            "tokenscope_webhook_bytes_in_flight{{path=\"{path}\",share=\"{share}\"}}"
        ))
    }

    fn reviews(&self, outcome: &str) -> u64 {
        self.metric(&format!("tokenscope_webhook_reviews_total{{outcome=\"{outcome}\"}}"))
    }
}

fn object<K>(value: Value) -> PartialObjectMeta<K>
where
    PartialObjectMeta<K>: DeserializeOwned,
{
    serde_json::from_value(value).unwrap()
}

fn policy(name: &str, allowed: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"subjects": [{}], "roles": {"allowed": allowed}},
    }))
    .unwrap()
}

fn owned(mut pod: Value) -> Value {
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u-1", "controller": true}]);
    pod
}

fn refused() -> Value {
    let mut pod = owned(asking(app()));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!("arn:aws:iam::999999999999:role/other");
    pod
}
