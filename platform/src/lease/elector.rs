//! One try to take, renew or give back the Lease.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::Claim;

/// Takes, renews and gives back one Lease.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    pub(super) name: String,
    identity: String,
    pub(super) duration: Duration,
    observed: Option<SeenVersion>,
}

#[derive(Debug)]
struct SeenVersion {
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

    /// The holder in the Lease while this process holds it: the process's name and a random part.
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
                    self.observed = Some(SeenVersion {
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
            self.observed = Some(SeenVersion {
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
