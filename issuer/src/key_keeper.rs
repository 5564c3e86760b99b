//! The task that reads the keys again and again, and takes the steps of their rotation while this process leads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use tokenscope_platform::health::Gate;
use tokenscope_platform::lease::Claim;
use tokenscope_platform::telemetry::chain;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api_clock::api_server_time;
use crate::events::KeyEvents;
use crate::issuer_url::IssuerUrl;
use crate::key_source::{KeySource, KeySourceError, SecretKeys, StoredKeys};
use crate::keys::{KeyError, SigningKey};
use crate::metrics::IssuerMetrics;
use crate::public_keys::PublicKeys;
use crate::rotation::{
    KeyRing, KeyRotationSettings, KeyStanding, PublicKids, RingError, RingKey, RotationAlarm, RotationStep, alarms,
    held_back, is_too_early, next_step_if_public,
};
use crate::signers::{CurrentSigners, Signers};

/// The default time between two looks at the keys where no watch tells of a change.
pub const POLL: Duration = Duration::from_secs(5);
/// The least time between two looks, however often the Secret changes.
const LEAST_GAP: Duration = Duration::from_millis(500);
/// The most steps that are taken in a row. The first start takes two for each algorithm.
const MOST_STEPS: usize = 16;
/// A Secret that is gone is written again if it was read within this time. Later, nobody knows which keys were removed before.
const REWRITE: Duration = Duration::from_secs(15);
/// The deadline of one look, its writes included.
const LOOK: Duration = Duration::from_secs(20);
/// The default of [`KeyKeeper::longest_unread`]: as long as what the watches told is believed.
pub const LONGEST_UNREAD: Duration = Duration::from_secs(300);

/// Keeps [`CurrentSigners`] what the source says.
pub struct KeyKeeper {
    /// The Secret or the file of the keys.
    pub source: KeySource,
    /// The claim on the Lease: the process that holds it writes.
    pub claim: watch::Receiver<Claim>,
    /// The times of the rotation.
    pub settings: KeyRotationSettings,
    /// The keys at the issuer's URL, where keys sign only once they can be read there.
    pub public: Option<PublicKeys>,
    /// The issuer.
    pub issuer: IssuerUrl,
    /// True if keys are published with certificates.
    pub x5c: bool,
    /// The keys that requests sign with.
    pub signers: CurrentSigners,
    /// Open while there are keys.
    pub gate: Gate,
    /// The metrics.
    pub metrics: IssuerMetrics,
    /// Tells of keys that were put back.
    pub events: KeyEvents,
    /// The time between two looks.
    pub period: Duration,
    /// The time for which keys sign that can't be read any more.
    pub longest_unread: Duration,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// The keys as the keeper has read and shown them.
#[derive(Default)]
struct Seen {
    /// The keys that are in use.
    shown: Option<StoredKeys>,
    /// The time when the keys were last read.
    read: Option<Instant>,
    /// The keys that were removed, as far as this process has read of it.
    removed: Vec<Box<str>>,
    /// The fault of the keys at the last look.
    alarms: Vec<RotationAlarm>,
    /// The keys that were held back at the last look.
    held: Vec<Box<str>>,
    /// True if a step was due by a clock that is ahead of the API server's.
    clock_is_ahead: bool,
}

impl Seen {
    /// True if the keys were read within this time.
    fn is_fresh(&self, within: Duration) -> bool {
        self.read.is_some_and(|read| read.elapsed() < within)
    }
}

impl KeyKeeper {
    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut seen = Seen::default();
        let mut problem = None;
        let mut changes = self.source.changes();
        while !stop.is_cancelled() {
            let looked = timeout(LOOK, self.look(&mut seen))
                .await
                .unwrap_or(Err(KeySourceError::Late));
            let looked = looked.err().map(|error| chain(&error));
            // The same problem is one line in the log, not one every few seconds.
            if let Some(text) = &looked
                && problem.as_ref() != Some(text)
            {
                tracing::warn!(error = text, "the keys can't be read or written");
            }
            problem = looked;
            self.settle(&mut seen, problem.as_deref());
            let pause = async {
                sleep(LEAST_GAP.min(self.period)).await;
                let _ = timeout(self.period, changes.next()).await;
            };
            stop.run_until_cancelled(pause).await;
        }
        Ok(())
    }

    /// Opens or closes the gate. What was not read for [`Self::longest_unread`] signs no more: the keys may have leaked and been
    /// removed meanwhile.
    fn settle(&self, seen: &mut Seen, problem: Option<&str>) {
        let signers = self.signers.load_full();
        match (signers, seen.is_fresh(self.longest_unread), problem) {
            (Some(_), true, _) => self.gate.open(),
            (Some(signers), false, problem) => {
                let seconds = self.longest_unread.as_secs();
                let problem = problem.unwrap_or("nobody knows why");
                self.gate.close(format!(
                    "the keys were not read for {seconds} s, so they sign no more: {problem}"
                ));
                if seen.shown.take().is_some() {
                    tracing::error!(
                        seconds,
                        problem,
                        "the keys can't be read any more, so nothing is signed"
                    );
                    self.signers.store(Some(Arc::new(signers.silenced())));
                }
            }
            (None, _, Some(problem)) => self.gate.close(problem),
            (None, _, None) => self.gate.close("there are none yet"),
        }
    }

    /// Reads the keys, takes the steps that are due if this process leads, and shows what came of it.
    async fn look(&self, seen: &mut Seen) -> Result<(), KeySourceError> {
        let read = self.source.read((self.clock)()).await?;
        // Only a look that was shortly before knows all that was in a Secret that is gone.
        let knows_all = seen.is_fresh(REWRITE);
        seen.read = Some(Instant::now());
        let KeySource::Secret(secret) = &self.source else {
            self.show(&read, seen);
            return Ok(());
        };
        let mut ring = read.ring.forgetting(&seen.removed)?;
        if let (Some(before), true) = (&seen.shown, knows_all)
            && ring.lacks_keys_of(&before.ring)
        {
            // The Secret was deleted, or replaced by an older one. What is in use stays in use.
            ring = before.ring.forgetting(ring.removed())?;
        }
        let is_changed = ring.removed() != read.ring.removed() || kids(&ring).ne(kids(&read.ring));
        let mut keys = StoredKeys {
            ring,
            version: read.version,
        };
        // A Secret that is gone is made again by whoever knows its keys: who leads next may never have read it, and would make others.
        let is_gone = keys.version.is_none() && !keys.ring.keys().is_empty();
        if is_changed && (is_gone || self.leads()) {
            let restored: Vec<Box<str>> = kids(&keys.ring)
                .filter(|kid| kids(&read.ring).all(|other| other != *kid))
                .map(Box::from)
                .collect();
            keys = secret.write(&keys).await?;
            self.tell(secret, is_gone, &restored);
        }
        // What was read is of use also where nothing can be written.
        self.show(&keys, seen);
        let public = self.public_kids(&keys.ring);
        keys = self.rotate(secret, keys, &public, seen).await?;
        self.show(&keys, seen);
        self.tell_of_held(&keys.ring, &public, seen);
        Ok(())
    }

    /// Says that the Secret was written as it was before.
    fn tell(&self, secret: &SecretKeys, was_gone: bool, restored: &[Box<str>]) {
        let count = u64::try_from(restored.len()).unwrap_or(u64::MAX);
        self.metrics.keys_restored.inc_by(count);
        let name = &secret.name;
        if was_gone {
            tracing::warn!(
                secret = name,
                "the Secret was deleted, and was written again as it was before"
            );
        } else if restored.is_empty() {
            tracing::warn!(
                secret = name,
                "the Secret came from a backup: keys that had been removed were taken out of it again"
            );
        } else {
            tracing::error!(
                secret = name,
                keys = restored.join(", "),
                "keys that are in use were taken out of the Secret by hand or by a backup, and were put back: `tokenscope-issuer revoke-key KID` removes a key for good"
            );
            self.events.restored(secret.secrets.namespace(), name, restored);
        }
    }

    /// The keys that can be read at the issuer's URL. Nobody is asked while no key waits, and by no replica but the leader.
    fn public_kids(&self, ring: &KeyRing) -> PublicKids {
        let waits = |key: &RingKey| key.standing() == KeyStanding::Published;
        match &self.public {
            None => PublicKids::NotAsked,
            Some(public) if self.leads() && ring.keys().iter().any(waits) => public.known(),
            Some(_) => PublicKids::Unknown,
        }
    }

    /// Says which keys would sign if they could be read at the issuer's URL. A key is one line in the log when that begins.
    fn tell_of_held(&self, ring: &KeyRing, public: &PublicKids, seen: &mut Seen) {
        let held = if self.leads() {
            held_back(ring, (self.clock)(), &self.settings, public)
        } else {
            Vec::new()
        };
        for kid in held
            .iter()
            .filter(|kid| !seen.held.iter().any(|other| **other == ***kid))
        {
            let problem = self.public.as_ref().and_then(PublicKeys::problem);
            tracing::warn!(
                kid,
                url = self.issuer.jwks_uri(),
                problem = problem
                    .as_deref()
                    .unwrap_or("the key set there was not read yet, or does not have the key"),
                "a key is due to sign and is held back until it can be read at the issuer's URL: publish the documents"
            );
        }
        self.metrics.keys_held_back.set(count(held.len()));
        seen.held = held.into_iter().map(Box::from).collect();
    }

    /// Takes the steps that are due, if this process leads.
    async fn rotate(
        &self,
        secret: &SecretKeys,
        mut keys: StoredKeys,
        public: &PublicKids,
        seen: &mut Seen,
    ) -> Result<StoredKeys, KeySourceError> {
        seen.clock_is_ahead = false;
        for _ in 0..MOST_STEPS {
            let now = (self.clock)();
            let step = next_step_if_public(&keys.ring, now, &self.settings, public);
            if matches!(step, RotationStep::Wait(_)) || !self.leads() {
                break;
            }
            // Without an answer the write fails too.
            let client = secret.secrets.clone().into_client();
            if let Some(time) = api_server_time(&client).await
                && is_too_early(&step, now, time)
            {
                seen.clock_is_ahead = true;
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

    fn show(&self, keys: &StoredKeys, seen: &mut Seen) {
        let now = (self.clock)();
        self.metrics.keys_read.set(now.as_second());
        seen.removed = keys.ring.removed().to_vec();
        self.alarm(&keys.ring, now, seen);
        let is_same = seen.shown.as_ref().is_some_and(|shown| shown.version == keys.version);
        if is_same {
            return;
        }
        if keys.ring.keys().is_empty() {
            // All that is in use was removed, and the leader has not made others yet.
            if seen
                .shown
                .take_if(|shown| !keys.ring.lacks_keys_of(&shown.ring))
                .is_some()
            {
                self.signers.store(None);
            }
            return;
        }
        seen.shown = Some(keys.clone());
        self.metrics.keys.set(count(keys.ring.keys().len()));
        self.signers.store(Some(Arc::new(self.signers_of(&keys.ring))));
    }

    /// Looks for what is wrong with the keys, also where they are the same: a time that was still to come does come. Each alarm is one
    /// line in the log when it begins.
    fn alarm(&self, ring: &KeyRing, now: Timestamp, seen: &mut Seen) {
        let mut alarms = alarms(ring, now);
        alarms.extend(seen.clock_is_ahead.then_some(RotationAlarm::ClockAhead));
        for alarm in alarms.iter().filter(|alarm| !seen.alarms.contains(alarm)) {
            tracing::error!(%alarm, "the keys need a look");
        }
        self.metrics.key_alarms.set(count(alarms.len()));
        seen.alarms = alarms;
    }

    fn signers_of(&self, ring: &KeyRing) -> Signers {
        if self.x5c {
            match Signers::certified(ring.clone(), &self.issuer) {
                Ok(signers) => return signers,
                // Those that read the keys themselves must not go without.
                Err(error) => tracing::error!(error = chain(&error), "the keys are published without certificates"),
            }
        }
        Signers::new(ring.clone(), &self.issuer)
    }

    fn leads(&self) -> bool {
        self.claim.borrow().is_held(Instant::now())
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn kids(ring: &KeyRing) -> impl Iterator<Item = &str> {
    ring.keys().iter().map(RingKey::kid)
}
