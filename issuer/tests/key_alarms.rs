//! Alarms about keys whose times are still to come, and about a clock that is ahead.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Api, Client};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_fixtures::until;
use tokenscope_issuer::events::events;
use tokenscope_issuer::key_keeper::KeyKeeper;
use tokenscope_issuer::key_source::{KeyFile, KeySource, SecretKeys};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::metrics::IssuerMetrics;
use tokenscope_issuer::rotation::{ENTRY, KeyRing, KeyRotationSettings};
use tokenscope_issuer::signers::CurrentSigners;
use tokenscope_platform::health::Gates;
use tokenscope_platform::lease::Claim;
use tokenscope_platform::metrics::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Clocks of nodes may differ by this much.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(300);

fn api_server() -> Client {
    let service =
        tower::service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::from(b"{}".to_vec()))));
    Client::new(service, "default")
}

fn keeper(path: std::path::PathBuf, metrics: &IssuerMetrics) -> KeyKeeper {
    let (_, claim) = watch::channel(Claim { held_until: None });
    let hour = Duration::from_secs(3600);
    let (events, _) = events(api_server(), "issuer-0", Timestamp::now, metrics.clone());
    KeyKeeper {
        source: KeySource::File(KeyFile { path, identities: None }),
        claim,
        settings: KeyRotationSettings::new(vec![Algorithm::ES256], hour, 48 * hour).unwrap(),
        public: None,
        issuer: "https://issuer.example.com".parse().unwrap(),
        x5c: false,
        signers: CurrentSigners::default(),
        gate: Gates::default().gate("keys"),
        metrics: metrics.clone(),
        events: events.of_keys(),
        period: Duration::from_millis(10),
        longest_unread: Duration::from_secs(60),
        clock: Timestamp::now,
    }
}

/// By how many hours [`set_clock`] is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn set_clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(AHEAD.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_alarm_ends_when_its_time_has_come_though_the_keys_stay_as_they_are() {
    let file = std::env::temp_dir().join(format!("tokenscope-key-alarms-{}.json", std::process::id()));
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let ahead = Timestamp::now() + CLOCKS_DIFFER + SignedDuration::from_hours(1);
    let ring = KeyRing::of_signing_keys([key], ahead).unwrap();
    std::fs::write(&file, ring.to_text().unwrap().expose_secret()).unwrap();
    let metrics = IssuerMetrics::new(&Registry::new());
    let stop = CancellationToken::new();
    let keeper = KeyKeeper {
        clock: set_clock,
        ..keeper(file.clone(), &metrics)
    };
    let running = tokio::spawn(keeper.run(stop.clone()));
    // The key's time is to come.
    until(|| metrics.key_alarms.get() == 1).await;
    AHEAD.store(2, Ordering::Relaxed);
    until(|| metrics.key_alarms.get() == 0).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    std::fs::remove_file(file).unwrap();
}

/// An API server with one Secret, whose clock is so many seconds behind.
fn api_server_behind(stored: &Arc<Mutex<Value>>, behind: &Arc<AtomicI64>) -> Client {
    let (stored, behind) = (stored.clone(), behind.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (stored, behind) = (stored.clone(), behind.clone());
        async move {
            let is_write = request.method() == Method::PUT;
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let mut secret = stored.lock().unwrap();
            if is_write {
                *secret = serde_json::from_slice(&bytes).unwrap();
                secret["metadata"]["resourceVersion"] = json!("2");
            }
            let time = Timestamp::now() - SignedDuration::from_secs(behind.load(Ordering::Relaxed));
            let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap();
            let body = Body::from(secret.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().header("date", date).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_leader_whose_clock_is_ahead_lets_no_key_sign_until_it_is_right_and_an_alarm_tells() {
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let ring = KeyRing::default().with_published(key, Timestamp::now()).unwrap();
    let text = STANDARD.encode(ring.to_text().unwrap().expose_secret());
    let stored = Arc::new(Mutex::new(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "resourceVersion": "1"},
        "data": {ENTRY: text},
    })));
    let behind = Arc::new(AtomicI64::new(600));
    let metrics = IssuerMetrics::new(&Registry::new());
    let secrets = Api::namespaced(api_server_behind(&stored, &behind), "tokenscope-system");
    let held_until = Some(Instant::now() + Duration::from_secs(600));
    let (_claims, claim) = watch::channel(Claim { held_until });
    let keeper = KeyKeeper {
        source: KeySource::Secret(Box::new(SecretKeys {
            secrets,
            name: "keys".to_owned(),
        })),
        claim,
        ..keeper(std::path::PathBuf::new(), &metrics)
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(stop.clone()));
    // The clock is ahead.
    until(|| metrics.key_alarms.get() == 1).await;
    let version = || stored.lock().unwrap()["metadata"]["resourceVersion"].clone();
    assert_eq!(version(), "1", "nothing was written");
    behind.store(200, Ordering::Relaxed);
    until(|| metrics.key_alarms.get() == 0).await;
    assert_eq!(version(), "2", "the key signs");
    stop.cancel();
    running.await.unwrap().unwrap();
}
