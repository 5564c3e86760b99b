//! The whole HTTP surface, driven without a listener, in front of an API server that is a function.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod fixtures;

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use fixtures::{ROLE, ReviewFixture, app, asking, plain};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Client;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenscope_core::Settings;
use tokenscope_platform::freshness::Freshness;
use tokenscope_platform::metrics::Registry;
use tokenscope_webhook::budget::MOST_BODY_BYTES;
use tokenscope_webhook::cache::Cache;
use tokenscope_webhook::events::events;
use tokenscope_webhook::lookup::LiveLookups;
use tokenscope_webhook::metrics::Metrics;
use tokenscope_webhook::router::{Webhook, router};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

/// A webhook, and what it sent to the API server.
struct Harness {
    router: Router,
    registry: Registry,
    cache: Arc<Cache>,
    requests: mpsc::UnboundedReceiver<(String, Value)>,
}

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
        let harness = Self::unlisted(answers);
        list_policies(&harness.cache);
        harness.cache.apply_policy(
            false,
            Event::Apply(policy("orders", &json!(["arn:aws:iam::111122223333:role/shop/*"]))),
        );
        harness
    }

    /// One that has no list of policies or boundaries yet.
    fn unlisted(answers: Answers) -> Self {
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
        let metrics = Metrics::new(&registry);
        let cache = Arc::new(Cache::default());
        metrics.show_sizes(&registry, &cache);
        let (events, writer) = events(client.clone(), "webhook-0", Timestamp::now, metrics.clone());
        tokio::spawn(writer.run(tokio_util::sync::CancellationToken::new()));
        let router = router(Webhook {
            csi_drivers: Arc::default(),
            lookups: LiveLookups::new(cache.clone(), client, metrics.clone()),
            cache: cache.clone(),
            freshness: Freshness::default(),
            settings: Arc::new(arc_swap::ArcSwap::from_pointee(Settings::default())),
            events,
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
        }
    }

    /// One that knows service account `shop/orders`, which asks for nothing.
    fn knowing(answers: Answers) -> Self {
        let harness = Self::new(answers);
        let account = object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders"}}));
        harness.cache.apply_service_account(Event::Apply(account));
        harness
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, String) {
        self.post_to("/mutate", body).await
    }

    async fn respond(&self, path: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn post_to(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let response = self.respond(path, body).await;
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

    fn metric(&self, line: &str) -> u64 {
        let text = self.registry.encode().unwrap();
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .unwrap_or_else(|| panic!("no {line} in {text}"));
        value.trim().parse().unwrap()
    }

    /// Starts a request whose body brings so many bytes and then nothing more.
    fn stuck(&self, path: &str, bytes: usize) -> JoinHandle<StatusCode> {
        let begun = futures::stream::iter([Ok::<_, Infallible>(vec![b' '; bytes])]);
        let body = Body::from_stream(begun.chain(futures::stream::pending()));
        let request = Request::post(path).body(body).unwrap();
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

#[tokio::test]
async fn recorded_reviews_are_granted_and_their_patches_fit() {
    let harness = Harness::knowing(nothing);
    for (file, containers) in [("one-container", 1), ("three-containers", 3), ("ten-containers", 10)] {
        let body = fs::read_to_string(format!("{}/tests/data/{file}.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let pod = serde_json::from_str::<Value>(&body).unwrap()["request"]["object"].clone();
        let (status, answer) = harness.post(body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let reviewed = fixtures::Reviewed::of_body(&answer, &pod);
        for container in reviewed.pod["spec"]["containers"].as_array().unwrap() {
            let name = container["name"].as_str().unwrap();
            assert_eq!(reviewed.value(name, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
        }
        assert_eq!(
            reviewed.record()["grants"][0]["containers"].as_array().unwrap().len(),
            containers
        );
        assert_eq!(
            reviewed.pod["metadata"]["managedFields"],
            pod["metadata"]["managedFields"]
        );
        if containers == 1 {
            let bytes = Value::Array(reviewed.patch).to_string().len();
            assert!(bytes < 1500, "{bytes} bytes");
        }
    }
    assert_eq!(harness.reviews("granted"), 3);
    assert_eq!(harness.metric("tokenscope_webhook_review_duration_seconds_count"), 3);
}

#[tokio::test]
async fn what_is_no_review_is_a_failed_call_with_a_clear_text() {
    let harness = Harness::knowing(nothing);
    let review = |change: fn(&mut Value)| {
        let mut review = ReviewFixture::new().request(&plain(app()));
        change(&mut review);
        review.to_string()
    };
    let cases = [
        (String::new(), "not an AdmissionReview"),
        ("{".to_owned(), "not an AdmissionReview"),
        ("[]".to_owned(), "not an AdmissionReview"),
        (
            review(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            "not an AdmissionReview of",
        ),
        (
            review(|review| review["kind"] = json!("Pod")),
            "not an AdmissionReview of",
        ),
        (review(|review| review["request"] = Value::Null), "has no request"),
        (
            review(|review| review["request"]["uid"] = json!("")),
            "has no request.uid",
        ),
        (
            review(|review| review["request"]["object"] = Value::Null),
            "has no object",
        ),
        (
            review(|review| review["request"]["namespace"] = Value::Null),
            "has no namespace",
        ),
        (
            review(|review| review["request"]["object"]["spec"] = json!(7)),
            "pod of the AdmissionReview can't be read",
        ),
    ];
    let count = cases.len() as u64;
    for (body, text) in cases {
        let (status, answer) = harness.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(
            answer.starts_with("tokenscope: ") && answer.contains(text),
            "{text}: {answer}"
        );
    }
    assert_eq!(harness.post(vec![b'"', 0xff, b'"']).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(harness.reviews("failed"), count + 1);
}

#[tokio::test]
async fn other_objects_and_operations_pass_untouched() {
    let harness = Harness::knowing(nothing);
    let mut update = ReviewFixture::new().request(&asking(app()));
    update["request"]["operation"] = json!("UPDATE");
    let mut delete = ReviewFixture::new().request(&Value::Null);
    delete["request"]["operation"] = json!("DELETE");
    let mut service =
        ReviewFixture::new().request(&json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": 1}}));
    service["request"]["kind"]["kind"] = json!("Service");
    let mut ephemeral = ReviewFixture::new().request(&asking(app()));
    ephemeral["request"]["subResource"] = json!("ephemeralcontainers");
    for review in [update, delete, service, ephemeral] {
        let (status, body) = harness.post(review.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        let response = serde_json::from_str::<Value>(&body).unwrap()["response"].clone();
        assert_eq!(
            response,
            json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true})
        );
    }
}

#[tokio::test]
async fn a_large_pod_is_read_and_one_that_is_too_large_is_not() {
    let harness = Harness::knowing(nothing);
    let with_note = |bytes: usize| {
        let mut pod = asking(app());
        pod["metadata"]["annotations"]["note"] = json!("n".repeat(bytes));
        ReviewFixture::new().request(&pod).to_string()
    };
    let (status, body) = harness.post(with_note(3 << 20)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"allowed\":true") && body.len() < 8192);

    let (status, body) = harness.post(with_note(MOST_BODY_BYTES)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("more than 8 MiB"), "{body}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let harness = Harness::knowing(nothing);
    let stuck = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, Infallible>>());
    let began = Instant::now();
    let (status, body) = harness.post(stuck).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("no verdict within 1.8 s"), "{body}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn bodies_count_as_they_arrive_and_not_as_they_are_announced() {
    let harness = Harness::knowing(nothing);
    // None of them says how long it is, so each may become 8 MiB.
    let slow: Vec<_> = (0..100).map(|_| harness.stuck("/mutate", 1)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(harness.bytes_in_flight("mutate", "small") <= 100 * (8 << 10));
    drop(slow);
}

#[tokio::test]
async fn large_bodies_at_a_time_are_bounded_and_keep_no_small_one_out() {
    let harness = Harness::knowing(nothing);
    let large: Vec<_> = (0..6).map(|_| harness.stuck("/mutate", 7 << 20)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(harness.bytes_in_flight("mutate", "large") <= 32 << 20);
    let began = Instant::now();
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());

    let mut answers = Vec::new();
    for task in large {
        answers.push(task.await.unwrap());
    }
    let shed = answers
        .iter()
        .filter(|&&status| status == StatusCode::SERVICE_UNAVAILABLE)
        .count();
    assert_eq!(shed, 2, "{answers:?}");
    assert_eq!(harness.reviews("shed"), 2);
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"bytes\"}"), 2);
    assert_eq!(harness.bytes_in_flight("mutate", "large"), 0);
}

#[tokio::test]
async fn a_slow_body_gives_way_to_one_that_needs_its_memory() {
    let harness = Harness::knowing(nothing);
    let slow: Vec<_> = (0..4).map(|_| harness.stuck("/mutate", 8 << 20)).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["note"] = json!("n".repeat(1 << 20));
    let began = Instant::now();
    assert_eq!(harness.review(&pod).await["allowed"], true);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let mut answers = Vec::new();
    for task in slow {
        answers.push(task.await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers[0], StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answers[1..], [StatusCode::GATEWAY_TIMEOUT; 3]);
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"slow\"}"), 1);
}

#[tokio::test]
async fn an_answer_counts_until_it_was_written() {
    let harness = Harness::knowing(nothing);
    let request = ReviewFixture::new().request(&asking(app())).to_string();
    let response = harness.respond("/mutate", request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(harness.bytes_in_flight("mutate", "small") > 0);
    drop(response);
    assert_eq!(harness.bytes_in_flight("mutate", "small"), 0);
}

#[tokio::test]
async fn a_mark_that_a_pod_brings_is_removed_also_while_reviews_crowd() {
    let harness = Harness::knowing(nothing);
    let crowd: Vec<_> = (0..300).map(|_| harness.stuck("/mutate", 70 << 10)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut pod = plain(app());
    pod["metadata"]["labels"]["tokenscope.io/reviewed"] = json!("granted");
    pod["metadata"]["annotations"]["note"] = json!("n".repeat(200 << 10));
    let (status, body) = harness
        .post_to("/strip-mark", ReviewFixture::new().request(&pod).to_string())
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let patched = fixtures::Reviewed::of_body(&body, &pod).pod;
    assert_eq!(patched["metadata"]["labels"].get("tokenscope.io/reviewed"), None);

    pod["metadata"]["labels"] = json!({});
    harness
        .post_to("/strip-mark", ReviewFixture::new().request(&pod).to_string())
        .await;
    assert_eq!(harness.post_to("/strip-mark", "{}").await.0, StatusCode::BAD_REQUEST);
    let stuck = harness.stuck("/strip-mark", 1).await.unwrap();
    assert_eq!(stuck, StatusCode::GATEWAY_TIMEOUT);
    for (outcome, count) in [("removed", 1), ("absent", 1), ("failed", 2), ("shed", 0)] {
        let line = format!("tokenscope_webhook_strip_mark_total{{outcome=\"{outcome}\"}}");
        assert_eq!(harness.metric(&line), count, "{outcome}");
    }
    drop(crowd);
}

#[tokio::test]
async fn the_answer_to_a_failed_review_repeats_nothing_of_the_body_or_the_api_server() {
    let secret = "words-that-somebody-else-said";
    let mut review = ReviewFixture::new().request(&asking(app()));
    review["apiVersion"] = json!(secret);
    let mut unreadable = ReviewFixture::new().request(&asking(app()));
    unreadable["request"]["object"]["spec"] = json!(secret);
    let forbidden = Harness::new(|_| {
        let said = failure(403, "words-that-somebody-else-said");
        (StatusCode::FORBIDDEN, said, Duration::ZERO)
    });
    let lookup = ReviewFixture::new().request(&asking(app()));
    for body in [review, unreadable, lookup] {
        let (status, answer) = forbidden.post(body.to_string()).await;
        assert!(status.is_client_error() || status.is_server_error(), "{status}");
        assert!(!answer.contains(secret), "{answer}");
        assert!(answer.len() < 200, "{answer}");
    }
}

#[tokio::test]
async fn a_service_account_that_no_watch_told_of_is_asked_for_once_for_all_who_wait() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let harness = Harness::new(|path| {
        assert_eq!(path, "/api/v1/namespaces/shop/serviceaccounts/orders");
        ASKED.fetch_add(1, Ordering::Relaxed);
        let account = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": "orders", "namespace": "shop", "annotations": {"tokenscope.io/role-arn": ROLE}}});
        (StatusCode::OK, account, Duration::from_millis(50))
    });
    let pod = plain(app());
    let reviews = (0..20).map(|_| harness.review(&pod));
    for response in futures::future::join_all(reviews).await {
        assert_eq!(response["auditAnnotations"]["role"], ROLE);
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    assert_eq!(
        harness.metric("tokenscope_webhook_live_lookups_total{result=\"found\"}"),
        1
    );
    harness.review(&pod).await;
    assert_eq!(
        ASKED.load(Ordering::Relaxed),
        2,
        "an answer is not kept: only a watch tells of changes"
    );
}

#[tokio::test]
async fn a_service_account_that_does_not_exist_asks_for_nothing_and_is_warned_of() {
    let harness = Harness::new(nothing);
    let response = harness.review(&plain(app())).await;
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("service account orders was not found")
    );
    assert_eq!(
        harness.metric("tokenscope_webhook_live_lookups_total{result=\"missing\"}"),
        1
    );
}

#[tokio::test]
async fn where_the_api_server_does_not_answer_the_failure_policy_decides() {
    let slow = Harness::new(|_| (StatusCode::OK, json!({}), Duration::from_secs(30)));
    let began = std::time::Instant::now();
    let (status, body) = slow
        .post(ReviewFixture::new().request(&asking(app())).to_string())
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("what is around the pod is not known"), "{body}");
    assert!((800..1500).contains(&began.elapsed().as_millis()));

    let broken = Harness::new(|_| (StatusCode::FORBIDDEN, failure(403, "Forbidden"), Duration::ZERO));
    let (status, body) = broken
        .post(ReviewFixture::new().request(&asking(app())).to_string())
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("the API server could not be asked"), "{body}");
    assert_eq!(
        broken.metric("tokenscope_webhook_live_lookups_total{result=\"failed\"}"),
        1
    );
}

#[tokio::test]
async fn a_refusal_is_written_on_the_owner_once() {
    let mut harness = Harness::knowing(owners);
    for _ in 0..3 {
        assert_eq!(harness.review(&refused()).await["allowed"], false);
    }
    let mut other = refused();
    other["metadata"]["ownerReferences"][0]["name"] = json!("orders-2");
    other["metadata"]["ownerReferences"][0]["uid"] = json!("u-2");
    harness.review(&other).await;
    harness.review(&owned(asking(app()))).await;

    tokio::time::sleep(Duration::from_millis(500)).await;
    let events = harness.events();
    assert_eq!(events.len(), 2, "the same is not written again: {events:?}");
    let event = &events[0];
    assert_eq!(event["reason"], "CredentialsRefused");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["kind"], "ReplicaSet");
    assert_eq!(event["involvedObject"]["name"], "orders-1");
    assert_eq!(event["reportingInstance"], "webhook-0");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with("A pod was refused: ") && message.len() <= 1024,
        "{message}"
    );
    assert_eq!(events[1]["involvedObject"]["uid"], "u-2");
}

#[tokio::test]
async fn no_event_is_written_about_an_owner_that_does_not_exist() {
    let mut harness = Harness::knowing(owners);
    for (kind, name, uid) in [
        ("ReplicaSet", "orders-1", "another"),
        ("ReplicaSet", "invented", "u-1"),
        ("Deployment", "orders-1", "u-1"),
        ("Node", "orders-1", "u-1"),
        ("ReplicaSet", "../../../v1/namespaces/kube-system/configmaps/x", "u-1"),
    ] {
        let mut pod = refused();
        let owner = &mut pod["metadata"]["ownerReferences"][0];
        owner["kind"] = json!(kind);
        owner["name"] = json!(name);
        owner["uid"] = json!(uid);
        assert_eq!(harness.review(&pod).await["allowed"], false);
    }
    harness.review(&refused()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(harness.events().len(), 1, "only the owner that exists");
    assert_eq!(harness.metric("tokenscope_webhook_events_without_owner_total"), 5);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let mut harness = Harness::knowing(nothing);
    let fixture = ReviewFixture {
        dry_run: true,
        ..ReviewFixture::new()
    };
    let (_, body) = harness.post(fixture.request(&refused()).to_string()).await;
    assert!(body.contains("\"allowed\":false"), "{body}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(harness.requests.try_recv().is_err());
}

#[tokio::test]
async fn other_paths_and_methods_are_not_served() {
    let harness = Harness::knowing(nothing);
    for (request, status) in [
        (Request::get("/mutate"), StatusCode::METHOD_NOT_ALLOWED),
        (Request::post("/"), StatusCode::NOT_FOUND),
    ] {
        let response = harness
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn changes_that_the_watches_tell_of_count_at_once() {
    let harness = Harness::knowing(nothing);
    let account = |role: &str| {
        object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders",
        "annotations": {"tokenscope.io/role-arn": role, "irrelevant": "x".repeat(1000)}}}))
    };
    harness.cache.apply_service_account(Event::Apply(account(ROLE)));
    assert_eq!(harness.review(&plain(app())).await["auditAnnotations"]["role"], ROLE);

    harness
        .cache
        .apply_policy(false, Event::Delete(policy("orders", &json!([]))));
    assert_eq!(harness.review(&plain(app())).await["allowed"], false);

    harness
        .cache
        .apply_policy(false, Event::Apply(policy("orders", &json!(["nonsense"]))));
    let message = harness.review(&plain(app())).await["status"]["message"].to_string();
    assert!(
        message.contains("TokenScopePolicy shop/orders can't be used"),
        "{message}"
    );

    let namespace =
        object::<Namespace>(json!({"metadata": {"name": "shop", "labels": {"tokenscope.io/inject": "false"}}}));
    harness.cache.apply_namespace(Event::Apply(namespace));
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);
    assert_eq!(
        harness.metric("tokenscope_webhook_cache_size{kind=\"serviceaccounts\"}"),
        1
    );
}

#[tokio::test]
async fn until_policies_cluster_policies_and_boundaries_were_all_listed_a_review_is_an_error() {
    let harness = Harness::unlisted(nothing);
    let cache = &harness.cache;
    let account = object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders"}}));
    cache.apply_service_account(Event::Apply(account));
    let body = ReviewFixture::new().request(&asking(app())).to_string();
    let boundary: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "core"},
        "spec": {"roles": ["arn:aws:iam::111122223333:role/none"]},
    }))
    .unwrap();

    cache.apply_policy(false, Event::Init);
    cache.apply_policy(false, Event::InitApply(policy("orders", &json!([ROLE]))));
    cache.apply_policy(false, Event::InitDone);
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    cache.apply_policy(true, Event::Init);
    cache.apply_policy(true, Event::InitDone);
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    cache.apply_boundary(Event::Init);
    cache.apply_boundary(Event::InitApply(boundary));
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(harness.reviews("failed"), 3);

    cache.apply_boundary(Event::InitDone);
    let answer = harness.review(&asking(app())).await;
    let message = answer["status"]["message"].to_string();
    assert!(message.contains("TokenScopeBoundary core does not allow"), "{message}");
}

#[tokio::test]
async fn a_new_list_takes_away_what_it_does_not_name_and_nothing_before_it_ends() {
    let cache = Cache::default();
    list_policies(&cache);
    let account = |name: &str| object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": name}}));
    cache.apply_service_account(Event::Apply(account("old")));
    cache.apply_service_account(Event::Apply(account("kept")));
    cache.apply_policy(false, Event::Apply(policy("old", &json!([]))));
    cache.apply_policy(false, Event::Apply(policy("kept", &json!([]))));

    cache.apply_service_account(Event::Init);
    cache.apply_service_account(Event::InitApply(account("kept")));
    cache.apply_service_account(Event::InitApply(account("new")));
    cache.apply_policy(false, Event::Init);
    cache.apply_policy(false, Event::InitApply(policy("kept", &json!([]))));
    assert!(cache.annotations("shop", "old").is_some());
    assert_eq!(cache.policies().unwrap().len(), 2);
    cache.apply_policy(true, Event::Init);
    cache.apply_policy(true, Event::InitDone);

    cache.apply_service_account(Event::InitDone);
    cache.apply_policy(false, Event::InitDone);
    assert!(cache.annotations("shop", "old").is_none());
    assert!(cache.annotations("shop", "kept").is_some() && cache.annotations("shop", "new").is_some());
    assert_eq!(cache.policies().unwrap().len(), 1);
    cache.apply_service_account(Event::Delete(account("new")));
    assert!(cache.annotations("shop", "new").is_none());
}

#[tokio::test]
async fn a_role_on_a_service_account_that_is_too_long_is_refused_with_the_bound() {
    let harness = Harness::knowing(nothing);
    let role = format!("{ROLE}{}", "r".repeat(200_000));
    let account =
        json!({"metadata": {"namespace": "shop", "name": "orders", "annotations": {"tokenscope.io/role-arn": role}}});
    harness
        .cache
        .apply_service_account(Event::Apply(object::<ServiceAccount>(account)));
    let message = harness.review(&plain(app())).await["status"]["message"].to_string();
    assert!(
        message.contains("tokenscope.io/role-arn") && message.contains("2048") && message.len() < 1000,
        "{message}"
    );
}
