//! The keys of the issuer over time: published, waited for, signing, retired, removed.
//!
//! AWS fetches an issuer's keys when it likes and says nowhere how long it remembers them. So a key is published long before it
//! signs, and stays published until the last token that it signed has ended. Every [`RotationStep`] is one write of the
//! [`KeyRing`]: whoever is killed between two of them leaves a state from which [`next_step`] goes on.

mod ring;
mod stored;

use std::time::Duration;

use jiff::Timestamp;
use tokenscope_core::Algorithm;

use crate::keys::MOST_KEYS_OF_A_KIND;
pub use ring::{KeyRing, KeyStanding, RingError, RingKey};
pub use stored::{ENTRY, InvalidKeyRing};

/// How long keys wait and sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotationSettings {
    /// The algorithms that there is always a signing key of.
    algorithms: Vec<Algorithm>,
    publish_wait: Duration,
    signing_period: Duration,
    longest_token: Duration,
    leeway: Duration,
}

/// Why settings can't be used.
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
    /// How long after its end AWS still takes a token (IAM User Guide, "OIDC federation": five minutes), and as much again for
    /// replicas that have not read the latest keys yet.
    pub const LEEWAY: Duration = Duration::from_secs(10 * 60);

    /// Checks the bounds. `longest_token` is the longest lifetime of a token.
    pub fn new(
        algorithms: Vec<Algorithm>,
        publish_wait: Duration,
        signing_period: Duration,
        longest_token: Duration,
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
            longest_token,
            leeway: Self::LEEWAY,
        })
    }
}

/// What is to be done to the keys next: one write each.
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
    /// Nothing before then.
    Wait(Timestamp),
}

/// What somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationAlarm {
    /// There are nearly as many keys as AWS takes.
    #[error(
        "{0} keys of one kind are published, and AWS takes {MOST_KEYS_OF_A_KIND}: remove those that are not needed"
    )]
    NearLimit(usize),
    /// A key's times are in the future, so a clock was or is wrong.
    #[error("key {0} was written at a time that is still to come: check the clocks; `rotate` makes another key")]
    Future(Box<str>),
}

/// From how many keys of a kind on there is an alarm.
const NEAR_LIMIT: usize = MOST_KEYS_OF_A_KIND - 10;
/// How far in the future a time may be without an alarm: clocks of nodes differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5 * 60);
/// How long until somebody looks again where nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What to do next.
///
/// A key whose times are in the future, because a clock was wrong, waits for them; nothing signs early by that.
pub fn next_step(ring: &KeyRing, now: Timestamp, settings: &KeyRotationSettings) -> RotationStep {
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
            KeyStanding::Retired(since) if is_due(later(since, settings.longest_token + settings.leeway)) => {
                return RotationStep::Remove(key.kid().into());
            }
            KeyStanding::Published if unwanted => return RotationStep::Remove(key.kid().into()),
            KeyStanding::Signing(_) if unwanted => return RotationStep::Retire(key.kid().into()),
            _ => {}
        }
    }
    for &algorithm in &settings.algorithms {
        let published = ring.published(algorithm);
        match (ring.signing(algorithm), published) {
            // Nothing was ever signed that somebody could have keys for, or what there was is lost: waiting helps nobody.
            (None, Some(key)) => return RotationStep::Sign(key.kid().into()),
            (None, None) => return RotationStep::Publish(algorithm),
            (Some(_), Some(key)) => {
                if is_due(later(key.published_at(), settings.publish_wait)) {
                    return RotationStep::Sign(key.kid().into());
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

/// What somebody should look at now.
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
