//! An API server that stalls, redirects, floods or lies where the cluster's keys are fetched.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use fixtures::{CLUSTER, Cluster};
use http::{Request, Response};
use kube::Client;
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_fixtures::until;
use tokenscope_issuer::cluster_keys::{ClusterKeys, ClusterKeysError, STALE, fetch};
use tokenscope_issuer::keys;
use tokio::sync::Semaphore;

/// Longer than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

fn server(answer: impl Fn(&str) -> Response<Body> + Send + 'static) -> ClusterKeys {
    server_and_audience(answer, None)
}

fn server_and_audience(
    answer: impl Fn(&str) -> Response<Body> + Send + 'static,
    audience: Option<Box<str>>,
) -> ClusterKeys {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let response = answer(request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    ClusterKeys::new(Client::new(service, "default"), None, audience)
}

fn text(text: impl Into<String>) -> Response<Body> {
    let text: String = text.into();
    Response::new(Body::from(text))
}

fn honest(cluster: &Cluster, path: &str) -> Response<Body> {
    match path {
        "/openid/v1/jwks" => text(keys::document([cluster.key.public()])),
        _ => text(json!({"issuer": CLUSTER, "jwks_uri": "https://evil.example/keys"}).to_string()),
    }
}

#[tokio::test]
async fn the_keys_are_those_of_the_api_server_wherever_discovery_points() {
    let cluster = Arc::new(Cluster::new(Algorithm::RS256));
    let answering = cluster.clone();
    let known = server(move |path| honest(&answering, path));
    assert!(known.known(Instant::now()).is_none());
    assert!(known.refresh(Duration::ZERO).await.unwrap());
    let found = known.known(Instant::now()).unwrap();
    assert_eq!(&*found.issuer, CLUSTER);
    assert!(found.keys.find(cluster.key.kid()).is_some());
}

#[tokio::test]
async fn nothing_is_exchanged_for_an_audience_that_is_the_api_servers_own() {
    let cluster = Cluster::new(Algorithm::RS256);
    let known = server_and_audience(move |path| honest(&cluster, path), Some(CLUSTER.into()));
    let error = known.refresh(Duration::ZERO).await.unwrap_err();
    assert!(
        error.to_string().contains("choose another --exchange-audience"),
        "{error}"
    );
    assert!(known.known(Instant::now()).is_none());
}

#[tokio::test]
async fn redirects_are_not_followed_and_other_answers_are_no_keys() {
    for status in [301, 302, 307, 308, 401, 403, 404, 500] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = asked.clone();
        let known = server(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder().status(status).header("location", "/elsewhere");
            response.body(Body::empty()).unwrap()
        });
        let error = known.refresh(Duration::ZERO).await.unwrap_err();
        assert!(
            matches!(error, ClusterKeysError::Status(_, found) if found.as_u16() == status),
            "{error}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
    let lying = server(|_| text("<html>"));
    assert!(matches!(
        lying.refresh(Duration::ZERO).await,
        Err(ClusterKeysError::Discovery(_))
    ));
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_read_to_its_bound_alone() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let known = server(move |_| {
        let counting = counting.clone();
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        let pieces = (0..16_384).map(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(piece.clone())
        });
        Response::new(Body::from_stream(futures::stream::iter(pieces)))
    });
    let error = known.refresh(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, ClusterKeysError::Body(_)), "{error}");
    let read = sent.load(Ordering::Relaxed);
    assert!(read <= 32, "{read} pieces of 64 KiB");
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_on() {
    let service = tower::service_fn(|_: Request<kube::client::Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let known = ClusterKeys::new(Client::new(service, "default"), None, None);
    // So is one that sends a head and no body, also by the command that publishes the keys.
    let service = tower::service_fn(|_: Request<kube::client::Body>| {
        let nothing = futures::stream::pending::<Result<Bytes, Infallible>>();
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from_stream(nothing))))
    });
    let client = Client::new(service, "default");
    let (refreshed, fetched) = tokio::join!(known.refresh(Duration::ZERO), fetch(&client));
    assert!(matches!(refreshed, Err(ClusterKeysError::Late)), "{refreshed:?}");
    assert!(matches!(fetched, Err(ClusterKeysError::Late)), "{fetched:?}");
}

#[tokio::test]
async fn keys_outlive_an_outage_for_a_day_and_no_longer() {
    let cluster = Cluster::new(Algorithm::ES256);
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let known = server(move |path| {
        if is_down.load(Ordering::Relaxed) {
            return Response::builder().status(503).body(Body::empty()).unwrap();
        }
        honest(&cluster, path)
    });
    known.refresh(Duration::ZERO).await.unwrap();
    down.store(true, Ordering::Relaxed);
    assert!(known.refresh(Duration::ZERO).await.is_err());
    let now = Instant::now();
    assert!(known.known(now + STALE / 2).is_some());
    assert!(known.known(now + STALE).is_none());
    assert!(!known.refresh(HOUR).await.unwrap(), "it was tried a moment ago");
}

#[tokio::test]
async fn a_caller_waits_for_new_keys_no_longer_than_it_likes_and_the_fetch_goes_on_without_it() {
    let cluster = Arc::new(Cluster::new(Algorithm::ES256));
    let asked = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(Semaphore::new(0));
    let (counting, waiting) = (asked.clone(), answers.clone());
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        counting.fetch_add(1, Ordering::Relaxed);
        let response = honest(&cluster, request.uri().path());
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(response)
        }
    });
    let known = Arc::new(ClusterKeys::new(Client::new(service, "default"), None, None));
    let callers = (0..20).map(|_| known.refresh_within(HOUR, Duration::from_millis(20)));
    assert!(
        futures::future::join_all(callers)
            .await
            .into_iter()
            .all(|is_new| !is_new)
    );
    assert!(known.known(Instant::now()).is_none());
    answers.add_permits(2);
    // The fetch comes to its end.
    until(|| known.known(Instant::now()).is_some()).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2, "one fetch of two documents for all");
    assert!(!known.refresh_within(HOUR, HOUR).await, "a moment ago");
    answers.add_permits(2);
    assert!(known.refresh_within(Duration::ZERO, HOUR).await);
}
