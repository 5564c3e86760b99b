//! Electors before a Lease that is compared and swapped as the API server does it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use tokio::net::TcpListener;

use super::*;

/// One Lease behind real HTTP, compared and swapped by `resourceVersion` as the API server does it.
#[derive(Clone, Default)]
struct Leases {
    lease: Arc<Mutex<Option<Lease>>>,
    broken: Arc<AtomicBool>,
    /// How often it was asked while it was broken.
    refused: Arc<AtomicUsize>,
}

#[expect(clippy::unused_async, reason = "a handler is a future")]
impl Leases {
    async fn api(&self) -> Api<Lease> {
        let app = Router::new()
            .route("/apis/coordination.k8s.io/v1/namespaces/own/leases", post(Self::create))
            .route(
                "/apis/coordination.k8s.io/v1/namespaces/own/leases/{name}",
                get(Self::read).put(Self::replace),
            )
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Api::namespaced(
            crate::client::client_with(config, crate::client::DEADLINE, &crate::freshness::Freshness::default())
                .unwrap(),
            "own",
        )
    }

    async fn read(State(this): State<Self>, Path(_): Path<String>) -> Response {
        if this.broken.load(Ordering::Relaxed) {
            this.refused.fetch_add(1, Ordering::Relaxed);
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        let lease = this.lease.lock().unwrap().clone();
        lease.map_or_else(
            || failure(StatusCode::NOT_FOUND, "NotFound"),
            |lease| Json(lease).into_response(),
        )
    }

    async fn create(State(this): State<Self>, Json(new): Json<Lease>) -> Response {
        this.write(new, |stored| stored.is_none(), "AlreadyExists")
    }

    async fn replace(State(this): State<Self>, Path(_): Path<String>, Json(new): Json<Lease>) -> Response {
        let based_on = new.metadata.resource_version.clone();
        let fits = |stored: Option<&Lease>| stored.is_some_and(|stored| stored.metadata.resource_version == based_on);
        this.write(new, fits, "Conflict")
    }

    fn write(&self, mut new: Lease, fits: impl FnOnce(Option<&Lease>) -> bool, reason: &str) -> Response {
        let mut stored = self.lease.lock().unwrap();
        if self.broken.load(Ordering::Relaxed) || !fits(stored.as_ref()) {
            return failure(StatusCode::CONFLICT, reason);
        }
        let version = stored
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.as_ref()?.parse().ok())
            .unwrap_or(0);
        new.metadata.resource_version = Some((version + 1).to_string());
        *stored = Some(new.clone());
        Json(new).into_response()
    }

    fn holder(&self) -> Option<String> {
        self.lease
            .lock()
            .unwrap()
            .as_ref()?
            .spec
            .as_ref()?
            .holder_identity
            .clone()
    }

    /// Somebody else writes the Lease.
    fn change(&self, change: impl FnOnce(&mut Lease)) {
        let mut stored = self.lease.lock().unwrap();
        let lease = stored.as_mut().unwrap();
        change(lease);
        lease.metadata.resource_version = Some(format!("{}0", lease.metadata.resource_version.as_deref().unwrap()));
    }
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16()});
    (code, Json(status)).into_response()
}

const SECOND: Duration = Duration::from_secs(1);
/// Longer than a machine stalls.
const LONG: Duration = Duration::from_secs(600);

async fn elector(leases: &Leases, process: &str, duration: Duration) -> Elector {
    Elector::new(leases.api().await, "tokenscope-operator", process, duration)
}

fn held(claim: Claim) -> bool {
    claim.is_held(Instant::now())
}

/// The same for a Lease of a second, whose claim may be over before anybody looks at it where a machine stalls.
fn taken(claim: Claim) -> bool {
    claim.held_until.is_some()
}

#[tokio::test]
async fn the_first_holds_and_the_second_waits_until_it_is_given_back() {
    let leases = Leases::default();
    let (mut first, mut second) = (elector(&leases, "one", LONG).await, elector(&leases, "two", LONG).await);
    let claim = first.try_hold().await.unwrap();
    assert!(held(claim));
    assert!(
        !claim.is_held(Instant::now() + LONG * 2 / 3),
        "the claim ends before others may take over"
    );
    assert!(!held(second.try_hold().await.unwrap()));
    assert!(held(first.try_hold().await.unwrap()), "renewed");
    assert_eq!(leases.holder().as_deref(), Some(first.identity()));

    second.release().await.unwrap();
    assert_eq!(
        leases.holder().as_deref(),
        Some(first.identity()),
        "only the holder gives it back"
    );
    first.release().await.unwrap();
    assert_eq!(leases.holder(), None);
    assert!(held(second.try_hold().await.unwrap()));
}

#[tokio::test]
async fn two_processes_of_one_name_do_not_both_hold() {
    let leases = Leases::default();
    let (mut one, mut other) = (
        elector(&leases, "same", LONG).await,
        elector(&leases, "same", LONG).await,
    );
    assert!(held(one.try_hold().await.unwrap()));
    assert!(!held(other.try_hold().await.unwrap()));
}

#[tokio::test]
async fn a_silent_holder_loses_it_after_the_duration_by_our_own_clock() {
    let leases = Leases::default();
    let (mut dead, mut heir) = (
        elector(&leases, "dead", SECOND).await,
        elector(&leases, "heir", SECOND).await,
    );
    assert!(taken(dead.try_hold().await.unwrap()));
    // The record's own times lie far in the past: that does not count, only that it no longer changes.
    leases.change(|lease| lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH)));
    assert!(!taken(heir.try_hold().await.unwrap()));
    sleep(SECOND).await;
    assert!(taken(heir.try_hold().await.unwrap()));
    assert!(!taken(dead.try_hold().await.unwrap()));
    assert_eq!(
        leases
            .lease
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .lease_transitions,
        Some(1)
    );
}

#[tokio::test]
async fn of_many_at_the_same_time_one_holds() {
    let leases = Leases::default();
    let mut electors = Vec::new();
    for _ in 0..20 {
        electors.push(elector(&leases, "racer", LONG).await);
    }
    let claims = futures::future::join_all(electors.iter_mut().map(Elector::try_hold)).await;
    assert_eq!(
        claims
            .into_iter()
            .filter(|claim| held(*claim.as_ref().unwrap()))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_foreign_change_of_metadata_does_not_lose_the_lease() {
    let leases = Leases::default();
    let mut elector = elector(&leases, "one", LONG).await;
    assert!(held(elector.try_hold().await.unwrap()));
    leases.change(|lease| lease.metadata.labels = Some([("team".to_owned(), "x".to_owned())].into()));
    assert!(held(elector.try_hold().await.unwrap()));
    let labels = leases.lease.lock().unwrap().as_ref().unwrap().metadata.labels.clone();
    assert!(
        labels.is_some_and(|labels| labels.contains_key("team")),
        "and the change is kept"
    );
}

#[tokio::test]
async fn the_running_loop_renews_survives_a_short_fault_and_gives_back_at_the_stop() {
    let leases = Leases::default();
    let stop = CancellationToken::new();
    let mut claim = run(elector(&leases, "one", LONG).await, stop.clone());
    let first = claim.wait_for(|claim| held(*claim)).await.unwrap().held_until;
    claim.wait_for(|claim| claim.held_until > first).await.unwrap();

    leases.broken.store(true, Ordering::Relaxed);
    let refused_twice = async {
        while leases.refused.load(Ordering::Relaxed) < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, refused_twice).await.unwrap();
    assert!(held(*claim.borrow()), "a fault shorter than the claim is survived");

    leases.broken.store(false, Ordering::Relaxed);
    stop.cancel();
    while claim.changed().await.is_ok() {}
    assert!(!held(*claim.borrow()));
    assert_eq!(leases.holder(), None);
}

#[tokio::test]
async fn the_running_loop_loses_it_by_a_longer_fault_or_to_another_and_takes_it_again() {
    let leases = Leases::default();
    let stop = CancellationToken::new();
    let mut claim = run(elector(&leases, "one", SECOND).await, stop.clone());
    claim.wait_for(|claim| taken(*claim)).await.unwrap();
    leases.broken.store(true, Ordering::Relaxed);
    claim.wait_for(|claim| claim.held_until.is_none()).await.unwrap();

    leases.broken.store(false, Ordering::Relaxed);
    claim.wait_for(|claim| taken(*claim)).await.unwrap();
    leases.change(|lease| lease.spec.as_mut().unwrap().holder_identity = Some("thief".to_owned()));
    claim.wait_for(|claim| claim.held_until.is_none()).await.unwrap();
    claim.wait_for(|claim| taken(*claim)).await.unwrap();

    stop.cancel();
    while claim.changed().await.is_ok() {}
    assert!(!taken(*claim.borrow()));
}
