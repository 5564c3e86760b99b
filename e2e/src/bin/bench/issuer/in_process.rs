//! What a token takes without a connection: its signature alone, and the loop that verifies, decides and signs with the issuer's own
//! code and what it knows of the same pods and policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_core::{Algorithm, Audience, Settings};
use tokenscope_e2e::get_json;
use tokenscope_issuer::buckets::Buckets;
use tokenscope_issuer::cluster_index::ClusterIndex;
use tokenscope_issuer::cluster_keys::{ClusterKeys, KnownCluster};
use tokenscope_issuer::exchange::Exchange;
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::signers::{CurrentSigners, Signers};
use tokenscope_issuer::subject_token::{Expected, SubjectToken};
use tokenscope_platform::freshness::Freshness;

use super::cluster::Caller;
use super::rows::Round;
use super::{STS, URL};
use crate::load::nanoseconds;

/// The issuer without a listener.
pub(super) struct InProcess {
    exchange: Exchange,
    cluster: Arc<KnownCluster>,
    signers: Arc<Signers>,
    audience: Audience,
}

impl InProcess {
    /// Knows the callers' pods and all policies.
    pub(super) async fn of(client: &Client, callers: &[Caller]) -> Result<Self> {
        let keys = ClusterKeys::new(client.clone(), None, None);
        keys.refresh(Duration::ZERO).await?;
        let cluster = keys.known(Instant::now()).context("the API server has keys")?;
        let generated = Algorithm::ALL.map(SigningKey::generate);
        let generated = generated.into_iter().collect::<Result<Vec<_>, _>>()?;
        let ring = KeyRing::of_signing_keys(generated, Timestamp::now())?;
        let signers = Arc::new(Signers::new(ring, &URL.parse()?));
        let current = CurrentSigners::default();
        current.store(Some(Arc::clone(&signers)));
        let now = Instant::now();
        let exchange = Exchange {
            issuer: URL.parse()?,
            most_lifetime: 3600,
            settings: Settings {
                issuer: Some(URL.into()),
                ..Settings::default()
            },
            cluster_name: None,
            index: Arc::new(known(client, callers).await?),
            // It has no watches that could grow old.
            freshness: Freshness::new(Duration::from_secs(24 * 3600)),
            signers: current,
            algorithms: Algorithm::ALL.to_vec(),
            pods: Buckets::for_pods(u16::MAX, u16::MAX, now),
            namespaces: Buckets::new(u16::MAX, u16::MAX, now),
        };
        Ok(Self {
            exchange,
            cluster,
            signers,
            audience: STS.parse()?,
        })
    }

    /// A token for a pod's own one.
    pub(super) fn exchange(&self, subject: &str) -> Result<()> {
        let now = Timestamp::now();
        let expected = Expected {
            issuer: &self.cluster.issuer,
            audience: URL,
        };
        let subject = SubjectToken::read(subject, &expected, now.as_second())?;
        let caller = Exchange::verify(subject, &self.cluster)?;
        let unsigned = self.exchange.decide(&caller, &self.audience, None, now)?;
        unsigned.sign()?;
        Ok(())
    }

    /// A token of the usual length that says nothing.
    pub(super) fn sign(&self, algorithm: Algorithm, payload: &str) -> Result<()> {
        let key = self
            .signers
            .signer(algorithm)
            .context("there is a key of each algorithm")?;
        key.token(payload)?;
        Ok(())
    }
}

/// What the issuer's watches would have told.
async fn known(client: &Client, callers: &[Caller]) -> Result<ClusterIndex> {
    let index = ClusterIndex::default();
    for cluster in [false, true] {
        index.apply_policy(cluster, Event::Init);
        index.apply_policy(cluster, Event::InitDone);
    }
    index.apply_boundary(Event::Init);
    index.apply_boundary(Event::InitDone);
    index.apply_service_account(Event::Init);
    index.apply_service_account(Event::InitDone);
    let mut policies = get_json(client, "/apis/tokenscope.io/v1alpha1/tokenscopepolicies").await?;
    let policies: Vec<DynamicObject> = serde_json::from_value(policies["items"].take())?;
    for policy in policies {
        index.apply_policy(false, Event::Apply(policy));
    }
    for caller in callers {
        let namespace = json!({"metadata": {"name": caller.namespace, "labels": {"team": "blue"}}});
        index.apply_namespace(Event::Apply(serde_json::from_value(namespace)?));
        let path = format!("/api/v1/namespaces/{}/pods/{}", caller.namespace, caller.pod);
        let pod: Value = get_json(client, &path).await?;
        index.apply_pod(Event::Apply(serde_json::from_value(pod)?));
    }
    Ok(index)
}

/// Does something again and again on some threads until the time is over. It is told how often it was done before.
pub(super) fn repeat(threads: usize, length: Duration, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Round> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let one = || -> Result<Vec<u32>> {
        let mut latencies = Vec::new();
        while started.elapsed() < length {
            let began = Instant::now();
            work(next.fetch_add(1, Ordering::Relaxed))?;
            latencies.push(nanoseconds(began.elapsed()));
        }
        Ok(latencies)
    };
    let latencies: Vec<Result<Vec<u32>>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(Round {
        elapsed: started.elapsed(),
        latencies: latencies.into_iter().collect::<Result<Vec<_>>>()?.concat(),
    })
}
