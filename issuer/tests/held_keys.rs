//! Keys that sign only once they can be read at the issuer's public URL.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod one_secret;
mod site;

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use tokenscope_core::Algorithm;
use tokenscope_fixtures::until;
use tokenscope_issuer::document_source::{DocumentSource, authorities};
use tokenscope_issuer::events::events;
use tokenscope_issuer::key_keeper::KeyKeeper;
use tokenscope_issuer::key_source::{KeySource, StoredKeys};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::metrics::IssuerMetrics;
use tokenscope_issuer::public_keys::PublicKeys;
use tokenscope_issuer::rotation::{
    KeyRing, KeyRotationSettings, PublicKids, RotationStep, held_back, next_step, next_step_if_public,
};
use tokenscope_issuer::signers::{CurrentSigners, Signers};
use tokenscope_platform::health::Gates;
use tokenscope_platform::lease::Claim;
use tokenscope_platform::metrics::Registry;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::one_secret::{Stored, api_server, secret};
use crate::site::Site;

const URL: &str = "https://issuer.example.com/a";
const HOUR: Duration = Duration::from_secs(3600);

fn settings(algorithms: &[Algorithm]) -> KeyRotationSettings {
    KeyRotationSettings::new(algorithms.to_vec(), HOUR, 48 * HOUR).unwrap()
}

fn generated(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).unwrap()
}

/// A key of ES256 that has signed for three hours, and the next one, which was published two hours ago and is due.
fn ring_with_one_due(now: Timestamp) -> KeyRing {
    let ago = |hours| now - SignedDuration::from_hours(hours);
    let ring = KeyRing::of_signing_keys([generated(Algorithm::ES256)], ago(3)).unwrap();
    ring.with_published(generated(Algorithm::ES256), ago(2)).unwrap()
}

/// What was published before the rotation: the first key alone.
fn put_documents_of_before(site: &Site, ring: &KeyRing) {
    let pem = ring.keys()[0].key().to_pem().unwrap();
    let first = SigningKey::from_pem(pem.expose_secret()).unwrap();
    let ring = KeyRing::of_signing_keys([first], Timestamp::now()).unwrap();
    site.put_documents("/a", &Signers::new(ring, &URL.parse().unwrap()));
}

fn read(ring: &KeyRing) -> PublicKids {
    PublicKids::Read(ring.keys().iter().map(|key| key.kid().into()).collect())
}

/// The replica that leads, which looks every ten milliseconds at the Secret and at what the site says.
struct Leader {
    signers: CurrentSigners,
    metrics: IssuerMetrics,
    _stop: DropGuard,
}

impl Leader {
    fn start(stored: &Stored, site: &Site) -> Self {
        let issuer = URL.parse().unwrap();
        let authorities = authorities(site.authority.as_bytes()).unwrap();
        let source = DocumentSource::new(URL.parse().unwrap(), site.origin().parse().unwrap(), authorities);
        let (claims, claim) = watch::channel(Claim {
            held_until: Some(Instant::now() + 600 * HOUR),
        });
        let metrics = IssuerMetrics::new(&Registry::new());
        let (events, _) = events(api_server(stored), "issuer-0", Timestamp::now, metrics.clone());
        let stop = CancellationToken::new();
        let this = Self {
            signers: CurrentSigners::default(),
            metrics: metrics.clone(),
            _stop: stop.clone().drop_guard(),
        };
        let keeper = KeyKeeper {
            source: KeySource::Secret(Box::new(secret(stored))),
            claim,
            settings: settings(&[Algorithm::ES256]),
            public: Some(PublicKeys::at(source.unwrap(), Duration::from_millis(10))),
            issuer,
            x5c: false,
            signers: this.signers.clone(),
            gate: Gates::default().gate("keys"),
            metrics,
            events: events.of_keys(),
            period: Duration::from_millis(10),
            longest_unread: Duration::from_secs(60),
            clock: Timestamp::now,
        };
        tokio::spawn(async move {
            let _claims = claims;
            keeper.run(stop).await
        });
        this
    }

    fn signing(&self) -> Option<String> {
        let signers = self.signers.load();
        Some(signers.as_ref()?.signer(Algorithm::ES256)?.kid().to_owned())
    }

    /// What is to be published now.
    fn publish(&self, site: &Site) {
        let signers = self.signers.load();
        site.put_documents("/a", signers.as_ref().unwrap());
    }
}

/// At least `looks` more answers of the site.
async fn asked_again(site: &Site, looks: usize) {
    let before = site.asked();
    until(|| site.asked() >= before + looks).await;
}

#[tokio::test]
async fn a_key_that_is_due_signs_once_the_public_key_set_has_it_and_the_one_before_it_signs_meanwhile() {
    let (stored, site) = (Stored::default(), Site::start("held").await);
    let ring = ring_with_one_due(Timestamp::now());
    let (before, next) = (ring.keys()[0].kid().to_owned(), ring.keys()[1].kid().to_owned());
    put_documents_of_before(&site, &ring);
    let keys = StoredKeys { ring, version: None };
    secret(&stored).write(&keys).await.unwrap();

    let leader = Leader::start(&stored, &site);
    until(|| leader.metrics.keys_held_back.get() == 1).await;
    asked_again(&site, 6).await;
    assert_eq!(leader.signing().as_ref(), Some(&before));
    leader.publish(&site);
    until(|| leader.signing().as_ref() == Some(&next)).await;
    until(|| leader.metrics.keys_held_back.get() == 0).await;
}

/// Each of these is as good as no key set.
#[tokio::test]
async fn a_public_url_that_fails_redirects_or_is_another_issuers_holds_a_due_key_back() {
    let (stored, site) = (Stored::default(), Site::start("held-by-errors").await);
    let ring = ring_with_one_due(Timestamp::now());
    let (before, next) = (ring.keys()[0].kid().to_owned(), ring.keys()[1].kid().to_owned());
    let keys = StoredKeys {
        ring: ring.clone(),
        version: None,
    };
    secret(&stored).write(&keys).await.unwrap();
    let leader = Leader::start(&stored, &site);
    until(|| leader.signing().is_some() && leader.metrics.keys_held_back.get() == 1).await;
    for (path, answer) in [
        ("/a/keys", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        (
            "/a/keys",
            "HTTP/1.1 302 Found\r\nlocation: /a/keys\r\ncontent-length: 0\r\n\r\n",
        ),
        ("/a/keys", "HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n{"),
        (
            "/a/.well-known/openid-configuration",
            "HTTP/1.1 200 OK\r\n\r\n{\"issuer\":\"https://b.example\",\"jwks_uri\":\"https://b/k\"}",
        ),
    ] {
        put_documents_of_before(&site, &ring);
        site.put_raw(path, answer);
        asked_again(&site, 3).await;
        assert_eq!(
            (leader.signing().as_ref(), leader.metrics.keys_held_back.get()),
            (Some(&before), 1)
        );
    }
    leader.publish(&site);
    until(|| leader.signing().as_ref() == Some(&next)).await;
}

#[tokio::test]
async fn the_first_key_of_an_installation_waits_for_its_publication_too_and_is_served_meanwhile() {
    let (stored, site) = (Stored::default(), Site::start("held-first").await);
    let leader = Leader::start(&stored, &site);
    until(|| leader.metrics.keys_held_back.get() == 1).await;
    asked_again(&site, 3).await;
    assert_eq!(leader.signing(), None);
    leader.publish(&site);
    until(|| leader.signing().is_some()).await;
}

#[test]
fn a_key_that_is_held_back_keeps_no_other_key_from_its_step() {
    let now = Timestamp::now();
    let both = settings(&[Algorithm::ES256, Algorithm::ES384]);
    let ring = ring_with_one_due(now);
    let due: Box<str> = ring.keys()[1].kid().into();
    assert_eq!(
        next_step(&ring, now, &both),
        RotationStep::Sign(due.clone()),
        "without a look there nothing waits"
    );
    for public in [PublicKids::Unknown, PublicKids::Read([].into())] {
        let step = next_step_if_public(&ring, now, &both, &public);
        assert_eq!(step, RotationStep::Publish(Algorithm::ES384));
        assert_eq!(held_back(&ring, now, &both, &public), [&*due]);
        let more = ring.after(&step, now, SigningKey::generate).unwrap();
        assert!(matches!(
            next_step_if_public(&more, now, &both, &public),
            RotationStep::Wait(_)
        ));
    }
    let step = next_step_if_public(&ring, now, &both, &read(&ring));
    assert_eq!(step, RotationStep::Sign(due));
    assert_eq!(held_back(&ring, now, &both, &read(&ring)), [""; 0]);
}

#[test]
fn that_a_key_is_public_shortens_no_wait() {
    let now = Timestamp::now();
    let one = settings(&[Algorithm::ES256]);
    let ring = KeyRing::of_signing_keys([generated(Algorithm::ES256)], now - SignedDuration::from_hours(3)).unwrap();
    let ring = ring.with_published(generated(Algorithm::ES256), now).unwrap();
    let step = next_step_if_public(&ring, now, &one, &read(&ring));
    assert_eq!(step, RotationStep::Wait(now + SignedDuration::from_hours(1)));
    assert_eq!(
        held_back(&ring, now, &one, &PublicKids::Unknown),
        [""; 0],
        "its time has not come"
    );
}
