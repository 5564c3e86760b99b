//! The task that reads the keys again and again, and takes the steps of their rotation while this process leads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokenscope_platform::health::Gate;
use tokenscope_platform::lease::Claim;
use tokenscope_platform::telemetry::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::issuer_url::IssuerUrl;
use crate::key_source::{KeySource, KeySourceError, SecretKeys, StoredKeys};
use crate::keys::{KeyError, SigningKey};
use crate::metrics::IssuerMetrics;
use crate::rotation::{KeyRotationSettings, RingError, RotationStep, alarms, next_step};
use crate::signers::{CurrentSigners, Signers};

/// Between two looks at the keys, where nobody says otherwise.
pub const POLL: Duration = Duration::from_secs(5);
/// How many steps are taken in a row: the first start takes two for each algorithm.
const MOST_STEPS: usize = 16;

/// Keeps [`CurrentSigners`] what the source says.
pub struct KeyKeeper {
    /// Where the keys are.
    pub source: KeySource,
    /// Whether this process writes.
    pub claim: watch::Receiver<Claim>,
    /// How keys are rotated.
    pub settings: KeyRotationSettings,
    /// The issuer.
    pub issuer: IssuerUrl,
    /// What requests sign with.
    pub signers: CurrentSigners,
    /// Open while there are keys.
    pub gate: Gate,
    /// What is counted.
    pub metrics: IssuerMetrics,
    /// Between two looks.
    pub period: Duration,
    /// The time.
    pub clock: fn() -> Timestamp,
}

impl KeyKeeper {
    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut shown = None;
        let mut problem = None;
        while !stop.is_cancelled() {
            let looked = self.look(&mut shown).await.err().map(|error| chain(&error));
            // The same problem is one line in the log, not one every few seconds.
            if let Some(text) = &looked
                && problem.as_ref() != Some(text)
            {
                tracing::warn!(
                    error = text,
                    "the keys can't be read or written; those of before stay in use"
                );
            }
            problem = looked;
            match (self.signers.load().is_some(), &problem) {
                (true, _) => self.gate.open(),
                (false, Some(problem)) => self.gate.close(problem),
                (false, None) => self.gate.close("there are none yet"),
            }
            stop.run_until_cancelled(tokio::time::sleep(self.period)).await;
        }
        Ok(())
    }

    /// Reads the keys, takes the steps that are due if this process leads, and shows what came of it. `shown` is what was shown
    /// last.
    async fn look(&self, shown: &mut Option<StoredKeys>) -> Result<(), KeySourceError> {
        let mut keys = self.source.read((self.clock)()).await?;
        if let KeySource::Secret(secret) = &self.source {
            if keys.version.is_none()
                && let Some(before) = shown.as_ref()
            {
                // The Secret was deleted. What is in use stays in use, and the leader writes it again.
                keys = StoredKeys {
                    ring: before.ring.clone(),
                    version: None,
                };
                if self.leads() {
                    keys = secret.write(&keys).await?;
                    tracing::warn!(secret = secret.name, "the Secret was gone and was written again");
                }
            }
            // What was read is of use also where nothing can be written.
            self.show(&keys, shown);
            keys = self.rotate(secret, keys).await?;
        }
        self.show(&keys, shown);
        Ok(())
    }

    async fn rotate(&self, secret: &SecretKeys, mut keys: StoredKeys) -> Result<StoredKeys, KeySourceError> {
        for _ in 0..MOST_STEPS {
            let now = (self.clock)();
            let step = next_step(&keys.ring, now, &self.settings);
            if matches!(step, RotationStep::Wait(_)) || !self.leads() {
                break;
            }
            let ring = keys.ring.clone();
            let taken = step.clone();
            // An RSA key takes a tenth of a second and more.
            let next = tokio::task::spawn_blocking(move || ring.after(&taken, now, SigningKey::generate));
            let ring = next.await.map_err(|_| RingError::Key(KeyError::Crypto))??;
            keys = secret.write(&StoredKeys { ring, ..keys }).await?;
            tracing::info!(?step, "a step of the keys' rotation");
        }
        Ok(keys)
    }

    fn show(&self, keys: &StoredKeys, shown: &mut Option<StoredKeys>) {
        let now = (self.clock)();
        let is_same = shown.as_ref().is_some_and(|shown| shown.version == keys.version);
        if is_same || keys.ring.keys().is_empty() {
            return;
        }
        *shown = Some(keys.clone());
        let alarms = alarms(&keys.ring, now);
        for alarm in &alarms {
            tracing::error!(%alarm, "the keys need a look");
        }
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.keys.set(count(keys.ring.keys().len()));
        self.metrics.key_alarms.set(count(alarms.len()));
        self.metrics.keys_read.set(now.as_second());
        self.signers
            .store(Some(Arc::new(Signers::new(keys.ring.clone(), &self.issuer))));
    }

    fn leads(&self) -> bool {
        self.claim.borrow().is_held(Instant::now())
    }
}
