//! Pods that exchange their tokens again and again, and a relying party that verifies what they get.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenscope_core::Algorithm;
use tokenscope_issuer::issuer_url::KEYS_PATH;
use tokenscope_issuer::keys::{VerificationKeys, read};
use tokenscope_issuer::rotation::KeyRing;

use super::workload::{es256, kid_of};
use super::*;

/// How long a caller tries again before it counts as a failure. A sidecar has a third of its token's life.
const RETRIED: Duration = Duration::from_secs(60);
/// As many pods share the exchanges as keep each of them under the rate of a pod.
const PODS: usize = 16;

/// What pods and a relying party ask of the replicas, whichever of them answers.
pub(super) struct Callers {
    authorities: String,
    ports: Vec<u16>,
    subjects: Vec<String>,
    turn: AtomicUsize,
    stop: AtomicBool,
}

impl Callers {
    /// Of pods of a namespace of their own, which ask so many replicas.
    pub(super) async fn start(environment: &Environment, replicas: usize) -> Self {
        let tenant = Tenant::open(environment, "rotating").await;
        tenant.shop.policy("orders", es256()).await.unwrap();
        let mut subjects = Vec::new();
        for number in 0..PODS {
            let name = format!("orders-{number}");
            let mut pod = tenant.shop.asking(&name, ORDERS);
            pod["metadata"]["labels"] = json!({"app": "orders"});
            tenant.shop.granted(&pod).await.unwrap();
            let token = environment.control_plane.pod_token("rotating", &name, URL, 3600).await;
            subjects.push(token.unwrap());
        }
        Self {
            authorities: authority(&tenant.shop.client).await.unwrap(),
            ports: (0..replicas)
                .map(|number| environment.installed.issuer(number).1)
                .collect(),
            subjects,
            turn: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Lets [`Callers::exchange_and_verify`] end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    async fn token_of(&self, port: u16) -> Result<String> {
        let subject = &self.subjects[self.turn() % self.subjects.len()];
        let (status, answer) = exchange(port, &self.authorities, subject, STS).await?;
        anyhow::ensure!(status == 200, "{status} {answer}");
        Ok(answer["access_token"].as_str().context("a token")?.to_owned())
    }

    async fn keys_of(&self, port: u16) -> Result<VerificationKeys> {
        let path = format!("/cluster-1{KEYS_PATH}");
        let (status, answer) = document(port, &self.authorities, &path).await?;
        anyhow::ensure!(status == 200, "{status} {answer}");
        Ok(VerificationKeys::of(&read(answer.to_string().as_bytes(), None)?))
    }

    /// Asks one replica after the other, as a Service with retries does.
    async fn retried<T>(&self, ask: impl AsyncFn(u16) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            let port = self.ports[self.turn() % self.ports.len()];
            match ask(port).await {
                Ok(answer) => return Ok(answer),
                Err(error) if began.elapsed() > RETRIED => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Exchanges again and again. Each token is verified with the keys that some replica published before it, and after it: the
    /// number of tokens.
    pub(super) async fn exchange_and_verify(&self) -> Result<usize> {
        let mut tokens = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let before = self.retried(async |port| self.keys_of(port).await).await?;
            let token = self.retried(async |port| self.token_of(port).await).await?;
            let after = self.retried(async |port| self.keys_of(port).await).await?;
            for (when, keys) in [("before", &before), ("after", &after)] {
                anyhow::ensure!(
                    verifies(&token, keys)?,
                    "a token can't be verified with the keys {when} it"
                );
            }
            tokens += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(tokens)
    }

    /// Whether a replica publishes and signs with what is in the Secret.
    pub(super) async fn is_settled(&self, port: u16, ring: &KeyRing) -> Result<()> {
        let keys = self.keys_of(port).await?;
        let published = ring.keys().iter().all(|key| keys.find(key.kid()).is_some());
        anyhow::ensure!(published && keys.len() == ring.keys().len(), "it publishes other keys");
        let (signer, _) = ring.signing(Algorithm::ES256).context("a key signs")?;
        let kid = kid_of(&self.token_of(port).await?)?;
        anyhow::ensure!(kid == signer.kid(), "it signs with {kid}");
        Ok(())
    }
}

fn verifies(token: &str, keys: &VerificationKeys) -> Result<bool> {
    let (message, signature) = token.rsplit_once('.').context("three parts")?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    let key = keys.find(&kid_of(token)?);
    Ok(key.is_some_and(|key| key.verifies("ES256", message.as_bytes(), &signature)))
}
