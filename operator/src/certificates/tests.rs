//! Whole lives of the certificates in simulated time: what the API server stores is two Secrets and some bundles.

use super::{
    plan::{Reason, Settings, State, Step, Trust, next_step},
    secrets::{DISTRUST, Names, ROTATE, ROTATED, Secrets, Write},
    x509::Certificate,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use std::time::Duration;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// A cluster with one webhook configuration, as it goes through time.
struct World {
    now: Timestamp,
    secrets: Secrets,
    /// The configuration's bundles, and whether somebody keeps them as the Secret has them.
    bundles: Option<Vec<Vec<u8>>>,
    bundles_are_kept: bool,
    names: Names,
    settings: Settings,
    /// What webhooks show: the serving certificate as of some seconds ago.
    shown: Option<Certificate>,
    steps: Vec<Step>,
}

impl World {
    fn new() -> Self {
        Self {
            now: "2026-11-22T08:00:00Z".parse().unwrap(),
            secrets: Secrets::default(),
            bundles: Some(vec![Vec::new(), Vec::new()]),
            bundles_are_kept: true,
            names: Names {
                authority_secret: "tokenscope-ca".into(),
                serving_secret: "tokenscope-webhook-tls".into(),
                hosts: vec!["127.0.0.1".into(), "tokenscope-webhook.tokenscope-system.svc".into()],
            },
            settings: Settings::new(
                Duration::from_secs(365 * 86400),
                Duration::from_secs(30 * 86400),
                Duration::from_secs(60),
            ),
            shown: None,
            steps: Vec::new(),
        }
    }

    fn settled() -> Self {
        let mut world = Self::new();
        world.settle();
        world.steps.clear();
        world
    }

    fn state(&self) -> State {
        self.secrets.state(&self.bundles, &self.names, self.now)
    }

    /// Takes steps until there is none, then sees that no API server would refuse what webhooks show.
    fn settle(&mut self) -> Timestamp {
        for _ in 0..20 {
            if self.bundles_are_kept
                && let (Some(bundles), Some(wanted)) = (&mut self.bundles, self.secrets.bundle(self.now))
            {
                bundles.fill(wanted);
            }
            let step = next_step(&self.state(), self.now, &self.settings);
            if let Step::Wait(until) = step {
                assert!(until > self.now, "waiting takes time");
                return until;
            }
            self.steps.push(step);
            let write = self
                .secrets
                .perform(step, &self.bundles, &self.names, &self.settings, self.now)
                .unwrap();
            match write.expect("a step that is no wait writes") {
                Write::Authority(secret) => self.secrets.authority = Some(secret),
                Write::Serving(secret) => self.secrets.serving = Some(secret),
            }
        }
        panic!("no end of steps: {:?}", self.steps);
    }

    /// Lets time pass in steps of at least five seconds, within which webhooks take up their certificate.
    fn pass(&mut self, duration: SignedDuration) {
        let end = self.now + duration;
        while self.now < end {
            let until = self.settle().min(end);
            // Over months it is late for every wait, which must do no harm either.
            let least = (duration / 500).max(SignedDuration::from_secs(5));
            self.now += self.now.duration_until(until).max(least);
            let latest = self.serving();
            if let (Some(shown), Some(bundles)) = (&self.shown, &self.bundles) {
                for bundle in bundles {
                    let (trusted, _) = Certificate::all_in(bundle);
                    assert!(
                        trusted.iter().any(|authority| authority.signed(shown, self.now)),
                        "at {} webhooks show what an API server doesn't trust",
                        self.now
                    );
                }
            }
            self.shown = latest;
        }
        self.settle();
    }

    fn serving(&self) -> Option<Certificate> {
        Certificate::all_in(self.data("serving", "tls.crt"))
            .0
            .into_iter()
            .next()
    }

    fn authorities(&self) -> Vec<Certificate> {
        Certificate::all_in(self.data("authority", "ca.crt")).0
    }

    fn data(&self, which: &str, key: &str) -> &[u8] {
        let secret = if which == "authority" {
            &self.secrets.authority
        } else {
            &self.secrets.serving
        };
        secret
            .as_ref()
            .and_then(|secret| secret.data.as_ref()?.get(key))
            .map_or(&[], |value| &value.0)
    }

    fn damage(&mut self, which: &str, key: &str, value: &[u8]) {
        let data = self.secret(which).data.as_mut().unwrap();
        data.insert(key.into(), ByteString(value.to_vec()));
    }

    fn annotate(&mut self, which: &str, value: &str) {
        self.annotate_with(which, ROTATE, value);
    }

    fn annotate_with(&mut self, which: &str, key: &str, value: &str) {
        let annotations = self.secret(which).metadata.annotations.get_or_insert_default();
        annotations.insert(key.into(), value.into());
    }

    fn secret(&mut self, which: &str) -> &mut Secret {
        let secret = if which == "authority" {
            &mut self.secrets.authority
        } else {
            &mut self.secrets.serving
        };
        secret.as_mut().unwrap()
    }
}

#[test]
fn an_empty_cluster_gets_an_authority_and_a_certificate_at_once() {
    let mut world = World::new();
    world.settle();
    assert_eq!(
        world.steps,
        [
            Step::CreateAuthority(Reason::Missing),
            Step::SignServing(Reason::Missing)
        ]
    );

    let state = world.state();
    assert_eq!(state.trust, Trust::Confirmed);
    let serving = state.serving.unwrap();
    assert!(serving.by_authority && serving.names_fit);
    assert_eq!(serving.validity.not_after, world.now + 30 * DAY);
    assert_eq!(state.authority.unwrap().not_after, world.now + 365 * DAY);
    assert_eq!(world.data("serving", "ca.crt"), world.data("authority", "tls.crt"));
    assert!(world.serving().unwrap().names_exactly(&world.names.hosts));
}

#[test]
fn a_settled_cluster_is_left_alone() {
    let mut world = World::settled();
    world.pass(HOUR);
    assert_eq!(world.steps, []);
}

#[test]
fn certificates_are_replaced_at_two_thirds_of_their_life_for_years_and_always_trusted() {
    let mut world = World::settled();
    let first = world.authorities();
    world.pass(19 * DAY);
    assert_eq!(world.steps, []);
    world.pass(2 * DAY);
    assert_eq!(world.steps, [Step::SignServing(Reason::Due)]);

    world.pass(221 * DAY);
    assert_eq!(world.authorities(), first, "two thirds of a year are not over");
    world.steps.clear();
    world.pass(3 * DAY);
    let rotation = [
        Step::CreateAuthority(Reason::Due),
        Step::CopyBundle,
        Step::NoteTrust,
        Step::SignServing(Reason::NewAuthority),
        Step::DropOthers,
        Step::CopyBundle,
    ];
    let began = world
        .steps
        .iter()
        .position(|step| *step == rotation[0])
        .expect("a rotation");
    assert_eq!(world.steps[began..began + rotation.len()], rotation);
    world.pass(400 * DAY);
    assert_eq!(world.authorities().len(), 1);
}

#[test]
fn a_rotation_waits_until_the_configuration_trusts_and_then_twice_for_the_overlap() {
    let mut world = World::settled();
    let old = world.authorities();
    world.bundles_are_kept = false;
    world.annotate("authority", "now");
    world.pass(HOUR);
    assert_eq!(
        world.steps,
        [Step::CreateAuthority(Reason::Requested), Step::CopyBundle]
    );
    assert_eq!(world.authorities()[1], old[0], "the old one is still trusted");
    assert!(old[0].signed(&world.serving().unwrap(), world.now), "and in use");

    world.steps.clear();
    world.bundles_are_kept = true;
    world.settle();
    assert_eq!(world.steps, [Step::NoteTrust]);
    world.pass(OVERLAP - SignedDuration::from_secs(5));
    assert_eq!(world.steps.len(), 1, "API servers need a moment to notice");
    world.pass(SignedDuration::from_secs(10));
    assert_eq!(world.steps[1..], [Step::SignServing(Reason::NewAuthority)]);
    assert_eq!(world.authorities().len(), 2, "webhooks need a moment to take it up");
    world.pass(OVERLAP);
    assert_eq!(world.steps[2..], [Step::DropOthers, Step::CopyBundle]);
    assert!(!world.authorities().contains(&old[0]));
}

#[test]
fn a_rotation_is_asked_for_once_by_each_new_value() {
    let mut world = World::settled();
    world.annotate("serving", "a");
    world.pass(HOUR);
    assert_eq!(world.steps, [Step::SignServing(Reason::Requested)]);
    let annotations = world.secret("serving").metadata.annotations.clone().unwrap();
    assert_eq!(annotations[ROTATED], "a");

    world.steps.clear();
    world.annotate("authority", "a");
    world.pass(HOUR);
    world.annotate("authority", "b");
    world.pass(HOUR);
    let created = world
        .steps
        .iter()
        .filter(|step| matches!(step, Step::CreateAuthority(_)));
    assert_eq!(created.count(), 2);
    world.annotate("authority", "");
    world.steps.clear();
    world.pass(HOUR);
    assert_eq!(world.steps, [], "an empty value asks for nothing");
}

#[test]
fn a_distrusted_authority_is_gone_at_once_even_in_the_middle_of_a_rotation() {
    for rotating in [false, true] {
        let mut world = World::settled();
        world.pass(HOUR);
        if rotating {
            world.annotate("authority", "now");
            world.settle();
            assert_eq!(world.authorities().len(), 2);
        }
        let old = world.authorities();
        world.steps.clear();
        world.annotate_with("authority", DISTRUST, "leaked");
        world.settle();

        assert_eq!(
            world.steps,
            [
                Step::CreateAuthority(Reason::Distrusted),
                Step::SignServing(Reason::NotTrusted)
            ]
        );
        assert_eq!(world.authorities().len(), 1);
        assert!(!old.contains(&world.authorities()[0]));
        assert_eq!(world.data("serving", "ca.crt"), world.data("authority", "tls.crt"));
        world.shown = None;
        world.steps.clear();
        world.pass(HOUR);
        assert_eq!(world.steps, [], "it is asked for once by each value");
    }
}

#[test]
fn a_deleted_authority_is_made_anew_beside_the_old_one_that_is_still_known() {
    let mut world = World::settled();
    world.pass(HOUR);
    let old = world.authorities();
    world.secrets.authority = None;
    world.settle();
    assert_eq!(world.steps[0], Step::CreateAuthority(Reason::Missing));
    assert_eq!(world.authorities().len(), 2);
    assert_eq!(world.authorities()[1], old[0]);
    world.pass(HOUR);
    assert_eq!(world.authorities().len(), 1);
    assert_ne!(world.authorities(), old);
}

#[test]
fn two_deleted_secrets_are_made_anew_and_what_webhooks_still_show_stays_trusted() {
    let mut world = World::settled();
    world.pass(HOUR);
    world.secrets = Secrets::default();
    world.pass(HOUR);
    assert_eq!(world.steps[0], Step::CreateAuthority(Reason::Missing));
    assert_eq!(world.authorities().len(), 1);
}

#[test]
fn a_deleted_serving_certificate_is_signed_again_by_the_same_authority() {
    let mut world = World::settled();
    let authorities = world.authorities();
    world.secrets.serving = None;
    world.settle();
    assert_eq!(world.steps, [Step::SignServing(Reason::Missing)]);
    assert_eq!(world.authorities(), authorities);
}

#[test]
fn whatever_is_damaged_is_healed() {
    let (other_key, other_certificate) = {
        let other = World::settled();
        (
            other.data("serving", "tls.key").to_vec(),
            other.data("serving", "tls.crt").to_vec(),
        )
    };
    let foreign_authority = World::settled().data("authority", "tls.crt").to_vec();
    let cases: [(&str, &str, &[u8], Step); 11] = [
        ("authority", "tls.key", b"", Step::CreateAuthority(Reason::Unreadable)),
        (
            "authority",
            "tls.key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            Step::CreateAuthority(Reason::Unreadable),
        ),
        (
            "authority",
            "tls.key",
            &other_key,
            Step::CreateAuthority(Reason::KeyMismatch),
        ),
        (
            "authority",
            "tls.crt",
            b"\xff\x00",
            Step::CreateAuthority(Reason::Unreadable),
        ),
        ("authority", "ca.crt", b"", Step::RepairBundle),
        (
            "authority",
            "ca.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            Step::RepairBundle,
        ),
        ("authority", "ca.crt", &foreign_authority, Step::RepairBundle),
        ("serving", "tls.key", b"?", Step::SignServing(Reason::Unreadable)),
        ("serving", "tls.crt", b"", Step::SignServing(Reason::Unreadable)),
        (
            "serving",
            "tls.crt",
            &other_certificate,
            Step::SignServing(Reason::KeyMismatch),
        ),
        ("serving", "ca.crt", b"", Step::CopyBundle),
    ];
    for (which, key, value, first) in cases {
        let mut world = World::settled();
        world.pass(HOUR);
        world.damage(which, key, value);
        world.settle();
        assert_eq!(world.steps.first(), Some(&first), "{which} {key}");
        world.pass(HOUR);
        assert_eq!(world.authorities().len(), 1, "{which} {key}");
        assert!(world.state().serving.unwrap().by_authority, "{which} {key}");
    }
}

#[test]
fn a_pair_of_another_authority_is_not_served() {
    let mut world = World::settled();
    let other = World::settled();
    world.damage("serving", "tls.crt", other.data("serving", "tls.crt"));
    world.damage("serving", "tls.key", other.data("serving", "tls.key"));
    world.settle();
    assert_eq!(world.steps, [Step::SignServing(Reason::NotTrusted)]);
}

#[test]
fn other_names_make_another_certificate() {
    let mut world = World::settled();
    world.names.hosts.push("webhook.example".into());
    world.settle();
    assert_eq!(world.steps, [Step::SignServing(Reason::OtherNames)]);
}

#[test]
fn after_a_long_sleep_everything_is_made_anew() {
    let mut world = World::settled();
    world.now += 1000 * DAY;
    world.settle();
    assert_eq!(world.steps[0], Step::CreateAuthority(Reason::NotValidNow));
    assert_eq!(world.authorities().len(), 1, "what has expired is not trusted");
}

#[test]
fn a_serving_certificate_does_not_outlive_its_authority() {
    let mut world = World::new();
    world.settings = Settings::new(
        Duration::from_secs(3600),
        Duration::from_secs(86400),
        Duration::from_secs(60),
    );
    world.settle();
    let state = world.state();
    assert_eq!(
        state.serving.unwrap().validity.not_after,
        state.authority.unwrap().not_after
    );
    world.pass(5 * HOUR);
    let created = world
        .steps
        .iter()
        .filter(|step| matches!(step, Step::CreateAuthority(Reason::Due)));
    assert!(created.count() >= 6, "every forty minutes: {:?}", world.steps);
}

#[test]
fn without_a_configuration_there_is_nobody_to_wait_for() {
    let mut world = World::settled();
    world.bundles = None;
    world.annotate("authority", "now");
    world.pass(HOUR);
    assert_eq!(world.authorities().len(), 1);
    assert!(world.steps.contains(&Step::DropOthers));
}

#[test]
fn an_overlap_that_is_too_long_for_the_authority_is_cut() {
    let long = Settings::new(
        Duration::from_secs(900),
        Duration::from_secs(900),
        Duration::from_secs(86400),
    );
    assert_eq!(
        long,
        Settings::new(
            Duration::from_secs(900),
            Duration::from_secs(900),
            Duration::from_secs(100)
        )
    );
}

#[test]
fn no_key_is_in_what_is_shown() {
    let world = World::settled();
    let key = String::from_utf8(world.data("authority", "tls.key").to_vec()).unwrap();
    let shown = format!("{:?} {:?}", world.state(), world.serving());
    assert!(!shown.contains("PRIVATE") && !shown.contains(&key[40..60]));
}
