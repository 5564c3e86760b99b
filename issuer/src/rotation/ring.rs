//! All keys of the issuer at one moment, and what a step makes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::Algorithm;

use super::RotationStep;
use crate::keys::{KeyError, MOST_KEYS_OF_A_KIND, SigningKey};

/// The most identifiers of removed keys that are remembered, so that an old key can't come back by a backup.
const MOST_REMOVED: usize = 1000;

/// The keys. `Debug` shows their identifiers alone.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<RingKey>,
    removed: Vec<Box<str>>,
}

/// A key and its times.
#[derive(Clone, Debug)]
pub struct RingKey {
    pub(super) key: Arc<SigningKey>,
    pub(super) published_at: Timestamp,
    pub(super) signing_since: Option<Timestamp>,
    pub(super) retired_at: Option<Timestamp>,
}

/// The use of a key at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// It is published and signs nothing yet.
    Published,
    /// It signs since then.
    Signing(Timestamp),
    /// It signs no more since then, and its tokens may still be around.
    Retired(Timestamp),
}

/// The reason why a step can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There is no such key.
    #[error("there is no key {0:?}")]
    NoKey(Box<str>),
    /// The key was there before, or was removed.
    #[error("key {0:?} is there already or was removed, and no key comes back")]
    Known(Box<str>),
    /// The key does not sign, or does already.
    #[error("key {0:?} is not at the step before this one")]
    Standing(Box<str>),
    /// The key set is full.
    #[error("there are {MOST_KEYS_OF_A_KIND} keys of this kind, and AWS takes no more")]
    Full,
    /// Two keys of one algorithm would sign.
    #[error("two keys of one algorithm sign")]
    TwoSign,
    /// The key can't be made.
    #[error("the key can't be made")]
    Key(#[from] KeyError),
}

impl RingKey {
    /// The key.
    pub fn key(&self) -> &Arc<SigningKey> {
        &self.key
    }

    /// Its identifier.
    pub fn kid(&self) -> &str {
        self.key.kid()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The time at which it was published.
    pub fn published_at(&self) -> Timestamp {
        self.published_at
    }

    /// Its use.
    pub fn standing(&self) -> KeyStanding {
        match (self.retired_at, self.signing_since) {
            (Some(since), _) => KeyStanding::Retired(since),
            (None, Some(since)) => KeyStanding::Signing(since),
            (None, None) => KeyStanding::Published,
        }
    }

    /// The latest of its times.
    pub(super) fn last_written(&self) -> Timestamp {
        let times = [Some(self.published_at), self.signing_since, self.retired_at];
        times.into_iter().flatten().max().unwrap_or(self.published_at)
    }
}

impl KeyRing {
    /// Makes a ring of keys, and checks what every step keeps: no key twice or after its removal, at most one of each algorithm
    /// signs, and no more than AWS takes.
    pub(super) fn of(keys: Vec<RingKey>, mut removed: Vec<Box<str>>) -> Result<Self, RingError> {
        removed.drain(..removed.len().saturating_sub(MOST_REMOVED));
        for (index, key) in keys.iter().enumerate() {
            let others = keys.iter().take(index);
            if others.clone().any(|other| other.kid() == key.kid()) || removed.iter().any(|kid| **kid == *key.kid()) {
                return Err(RingError::Known(key.kid().into()));
            }
            let signs = |key: &RingKey| matches!(key.standing(), KeyStanding::Signing(_));
            if signs(key)
                && others
                    .clone()
                    .any(|other| signs(other) && other.algorithm() == key.algorithm())
            {
                return Err(RingError::TwoSign);
            }
        }
        let ring = Self { keys, removed };
        let kinds = [Algorithm::RS256, Algorithm::ES256];
        if kinds.iter().any(|kind| ring.count_of_kind(*kind) > MOST_KEYS_OF_A_KIND) {
            return Err(RingError::Full);
        }
        Ok(ring)
    }

    /// Keys that come from elsewhere, such as a file: the first of each algorithm signs at once, and further ones are published.
    pub fn of_signing_keys(keys: impl IntoIterator<Item = SigningKey>, now: Timestamp) -> Result<Self, RingError> {
        let mut ring: Vec<RingKey> = Vec::new();
        for key in keys {
            let is_first = !ring.iter().any(|other| other.algorithm() == key.algorithm());
            ring.push(RingKey {
                key: Arc::new(key),
                published_at: now,
                signing_since: is_first.then_some(now),
                retired_at: None,
            });
        }
        Self::of(ring, Vec::new())
    }

    /// All keys, the oldest first. All are published.
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// The identifiers of keys that were removed; the last thousand.
    pub fn removed(&self) -> &[Box<str>] {
        &self.removed
    }

    /// The key that signs with an algorithm, and since when.
    pub fn signing(&self, algorithm: Algorithm) -> Option<(&RingKey, Timestamp)> {
        self.keys.iter().find_map(|key| match key.standing() {
            KeyStanding::Signing(since) if key.algorithm() == algorithm => Some((key, since)),
            _ => None,
        })
    }

    /// The oldest key of an algorithm that is published and signs nothing yet.
    pub fn published(&self, algorithm: Algorithm) -> Option<&RingKey> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.algorithm() == algorithm && key.standing() == KeyStanding::Published)
    }

    /// The number of keys that are of the algorithm's kind: RSA, or on a curve.
    pub fn count_of_kind(&self, algorithm: Algorithm) -> usize {
        let is_rsa = |algorithm| algorithm == Algorithm::RS256;
        let kind = |key: &&RingKey| is_rsa(key.algorithm()) == is_rsa(algorithm);
        self.keys.iter().filter(kind).count()
    }

    /// The ring after a step. `generate` makes the key where one is needed.
    pub fn after(
        &self,
        step: &RotationStep,
        now: Timestamp,
        generate: impl FnOnce(Algorithm) -> Result<SigningKey, KeyError>,
    ) -> Result<Self, RingError> {
        match step {
            RotationStep::Publish(algorithm) => self.with_published(generate(*algorithm)?, now),
            RotationStep::Sign(kid) => self.with_signing(kid, now),
            RotationStep::Retire(kid) => {
                let mut keys = self.keys.clone();
                let key = find(&mut keys, kid)?;
                if !matches!(key.standing(), KeyStanding::Signing(_)) {
                    return Err(RingError::Standing(kid.clone()));
                }
                key.retired_at = Some(now);
                Self::of(keys, self.removed.clone())
            }
            RotationStep::Remove(kid) => self.without(kid),
            RotationStep::Wait(_) => Ok(self.clone()),
        }
    }

    /// The ring with a new key, published from now on.
    pub fn with_published(&self, key: SigningKey, now: Timestamp) -> Result<Self, RingError> {
        let mut keys = self.keys.clone();
        keys.push(RingKey {
            key: Arc::new(key),
            published_at: now,
            signing_since: None,
            retired_at: None,
        });
        Self::of(keys, self.removed.clone())
    }

    /// The ring with a published key signing from now on, and the one before it retired.
    pub fn with_signing(&self, kid: &str, now: Timestamp) -> Result<Self, RingError> {
        let mut keys = self.keys.clone();
        let algorithm = {
            let key = find(&mut keys, kid)?;
            if key.standing() != KeyStanding::Published {
                return Err(RingError::Standing(kid.into()));
            }
            key.algorithm()
        };
        for key in keys.iter_mut().filter(|key| key.algorithm() == algorithm) {
            if matches!(key.standing(), KeyStanding::Signing(_)) {
                key.retired_at = Some(now);
            }
        }
        find(&mut keys, kid)?.signing_since = Some(now);
        Self::of(keys, self.removed.clone())
    }

    /// True if another ring has a key that is neither here nor was removed here: then this one is older, or somebody took the key
    /// away by hand.
    pub fn lacks_keys_of(&self, other: &Self) -> bool {
        let mut kids = other.keys.iter().map(RingKey::kid);
        kids.any(|kid| {
            !self.keys.iter().any(|key| key.kid() == kid) && !self.removed.iter().any(|removed| **removed == *kid)
        })
    }

    /// The ring without keys that were removed before, as somebody remembers it: a Secret that comes from a backup brings none of
    /// them back.
    pub fn forgetting(&self, remembered: &[Box<str>]) -> Result<Self, RingError> {
        let own: BTreeSet<&str> = self.removed.iter().map(|kid| &**kid).collect();
        let more: Vec<_> = remembered.iter().filter(|kid| !own.contains(&***kid)).collect();
        if more.is_empty() {
            return Ok(self.clone());
        }
        let keys = self
            .keys
            .iter()
            .filter(|key| !more.iter().any(|kid| ***kid == *key.kid()));
        let removed = more.iter().copied().chain(&self.removed).cloned();
        Self::of(keys.cloned().collect(), removed.collect())
    }

    /// The ring with the mark that a key was removed, for one that is not in it: somebody may have taken it out by hand, and replicas
    /// that remember it would put it back.
    pub fn with_removed(&self, kid: &str) -> Result<Self, RingError> {
        let is_known = self.removed.iter().any(|removed| **removed == *kid);
        let more = (!is_known).then(|| kid.into());
        Self::of(self.keys.clone(), self.removed.iter().cloned().chain(more).collect())
    }

    /// The ring without a key, whatever it does at the moment. What it signed can't be verified any more.
    pub fn without(&self, kid: &str) -> Result<Self, RingError> {
        let mut keys = self.keys.clone();
        let before = keys.len();
        keys.retain(|key| key.kid() != kid);
        if keys.len() == before {
            return Err(RingError::NoKey(kid.into()));
        }
        let removed = self.removed.iter().cloned().chain([kid.into()]).collect();
        Self::of(keys, removed)
    }
}

fn find<'k>(keys: &'k mut [RingKey], kid: &str) -> Result<&'k mut RingKey, RingError> {
    let mut found = keys.iter_mut();
    found
        .find(|key| key.kid() == kid)
        .ok_or_else(|| RingError::NoKey(kid.into()))
}
