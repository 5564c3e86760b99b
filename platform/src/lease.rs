//! Leadership by a `coordination.k8s.io/v1` Lease: all replicas keep warm, the one that holds the Lease writes.
//!
//! Every write to the Lease carries the `resourceVersion` it was decided on, so of two that take it at the same time one is
//! refused. Whether another holder's time is over is measured on the local monotonic clock from when its record was last
//! seen to change, as client-go does it, so clocks of different nodes need not agree.

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
