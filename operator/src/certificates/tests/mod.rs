//! Whole lives of the certificates in simulated time: what the API server stores is two Secrets and some bundles.

mod constraint;
mod distrust;
mod healing;
mod issuer;
mod life;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use tokenscope_platform::certificate::Certificate;

use super::memory::Secrets;
use super::names::{DISTRUST, Names, ROTATE, ROTATED, Trusting};
use super::plan::{CertificateState, CertificateStep, Constraint, IssueReason, RotationSettings, Trust, next_step};
use super::secret::Write;
use super::x509::signed_by;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);

/// A cluster with one webhook configuration, as it goes through time.
struct SimulatedCluster {
    now: Timestamp,
    secrets: Secrets,
    /// The configuration's bundles, and whether somebody keeps them as the Secret has them.
    bundles: Option<Vec<Vec<u8>>>,
    bundles_are_kept: bool,
    names: Names,
    settings: RotationSettings,
    /// What webhooks show: the serving certificate as of some seconds ago.
    shown: Option<Certificate>,
    steps: Vec<CertificateStep>,
}

impl SimulatedCluster {
    fn new() -> Self {
        Self {
            now: "2026-11-22T08:00:00Z".parse().unwrap(),
            secrets: Secrets::default(),
            bundles: Some(vec![Vec::new(), Vec::new()]),
            bundles_are_kept: true,
            names: Names {
                trusting: Trusting::ApiServers,
                authority_secret: "tokenscope-ca".into(),
                serving_secret: "tokenscope-webhook-tls".into(),
                hosts: vec!["127.0.0.1".into(), "tokenscope-webhook.tokenscope-system.svc".into()],
            },
            settings: RotationSettings::new(
                Duration::from_secs(365 * 86400),
                Duration::from_secs(30 * 86400),
                Duration::from_secs(60),
            ),
            shown: None,
            steps: Vec::new(),
        }
    }

    fn settled() -> Self {
        let mut cluster = Self::new();
        cluster.settle();
        cluster.steps.clear();
        cluster
    }

    fn state(&self) -> CertificateState {
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
            if let CertificateStep::Wait(until) = step {
                assert!(until > self.now, "waiting takes time");
                return until;
            }
            self.steps.push(step);
            let write = self
                .secrets
                .perform(step, &self.bundles, &self.names, &self.settings, self.now)
                .unwrap();
            match write.expect("a step that is no wait writes") {
                Write::Authority(secret) | Write::RestoredAuthority(secret) => self.secrets.authority = Some(secret),
                Write::Serving(secret) => self.secrets.serving = Some(secret),
            }
            self.secrets.learn();
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
                        trusted.iter().any(|authority| signed_by(authority, shown, self.now)),
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
