//! Leadership by a `coordination.k8s.io/v1` Lease: all replicas keep warm, the one that holds the Lease writes.
//!
//! Every write to the Lease carries the `resourceVersion` it was decided on, so of two that take it at the same time one is
//! refused. Whether another holder's time is over is measured on the local monotonic clock from when its record was last
//! seen to change, as client-go does it, so clocks of different nodes need not agree.
//!
//! Written here because no crate for it supports kube 5, and kubert compares the wall clocks of nodes (docs/adr/0007).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Whether this process may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Until when no other process takes the Lease; none if this process does not hold it.
    ///
    /// It ends a third of the Lease's duration before others may take over, so that a write begun within it can end in time.
    pub held_until: Option<Instant>,
}

impl Claim {
    /// Whether a write may begin at `now`. To be asked before each write.
    pub fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }
}

/// Takes, renews and gives back one Lease.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    observed: Option<Observation>,
}

#[derive(Debug)]
struct Observation {
    version: Option<String>,
    at: Instant,
}

impl Elector {
    /// For the Lease `name`; `process` says who holds it. Others take over when it was not renewed for `duration`, of whole
    /// seconds.
    pub fn new(leases: Api<Lease>, name: impl Into<String>, process: &str, duration: Duration) -> Self {
        // Two processes may have one name: on one host, or in a pod whose container was restarted. They must not both hold.
        let unique = RandomState::new().build_hasher().finish();
        let identity = format!("{process}_{unique:016x}");
        Self {
            leases,
            name: name.into(),
            identity,
            duration: duration.max(Duration::from_secs(1)),
            observed: None,
        }
    }

    /// What stands in the Lease while this process holds it: the process's name and a random part.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes or renews the Lease if it is free, over or ours.
    pub async fn try_hold(&mut self) -> Result<Claim, kube::Error> {
        // A second look after a conflict tells another holder from somebody who only touched our Lease's metadata.
        for _ in 0..2 {
            let began = Instant::now();
            let written = match self.leases.get_opt(&self.name).await? {
                None => self.leases.create(&PostParams::default(), &self.first()).await,
                Some(lease) => match self.successor(lease, began) {
                    None => return Ok(Claim::default()),
                    Some(next) => self.leases.replace(&self.name, &PostParams::default(), &next).await,
                },
            };
            match written {
                Ok(lease) => {
                    self.observed = Some(Observation {
                        version: lease.metadata.resource_version,
                        at: began,
                    });
                    return Ok(Claim {
                        held_until: Some(began + self.duration * 2 / 3),
                    });
                }
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Claim::default())
    }

    /// Lets the next process have the Lease at once, if this one holds it. Nothing may be written afterwards.
    pub async fn release(&mut self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity()) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }

    /// The Lease as it would be with us as its first holder.
    fn first(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(now.clone(), now, 0)),
        }
    }

    /// The same Lease with us as its holder; none while it is another's.
    fn successor(&mut self, mut lease: Lease, now: Instant) -> Option<Lease> {
        let changed = self
            .observed
            .as_ref()
            .is_none_or(|observed| observed.version != lease.metadata.resource_version);
        if changed {
            self.observed = Some(Observation {
                version: lease.metadata.resource_version.clone(),
                at: now,
            });
        }
        let seen = self.observed.as_ref().map_or(now, |observed| observed.at);
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.identity;
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        if !ours && !holder.is_empty() && now.duration_since(seen) < duration.unwrap_or(self.duration) {
            return None;
        }
        let renewed = MicroTime(Timestamp::now());
        let acquired = spec.acquire_time.filter(|_| ours).unwrap_or_else(|| renewed.clone());
        let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours));
        lease.spec = Some(self.spec(acquired, renewed, transitions));
        Some(lease)
    }

    fn spec(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Holds the Lease whenever it can be had, in a task of its own, until `stop`; then gives it back, and the channel closes.
///
/// `stop` must come after the last write: use [`Process::hold_lease`](crate::Process::hold_lease), which sees to that.
pub fn run(elector: Elector, stop: CancellationToken) -> watch::Receiver<Claim> {
    let (claims, claim) = watch::channel(Claim::default());
    tokio::spawn(hold(elector, claims, stop));
    claim
}

pub(crate) async fn hold(mut elector: Elector, claims: watch::Sender<Claim>, stop: CancellationToken) {
    // For the usual 15 s: a try each 2 s, each of at most 5 s, so that one lost answer does not lose the Lease.
    let pause = (elector.duration / 5).min(Duration::from_secs(2));
    let deadline = elector.duration / 3;
    loop {
        let Some(tried) = stop.run_until_cancelled(timeout(deadline, elector.try_hold())).await else {
            break;
        };
        let before = *claims.borrow();
        let was_held = before.held_until.is_some();
        let claim = match tried {
            Ok(Ok(claim)) => claim,
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = elector.name,
                    error = telemetry::chain(&error),
                    "the lease can't be read or written"
                );
                still(before)
            }
            Err(_) => {
                tracing::warn!(
                    lease = elector.name,
                    seconds = deadline.as_secs_f32(),
                    "no answer about the lease in time"
                );
                still(before)
            }
        };
        match (was_held, claim.held_until.is_some()) {
            (false, true) => tracing::info!(
                lease = elector.name,
                identity = elector.identity,
                "lease taken: this process writes"
            ),
            (true, false) => tracing::warn!(lease = elector.name, "lease lost: this process stands by"),
            _ => {}
        }
        claims.send_replace(claim);
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
    }
    // A try that `stop` cut off may have taken the Lease without our knowing it, so the Lease itself is asked.
    claims.send_replace(Claim::default());
    match timeout(deadline, elector.release()).await {
        Ok(Ok(())) => tracing::info!(lease = elector.name, "lease given back"),
        Ok(Err(error)) => tracing::warn!(
            lease = elector.name,
            error = telemetry::chain(&error),
            "lease not given back"
        ),
        Err(_) => tracing::warn!(lease = elector.name, "lease not given back in time"),
    }
}

/// What is left of a claim when nothing new is known.
fn still(claim: Claim) -> Claim {
    if claim.is_held(Instant::now()) {
        claim
    } else {
        Claim::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{Path, State};
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use http::StatusCode;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    /// One Lease behind real HTTP, compared and swapped by `resourceVersion` as the API server does it.
    #[derive(Clone, Default)]
    struct Leases {
        lease: Arc<Mutex<Option<Lease>>>,
        broken: Arc<AtomicBool>,
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
            let fits =
                |stored: Option<&Lease>| stored.is_some_and(|stored| stored.metadata.resource_version == based_on);
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
    const LONG: Duration = Duration::from_secs(15);

    async fn elector(leases: &Leases, process: &str, duration: Duration) -> Elector {
        Elector::new(leases.api().await, "tokenscope-operator", process, duration)
    }

    fn held(claim: Claim) -> bool {
        claim.is_held(Instant::now())
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
        assert!(held(dead.try_hold().await.unwrap()));
        // The record's own times lie far in the past: that does not count, only that it no longer changes.
        leases.change(|lease| lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH)));
        assert!(!held(heir.try_hold().await.unwrap()));
        sleep(SECOND).await;
        assert!(held(heir.try_hold().await.unwrap()));
        assert!(!held(dead.try_hold().await.unwrap()));
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
        let mut claim = run(elector(&leases, "one", SECOND).await, stop.clone());
        claim.wait_for(|claim| held(*claim)).await.unwrap();
        sleep(SECOND).await;
        assert!(held(*claim.borrow()), "renewed");

        leases.broken.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(300)).await;
        assert!(held(*claim.borrow()), "a fault shorter than the claim is survived");
        sleep(SECOND).await;
        assert!(!held(*claim.borrow()), "a longer one is not");
        claim.wait_for(|claim| claim.held_until.is_none()).await.unwrap();

        leases.broken.store(false, Ordering::Relaxed);
        claim.wait_for(|claim| held(*claim)).await.unwrap();
        leases.change(|lease| lease.spec.as_mut().unwrap().holder_identity = Some("thief".to_owned()));
        claim.wait_for(|claim| claim.held_until.is_none()).await.unwrap();
        claim.wait_for(|claim| held(*claim)).await.unwrap();

        stop.cancel();
        while claim.changed().await.is_ok() {}
        assert!(!held(*claim.borrow()));
        assert_eq!(leases.holder(), None);
    }
}
