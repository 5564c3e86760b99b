//! Keys over time: every token can be verified with what anybody remembers, wherever the process is killed.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use tokenscope_core::Algorithm;
use tokenscope_issuer::commands::without_leaked;
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::{
    InvalidKeyRing, InvalidRotation, KeyRing, KeyRotationSettings, KeyStanding, RingError, RotationAlarm, RotationStep,
    alarms, next_step,
};

const HOUR: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn settings() -> KeyRotationSettings {
    KeyRotationSettings::new(vec![Algorithm::ES256], hours(24), hours(24 * 30)).unwrap()
}

/// One round: what a process does that looks at the ring at a moment, through the stored text as in a Secret.
fn round(stored: &mut String, now: Timestamp, settings: &KeyRotationSettings) -> RotationStep {
    let ring = KeyRing::from_text(stored.as_bytes()).unwrap();
    let step = next_step(&ring, now, settings);
    let next = ring.after(&step, now, SigningKey::generate).unwrap();
    next.to_text().unwrap().expose_secret().clone_into(stored);
    step
}

fn empty() -> String {
    KeyRing::default().to_text().unwrap().expose_secret().to_owned()
}

fn ring(stored: &str) -> KeyRing {
    KeyRing::from_text(stored.as_bytes()).unwrap()
}

fn kids(ring: &KeyRing) -> BTreeSet<String> {
    ring.keys().iter().map(|key| key.kid().to_owned()).collect()
}

#[test]
fn the_first_key_signs_at_once_and_each_later_one_after_its_wait() {
    let (settings, mut stored) = (settings(), empty());
    assert_eq!(
        round(&mut stored, at(0), &settings),
        RotationStep::Publish(Algorithm::ES256)
    );
    assert!(matches!(round(&mut stored, at(0), &settings), RotationStep::Sign(_)));
    let first = ring(&stored).signing(Algorithm::ES256).unwrap().0.kid().to_owned();
    let publish = 29 * 24 * HOUR;
    assert_eq!(
        round(&mut stored, at(publish - 1), &settings),
        RotationStep::Wait(at(publish))
    );
    assert_eq!(
        round(&mut stored, at(publish), &settings),
        RotationStep::Publish(Algorithm::ES256)
    );
    let sign = publish + 24 * HOUR;
    assert_eq!(
        round(&mut stored, at(sign - 1), &settings),
        RotationStep::Wait(at(sign))
    );
    assert_eq!(ring(&stored).signing(Algorithm::ES256).unwrap().0.kid(), first);
    assert!(matches!(round(&mut stored, at(sign), &settings), RotationStep::Sign(_)));
    assert_ne!(ring(&stored).signing(Algorithm::ES256).unwrap().0.kid(), first);
    let remove = sign + 12 * HOUR + 600;
    assert_eq!(
        round(&mut stored, at(remove - 1), &settings),
        RotationStep::Wait(at(remove))
    );
    assert_eq!(
        round(&mut stored, at(remove), &settings),
        RotationStep::Remove(first.as_str().into())
    );
    assert_eq!(ring(&stored).keys().len(), 1);
    assert_eq!(*ring(&stored).removed(), [Box::from(first)]);
}

/// AWS may have fetched the keys up to the wait before a token, and uses it up to five minutes after its end.
#[test]
fn wherever_the_process_is_killed_every_token_verifies_with_any_key_set_that_aws_may_remember() {
    /// Somebody looks every five minutes.
    const ROUND: i64 = 5 * 60;
    let settings = KeyRotationSettings::new(vec![Algorithm::ES256], hours(2), hours(6)).unwrap();
    let rounds = 30 * 3600 / ROUND;
    // The steps until the second rotation is over; each run is killed after another number of writes, and starts again later.
    for killed_after in 0..12 {
        for down in [1, 6, 18, 60] {
            let (mut stored, mut writes, mut back_at) = (empty(), 0, 0);
            let (mut published, mut tokens) = (Vec::new(), Vec::new());
            for turn in 0..rounds {
                while turn >= back_at
                    && !matches!(round(&mut stored, at(turn * ROUND), &settings), RotationStep::Wait(_))
                {
                    writes += 1;
                    if writes == killed_after {
                        back_at = turn + down;
                    }
                }
                let now = ring(&stored);
                published.push(kids(&now));
                if let Some((key, _)) = now.signing(Algorithm::ES256) {
                    tokens.push((turn, key.kid().to_owned()));
                }
            }
            let started = tokens.first().unwrap().0;
            let signers: BTreeSet<_> = tokens.iter().map(|(_, kid)| kid).collect();
            assert!(signers.len() >= 3, "it rotated");
            for (turn, kid) in &tokens {
                // What AWS remembers is of the time before, but never of the time before there was any key.
                let from = (turn - 2 * HOUR / ROUND).max(started);
                let to = (turn + (12 * HOUR + 300) / ROUND).min(rounds - 1);
                let seen = &published[usize::try_from(from).unwrap()..=usize::try_from(to).unwrap()];
                assert!(
                    seen.iter().all(|kids| kids.contains(kid)),
                    "{killed_after} {down} {turn}"
                );
            }
        }
    }
}

#[test]
fn a_forced_rotation_waits_too_and_a_leaked_key_goes_at_once() {
    let (settings, mut stored) = (settings(), empty());
    round(&mut stored, at(0), &settings);
    round(&mut stored, at(0), &settings);
    let before = ring(&stored);
    let leaked = before.signing(Algorithm::ES256).unwrap().0.kid().to_owned();
    let forced = before
        .with_published(SigningKey::generate(Algorithm::ES256).unwrap(), at(HOUR))
        .unwrap();
    assert_eq!(
        next_step(&forced, at(2 * HOUR), &settings),
        RotationStep::Wait(at(25 * HOUR))
    );
    assert!(matches!(
        next_step(&forced, at(25 * HOUR), &settings),
        RotationStep::Sign(_)
    ));
    // The next key signs in the write that removes the one before it, since nothing else can.
    let revoked = without_leaked(&forced, &leaked, at(2 * HOUR)).unwrap();
    assert!(revoked.signing(Algorithm::ES256).is_some());
    assert!(kids(&revoked).len() == 1 && !kids(&revoked).contains(&leaked));
    assert_eq!(revoked.without("none").unwrap_err(), RingError::NoKey("none".into()));
}

#[test]
fn an_algorithm_in_place_of_another_one_waits_also_once_the_other_one_is_gone() {
    let (before, mut stored) = (settings(), empty());
    while !matches!(round(&mut stored, at(0), &before), RotationStep::Wait(_)) {}
    let other = vec![Algorithm::ES384];
    let after = KeyRotationSettings::new(other, hours(24), hours(24 * 30)).unwrap();
    let began = 48 * HOUR;
    for minutes in (0..24 * 60 - 1).step_by(10) {
        while !matches!(
            round(&mut stored, at(began + minutes * 60), &after),
            RotationStep::Wait(_)
        ) {}
        assert!(
            ring(&stored).signing(Algorithm::ES384).is_none(),
            "after {minutes} minutes"
        );
    }
    assert!(kids(&ring(&stored)).len() == 1, "the other one is gone");
    while !matches!(round(&mut stored, at(began + 24 * HOUR), &after), RotationStep::Wait(_)) {}
    assert!(ring(&stored).signing(Algorithm::ES384).is_some());
}

/// Its kid alone says what a revoked key was that somebody took out of the Secret before.
#[test]
fn where_a_leaked_key_was_taken_out_by_hand_another_one_signs_from_the_write_that_marks_it() {
    let (settings, mut stored) = (settings(), empty());
    let mut now = 0;
    let is_retired = |ring: &KeyRing| {
        ring.keys()
            .iter()
            .any(|key| matches!(key.standing(), KeyStanding::Retired(_)))
    };
    while !is_retired(&ring(&stored)) {
        round(&mut stored, at(now), &settings);
        now += HOUR;
    }
    let whole = ring(&stored);
    let leaked = whole.signing(Algorithm::ES256).unwrap().0.kid().to_owned();
    // By hand: the key is gone, and no mark says so.
    let mut text: serde_json::Value = serde_json::from_str(&stored).unwrap();
    let keys = text["keys"].as_array_mut().unwrap();
    keys.retain(|key| key["kid"] != *leaked);
    let by_hand = KeyRing::from_text(text.to_string().as_bytes()).unwrap();
    assert!(by_hand.signing(Algorithm::ES256).is_none() && is_retired(&by_hand));
    let marked = without_leaked(&by_hand, &leaked, at(now)).unwrap();
    let signs = marked.signing(Algorithm::ES256).unwrap().0;
    assert_ne!(signs.kid(), leaked);
    assert!(marked.removed().iter().any(|removed| **removed == *leaked));
}

#[test]
fn a_key_never_comes_back() {
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let pem = key.to_pem().unwrap();
    let again = || SigningKey::from_pem(pem.expose_secret()).unwrap();
    let kid = key.kid().to_owned();
    let once = KeyRing::default().with_published(key, at(0)).unwrap();
    assert_eq!(
        once.with_published(again(), at(1)).unwrap_err(),
        RingError::Known(kid.as_str().into())
    );
    let removed = once.without(&kid).unwrap();
    let stored = removed.to_text().unwrap();
    let removed = KeyRing::from_text(stored.expose_secret().as_bytes()).unwrap();
    assert_eq!(
        removed.with_published(again(), at(2)).unwrap_err(),
        RingError::Known(kid.into())
    );
}

#[test]
fn an_algorithm_that_is_not_wanted_any_more_leaves_in_order() {
    let both = KeyRotationSettings::new(vec![Algorithm::ES256, Algorithm::ES384], hours(24), hours(48)).unwrap();
    let mut stored = empty();
    while !matches!(round(&mut stored, at(0), &both), RotationStep::Wait(_)) {}
    let kid = ring(&stored).signing(Algorithm::ES384).unwrap().0.kid().to_owned();
    assert_eq!(
        round(&mut stored, at(10), &settings()),
        RotationStep::Retire(kid.as_str().into())
    );
    assert_eq!(
        round(&mut stored, at(20), &settings()),
        RotationStep::Wait(at(10 + 12 * HOUR + 600))
    );
    assert_eq!(
        round(&mut stored, at(10 + 12 * HOUR + 600), &settings()),
        RotationStep::Remove(kid.into())
    );
}

#[test]
fn a_further_algorithm_signs_only_after_its_wait() {
    let of =
        |algorithms: &[Algorithm]| KeyRotationSettings::new(algorithms.to_vec(), hours(24), hours(24 * 30)).unwrap();
    let (one, both) = (of(&[Algorithm::RS256]), of(&[Algorithm::RS256, Algorithm::ES384]));
    let mut stored = empty();
    while !matches!(round(&mut stored, at(0), &one), RotationStep::Wait(_)) {}
    let added = 24 * HOUR;
    assert_eq!(
        round(&mut stored, at(added), &both),
        RotationStep::Publish(Algorithm::ES384)
    );
    for moment in [added, added + HOUR, added + 24 * HOUR - 1] {
        assert_eq!(
            round(&mut stored, at(moment), &both),
            RotationStep::Wait(at(added + 24 * HOUR))
        );
    }
    assert!(ring(&stored).signing(Algorithm::ES384).is_none());
    assert!(matches!(
        round(&mut stored, at(added + 24 * HOUR), &both),
        RotationStep::Sign(_)
    ));
    assert!(ring(&stored).signing(Algorithm::ES384).is_some());
}

#[test]
fn several_algorithms_of_a_new_installation_sign_at_once() {
    let both = KeyRotationSettings::new(vec![Algorithm::RS256, Algorithm::ES384], hours(24), hours(48)).unwrap();
    let mut stored = empty();
    let mut second = 0;
    while !matches!(round(&mut stored, at(second), &both), RotationStep::Wait(_)) {
        second += 60;
    }
    assert!(ring(&stored).signing(Algorithm::RS256).is_some() && ring(&stored).signing(Algorithm::ES384).is_some());
}

#[test]
fn near_a_hundred_keys_there_is_an_alarm_and_at_a_hundred_no_more_are_made() {
    let mut ring = KeyRing::default();
    for count in 0..100 {
        assert_eq!(!alarms(&ring, at(0)).is_empty(), count >= 90, "{count}");
        ring = ring
            .with_published(SigningKey::generate(Algorithm::ES256).unwrap(), at(0))
            .unwrap();
    }
    assert_eq!(alarms(&ring, at(0)), [RotationAlarm::NearLimit(100)]);
    let more = ring.with_published(SigningKey::generate(Algorithm::ES384).unwrap(), at(0));
    assert_eq!(more.unwrap_err(), RingError::Full);
    assert!(
        ring.with_published(SigningKey::generate(Algorithm::RS256).unwrap(), at(0))
            .is_ok(),
        "RSA keys count apart"
    );
}

#[test]
fn a_key_that_was_published_by_a_clock_ahead_waits_for_its_time_and_is_told_of() {
    let (settings, mut stored) = (settings(), empty());
    round(&mut stored, at(0), &settings);
    round(&mut stored, at(0), &settings);
    let ahead = 400 * 24 * HOUR;
    round(&mut stored, at(ahead), &settings);
    let published = ring(&stored).published(Algorithm::ES256).unwrap().kid().to_owned();
    let told = alarms(&ring(&stored), at(60));
    assert_eq!(told, [RotationAlarm::Future(published.as_str().into())]);
    assert!(told[0].to_string().contains(&format!("`revoke-key {published}`")));
    for later in [60, 25 * HOUR, 100 * 24 * HOUR] {
        assert!(matches!(
            next_step(&ring(&stored), at(later), &settings),
            RotationStep::Wait(_)
        ));
    }
}

#[test]
fn settings_that_would_break_verification_are_refused() {
    let new = |wait, period| KeyRotationSettings::new(vec![Algorithm::ES256], wait, period);
    assert_eq!(
        new(Duration::from_secs(3599), hours(24)).unwrap_err(),
        InvalidRotation::Wait
    );
    assert_eq!(new(hours(24), hours(24)).unwrap_err(), InvalidRotation::Period);
    let none = KeyRotationSettings::new(Vec::new(), hours(24), hours(48));
    assert_eq!(none.unwrap_err(), InvalidRotation::NoAlgorithm);
}

#[test]
fn the_stored_text_is_versioned_checked_and_never_shown() {
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let pem = key.to_pem().unwrap();
    let body: String = pem.expose_secret().lines().nth(1).unwrap().chars().take(32).collect();
    let ring = KeyRing::default().with_published(key, at(0)).unwrap();
    let stored = ring.to_text().unwrap();
    assert!(!format!("{stored:?} {ring:?}").contains(&body));
    let stored = stored.expose_secret();
    assert_eq!(
        KeyRing::from_text(stored.as_bytes()).unwrap().keys()[0].standing(),
        KeyStanding::Published
    );
    let newer = stored.replace("\"version\":1", "\"version\":2");
    assert!(matches!(
        KeyRing::from_text(newer.as_bytes()),
        Err(InvalidKeyRing::Version(2))
    ));
    let other = SigningKey::generate(Algorithm::ES256).unwrap();
    for broken in [
        stored.replace("\"alg\":\"ES256\"", "\"alg\":\"ES384\""),
        stored.replace(ring.keys()[0].kid(), other.kid()),
        stored.replace("\"keys\":[", "\"keys\":[{},"),
        stored.replace("BEGIN PRIVATE", "BEGIN OTHER"),
        stored[..stored.len() - 1].to_owned(),
        String::new(),
    ] {
        let error = KeyRing::from_text(broken.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&body), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn at_any_time_a_state_leads_to_a_wait_in_a_few_steps(moments in proptest::collection::vec(0i64..2_000 * HOUR, 1..12)) {
        let (settings, mut stored) = (settings(), empty());
        for moment in moments {
            let mut steps = 0;
            while !matches!(round(&mut stored, at(moment), &settings), RotationStep::Wait(_)) {
                steps += 1;
                prop_assert!(steps < 8);
            }
            let ring = ring(&stored);
            prop_assert!(ring.signing(Algorithm::ES256).is_some());
            prop_assert!(ring.keys().len() <= 3);
        }
    }
}
