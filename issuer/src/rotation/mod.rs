//! The keys of the issuer over time: published, waited for, signing, retired, removed.
//!
//! AWS fetches an issuer's keys at times of its own, and does not document how long it remembers them. So a key is published long before it
//! signs, and stays published until the last token that it signed has ended. Every [`RotationStep`] is one write of the
//! [`KeyRing`]: a process that is killed between two of them leaves a state from which [`next_step`] goes on.

mod public;
mod ring;
mod stored;

use std::time::Duration;

use jiff::Timestamp;
pub use public::PublicKids;
pub use ring::{KeyRing, KeyStanding, RingError, RingKey};
pub use stored::{ENTRY, InvalidKeyRing};
use tokenscope_core::Algorithm;

use crate::claims::MOST_LIFETIME;
use crate::keys::MOST_KEYS_OF_A_KIND;

/// The times that keys wait and sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotationSettings {
    /// The algorithms that there is always a signing key of.
    algorithms: Vec<Algorithm>,
    publish_wait: Duration,
    signing_period: Duration,
}

/// The reason why settings can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRotation {
    /// The wait is too short.
    #[error(
        "a key should be published for at least an hour before it signs: nobody says how long AWS remembers an issuer's keys"
    )]
    Wait,
    /// Keys would not sign before they are replaced.
    #[error("a key should sign for longer than the next one is published before it signs")]
    Period,
    /// There is no algorithm.
    #[error("at least one algorithm is needed")]
    NoAlgorithm,
}

impl KeyRotationSettings {
    /// The least time that a key is published before it signs.
    pub const LEAST_WAIT: Duration = Duration::from_secs(3600);
    /// The time after its end for which AWS still takes a token (IAM User Guide, "OIDC federation": five minutes), and as much again for
    /// replicas that have not read the latest keys yet.
    pub const LEEWAY: Duration = Duration::from_secs(10 * 60);
    /// The time that a key that signs no more verifies: as long as any token that it may have signed, whatever the longest lifetime was at
    /// that time. A setting that is lowered ends no token that was signed before.
    pub const KEPT: Duration = Duration::from_secs(MOST_LIFETIME as u64 + Self::LEEWAY.as_secs());

    /// Checks the bounds.
    pub fn new(
        algorithms: Vec<Algorithm>,
        publish_wait: Duration,
        signing_period: Duration,
    ) -> Result<Self, InvalidRotation> {
        if algorithms.is_empty() {
            return Err(InvalidRotation::NoAlgorithm);
        }
        if publish_wait < Self::LEAST_WAIT {
            return Err(InvalidRotation::Wait);
        }
        if signing_period <= publish_wait {
            return Err(InvalidRotation::Period);
        }
        Ok(Self {
            algorithms,
            publish_wait,
            signing_period,
        })
    }

    /// True if the time has come for a published key to sign, as far as its times say.
    fn is_due_to_sign(&self, key: &RingKey, ring: &KeyRing, now: Timestamp) -> bool {
        let is_first = ring.signing(key.algorithm()).is_none() && Self::came_with_all_others(key, ring, now);
        is_first || later(key.published_at(), self.publish_wait) <= now
    }

    /// True if no other key was published long before or after this one, and none was removed, unless this one is new. Then nobody can
    /// remember keys without it but from a ring that is lost, and waiting helps nobody. The key of an algorithm that is added later, or
    /// in place of another one, waits: relying parties remember the keys of before.
    fn came_with_all_others(key: &RingKey, ring: &KeyRing, now: Timestamp) -> bool {
        let is_near = |time: Timestamp| time.duration_since(key.published_at()).unsigned_abs() < Self::LEEWAY;
        let others_are = ring.keys().iter().all(|other| is_near(other.published_at()));
        others_are && (ring.removed().is_empty() || is_near(now))
    }
}

/// The next thing to do to the keys. Each is one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// A new key of this algorithm is made and published.
    Publish(Algorithm),
    /// A published key signs from now on, and the one before it of the same algorithm is retired.
    Sign(Box<str>),
    /// A key signs no more, since its algorithm is not wanted any more.
    Retire(Box<str>),
    /// A key is forgotten: every token that it signed has ended.
    Remove(Box<str>),
    /// Nothing is due before this time.
    Wait(Timestamp),
}

/// A state of the keys that an administrator should look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationAlarm {
    /// There are nearly as many keys as AWS takes.
    #[error(
        "{0} keys of one kind are published, and AWS takes {MOST_KEYS_OF_A_KIND}: remove those that are not needed"
    )]
    NearLimit(usize),
    /// A key's times are in the future, so a clock was or is wrong.
    #[error(
        "key {0} was written at a time that is still to come: check the clocks. If it waits, `revoke-key {0}` removes it, and the leader \
         makes another in its time; if it signs, `rotate` makes the next one"
    )]
    Future(Box<str>),
    /// This replica leads, and a step is due by its clock that can't be trusted.
    #[error(
        "this replica's clock is more than {} minutes ahead of the API server's, so no key begins to sign and none is removed: set the clock",
        CLOCKS_DIFFER.as_secs() / 60
    )]
    ClockAhead,
}

/// The number of keys of one kind from which on there is an alarm.
const NEAR_LIMIT: usize = MOST_KEYS_OF_A_KIND - 10;
/// A time that is further in the future than this is an alarm. Clocks of nodes differ by less.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(5 * 60);
/// The longest time until the next look, where nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The next step, where a key signs once its wait is over.
///
/// A key whose times are in the future, because a clock was wrong, waits for them. A clock that is ahead now is not noticed here: by it
/// steps are due early. [`is_too_early`] compares it with another one.
pub fn next_step(ring: &KeyRing, now: Timestamp, settings: &KeyRotationSettings) -> RotationStep {
    next_step_if_public(ring, now, settings, &PublicKids::NotAsked)
}

/// The same, where a key signs only once it is among `public` as well. Until then the one before it goes on signing, and all other keys
/// take their steps.
pub fn next_step_if_public(
    ring: &KeyRing,
    now: Timestamp,
    settings: &KeyRotationSettings,
    public: &PublicKids,
) -> RotationStep {
    let mut next = later(now, LONGEST_WAIT);
    let mut is_due = |at: Timestamp| {
        if at > now {
            next = next.min(at);
        }
        at <= now
    };
    for key in ring.keys() {
        let unwanted = !settings.algorithms.contains(&key.algorithm());
        match key.standing() {
            KeyStanding::Retired(since) if is_due(later(since, KeyRotationSettings::KEPT)) => {
                return RotationStep::Remove(key.kid().into());
            }
            KeyStanding::Published if unwanted => return RotationStep::Remove(key.kid().into()),
            KeyStanding::Signing(_) if unwanted => return RotationStep::Retire(key.kid().into()),
            _ => {}
        }
    }
    for &algorithm in &settings.algorithms {
        match (ring.signing(algorithm), ring.published(algorithm)) {
            (None, None) => return RotationStep::Publish(algorithm),
            (_, Some(key)) => {
                if settings.is_due_to_sign(key, ring, now) {
                    if public.has(key.kid()) {
                        return RotationStep::Sign(key.kid().into());
                    }
                } else {
                    is_due(later(key.published_at(), settings.publish_wait));
                }
            }
            (Some((_, since)), None) => {
                let ahead = settings.signing_period.saturating_sub(settings.publish_wait);
                if is_due(later(since, ahead)) && ring.count_of_kind(algorithm) < MOST_KEYS_OF_A_KIND {
                    return RotationStep::Publish(algorithm);
                }
            }
        }
    }
    RotationStep::Wait(next)
}

/// The keys that are due to sign and don't, since they are not among `public`.
pub fn held_back<'a>(
    ring: &'a KeyRing,
    now: Timestamp,
    settings: &KeyRotationSettings,
    public: &PublicKids,
) -> Vec<&'a str> {
    let waiting = settings
        .algorithms
        .iter()
        .filter_map(|algorithm| ring.published(*algorithm));
    let held = waiting.filter(|key| settings.is_due_to_sign(key, ring, now) && !public.has(key.kid()));
    held.map(RingKey::kid).collect()
}

/// True if a step should not be taken at `now`, since the clock that says so is ahead of that of the API server: other replicas and
/// relying parties would see a key sign that they don't know, or miss one whose tokens have not ended. Other steps do no harm.
pub fn is_too_early(step: &RotationStep, now: Timestamp, api_server: Timestamp) -> bool {
    matches!(step, RotationStep::Sign(_) | RotationStep::Remove(_)) && now > later(api_server, CLOCKS_DIFFER)
}

/// The conditions that an administrator should look at now.
pub fn alarms(ring: &KeyRing, now: Timestamp) -> Vec<RotationAlarm> {
    let latest = later(now, CLOCKS_DIFFER);
    let kinds = [Algorithm::RS256, Algorithm::ES256].map(|algorithm| ring.count_of_kind(algorithm));
    let near = kinds.into_iter().filter(|count| *count >= NEAR_LIMIT);
    let future = ring.keys().iter().filter(|key| key.last_written() > latest);
    near.map(RotationAlarm::NearLimit)
        .chain(future.map(|key| RotationAlarm::Future(key.kid().into())))
        .collect()
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
