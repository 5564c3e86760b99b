//! Keys in a Secret that several replicas read, and in a file.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;
mod one_secret;

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_fixtures::until;
use tokenscope_issuer::age::AgeError;
use tokenscope_issuer::commands::marked_as_removed;
use tokenscope_issuer::events::events;
use tokenscope_issuer::key_keeper::KeyKeeper;
use tokenscope_issuer::key_source::{KeyFile, KeySource, KeySourceError};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::metrics::IssuerMetrics;
use tokenscope_issuer::rotation::{KeyRing, KeyRotationSettings, RingKey};
use tokenscope_issuer::signers::CurrentSigners;
use tokenscope_platform::events::EventWriter;
use tokenscope_platform::health::Gates;
use tokenscope_platform::lease::Claim;
use tokenscope_platform::metrics::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::one_secret::{Stored, api_server, secret};

/// A replica that looks every ten milliseconds.
fn replica(source: KeySource, leads: bool, stop: &CancellationToken) -> CurrentSigners {
    observed(source, leads, stop).signers
}

/// A replica, with what it counts and the Events that it would write.
struct ObservedReplica {
    signers: CurrentSigners,
    metrics: IssuerMetrics,
    told: EventWriter,
    task: JoinHandle<Result<(), Infallible>>,
}

fn observed(source: KeySource, leads: bool, stop: &CancellationToken) -> ObservedReplica {
    // Longer than any machine stalls.
    reading(source, leads, stop, Duration::from_secs(3600))
}

/// The same, which signs no more with keys that it has not read for this time.
fn reading(source: KeySource, leads: bool, stop: &CancellationToken, longest_unread: Duration) -> ObservedReplica {
    let held_until = leads.then(|| Instant::now() + Duration::from_secs(600));
    let (claims, claim) = watch::channel(Claim { held_until });
    let signers = CurrentSigners::default();
    let hour = Duration::from_secs(3600);
    let metrics = IssuerMetrics::new(&Registry::new());
    let (events, told) = events(
        api_server(&Stored::default()),
        "issuer-0",
        Timestamp::now,
        metrics.clone(),
    );
    let algorithms = vec![Algorithm::ES256, Algorithm::ES384];
    let keeper = KeyKeeper {
        source,
        claim,
        settings: KeyRotationSettings::new(algorithms, hour, 48 * hour).unwrap(),
        public: None,
        issuer: "https://issuer.example.com".parse().unwrap(),
        x5c: false,
        signers: signers.clone(),
        gate: Gates::default().gate("keys"),
        metrics: metrics.clone(),
        events: events.of_keys(),
        period: Duration::from_millis(10),
        longest_unread,
        clock: Timestamp::now,
    };
    let stop = stop.clone();
    let task = tokio::spawn(async move {
        let _claims = claims;
        keeper.run(stop).await
    });
    ObservedReplica {
        signers,
        metrics,
        told,
        task,
    }
}

fn signing(signers: &CurrentSigners) -> Option<String> {
    let signers = signers.load();
    Some(signers.as_ref()?.signer(Algorithm::ES256)?.kid().to_owned())
}

#[tokio::test]
async fn the_leader_makes_the_keys_and_all_replicas_sign_with_them() {
    let (stored, stop) = (Stored::default(), CancellationToken::new());
    let source = || KeySource::Secret(Box::new(secret(&stored)));
    let followers = [replica(source(), false, &stop), replica(source(), false, &stop)];
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(stored.lock().unwrap().is_none(), "who does not lead writes nothing");
    let leader = replica(source(), true, &stop);
    until(|| signing(&leader).is_some() && followers.iter().all(|follower| signing(follower) == signing(&leader)))
        .await;
    let before = signing(&leader);
    // Deleted by somebody: what is in use stays, and comes back.
    *stored.lock().unwrap() = None;
    until(|| stored.lock().unwrap().is_some()).await;
    assert!(
        followers
            .iter()
            .chain([&leader])
            .all(|replica| signing(replica) == before)
    );
    // Damaged by somebody: it is not overwritten, and what was read before stays in use for a while.
    let damaged = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "resourceVersion": "99"},
        "data": {"keyring.json": "e30="}});
    *stored.lock().unwrap() = Some(damaged.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*stored.lock().unwrap(), Some(damaged));
    assert_eq!(signing(&leader), before);
    stop.cancel();
}

#[tokio::test]
async fn keys_that_cant_be_read_any_more_stop_signing_and_stay_published_until_they_can() {
    let (stored, stop) = (Stored::default(), CancellationToken::new());
    let source = KeySource::Secret(Box::new(secret(&stored)));
    let signers = reading(source, true, &stop, Duration::from_millis(500)).signers;
    until(|| signing(&signers).is_some()).await;
    let (before, whole) = (signing(&signers), stored.lock().unwrap().clone());
    let published = signers.load().as_ref().unwrap().keys.text.clone();
    let mut damaged = whole.clone().unwrap();
    damaged["data"]["keyring.json"] = json!("e30=");
    *stored.lock().unwrap() = Some(damaged);
    until(|| signing(&signers).is_none()).await;
    assert_eq!(signers.load().as_ref().unwrap().keys.text, published);
    *stored.lock().unwrap() = whole;
    until(|| signing(&signers) == before).await;
    stop.cancel();
}

#[tokio::test]
async fn a_key_that_was_removed_comes_back_by_no_backup_and_by_no_deletion() {
    let (stored, stop) = (Stored::default(), CancellationToken::new());
    let source = || KeySource::Secret(Box::new(secret(&stored)));
    let (leader, follower) = (replica(source(), true, &stop), replica(source(), false, &stop));
    until(|| signing(&leader).is_some() && signing(&follower) == signing(&leader)).await;
    let leaked = signing(&leader).unwrap();
    let backup = stored.lock().unwrap().clone();
    secret(&stored).change(|ring| ring.without(&leaked)).await.unwrap();
    let is_gone = |signers: &CurrentSigners| {
        let signers = signers.load();
        let signers = signers.as_ref().unwrap();
        !String::from_utf8_lossy(&signers.keys.text).contains(&leaked) && signers.signer(Algorithm::ES256).is_some()
    };
    until(|| is_gone(&leader) && is_gone(&follower)).await;
    let after = signing(&leader);
    for restored in [backup.clone(), None, backup] {
        *stored.lock().unwrap() = restored.map(|mut secret| {
            secret["metadata"]["resourceVersion"] = json!("1000");
            secret
        });
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(is_gone(&leader) && is_gone(&follower));
        }
        let remembers = async {
            loop {
                let keys = source().read(Timestamp::now()).await.unwrap();
                if keys.ring.removed().iter().any(|kid| **kid == *leaked) {
                    break keys;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // The Secret remembers it again.
        let keys = tokio::time::timeout(Duration::from_secs(60), remembers).await.unwrap();
        assert!(keys.ring.keys().iter().all(|key| key.kid() != leaked));
    }
    assert!(after.is_some());
    stop.cancel();
}

/// Takes a key out of the Secret as somebody with an editor does.
fn take_out_by_hand(stored: &Stored, kid: &str) {
    let mut stored = stored.lock().unwrap();
    let secret = stored.as_mut().unwrap();
    let text = STANDARD
        .decode(secret["data"]["keyring.json"].as_str().unwrap())
        .unwrap();
    let mut ring: Value = serde_json::from_slice(&text).unwrap();
    ring["keys"].as_array_mut().unwrap().retain(|key| key["kid"] != kid);
    secret["data"]["keyring.json"] = json!(STANDARD.encode(ring.to_string()));
    secret["metadata"]["resourceVersion"] = json!("1000");
}

#[tokio::test]
async fn a_key_that_is_taken_out_by_hand_is_put_back_and_told_of_and_revoke_key_removes_it_for_good() {
    let (stored, stop) = (Stored::default(), CancellationToken::new());
    let source = || KeySource::Secret(Box::new(secret(&stored)));
    let ObservedReplica {
        signers: leader,
        metrics,
        told,
        ..
    } = observed(source(), true, &stop);
    let ObservedReplica {
        signers: follower,
        told: nothing_told,
        ..
    } = observed(source(), false, &stop);
    until(|| signing(&leader).is_some() && signing(&follower) == signing(&leader)).await;
    let kid = signing(&leader).unwrap();

    take_out_by_hand(&stored, &kid);
    until(|| metrics.keys_restored.get() == 1).await;
    let keys = source().read(Timestamp::now()).await.unwrap();
    assert!(keys.ring.keys().iter().any(|key| key.kid() == kid) && signing(&leader).as_ref() == Some(&kid));
    let notice = told.next_notice().unwrap();
    assert_eq!(
        (notice.reason, notice.about.name.as_deref()),
        ("KeyRestored", Some("keys"))
    );
    assert!(
        notice.message.contains(&kid) && notice.message.contains("revoke-key"),
        "{}",
        notice.message
    );
    assert!(nothing_told.next_notice().is_none(), "who writes it back tells of it");

    // The command also marks a key that somebody has just taken out.
    take_out_by_hand(&stored, &kid);
    let mark = |ring: &KeyRing| {
        if ring.keys().iter().any(|key| key.kid() == kid) {
            return ring.without(&kid);
        }
        marked_as_removed(ring, &kid)
    };
    while secret(&stored).change(mark).await.is_err() {}
    let is_gone = |signers: &CurrentSigners| {
        let signers = signers.load();
        !String::from_utf8_lossy(&signers.as_ref().unwrap().keys.text).contains(&kid)
    };
    until(|| is_gone(&leader) && is_gone(&follower) && signing(&leader).is_some()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let keys = source().read(Timestamp::now()).await.unwrap();
    assert!(keys.ring.keys().iter().all(|key| key.kid() != kid) && is_gone(&leader) && is_gone(&follower));
    stop.cancel();
}

#[tokio::test]
async fn a_replica_without_a_leader_does_not_sign_with_a_removed_key_where_there_is_no_other() {
    let (stored, stop, leads) = (Stored::default(), CancellationToken::new(), CancellationToken::new());
    let source = || KeySource::Secret(Box::new(secret(&stored)));
    let leader = observed(source(), true, &leads);
    let follower = replica(source(), false, &stop);
    until(|| signing(&leader.signers).is_some() && signing(&follower) == signing(&leader.signers)).await;
    leads.cancel();
    leader.task.await.unwrap().unwrap();
    let remove_all = |ring: &KeyRing| {
        let mut kids = ring.keys().iter().map(RingKey::kid);
        kids.try_fold(ring.clone(), |ring, kid| ring.without(kid))
    };
    secret(&stored).change(remove_all).await.unwrap();
    until(|| follower.load().is_none()).await;
    stop.cancel();
}

#[test]
fn only_what_can_be_a_keys_name_is_marked_as_removed_where_there_is_no_such_key() {
    let kid = SigningKey::generate(Algorithm::ES256).unwrap().kid().to_owned();
    let ring = KeyRing::default();
    let marked = marked_as_removed(&ring, &kid).unwrap();
    assert_eq!(*marked.removed(), [Box::from(kid.as_str())]);
    assert_eq!(marked_as_removed(&marked, &kid).unwrap().removed().len(), 1, "once");
    for slip in ["", "the-kid", &kid[1..]] {
        marked_as_removed(&ring, slip).unwrap_err();
    }
}

#[tokio::test]
async fn two_that_write_at_a_time_lose_nothing() {
    let stored = Stored::default();
    let changes = (0..8).map(|_| {
        let secret = secret(&stored);
        async move {
            let add = |ring: &KeyRing| ring.with_published(SigningKey::generate(Algorithm::ES256)?, Timestamp::now());
            while secret.change(add).await.is_err() {}
        }
    });
    futures::future::join_all(changes).await;
    let keys = KeySource::Secret(Box::new(secret(&stored)))
        .read(Timestamp::now())
        .await
        .unwrap();
    assert_eq!(keys.ring.keys().len(), 8);
}

#[tokio::test]
async fn a_file_of_private_keys_is_a_source_too() {
    let folder = std::env::temp_dir().join(format!("tokenscope-issuer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("keys.pem");
    let pems = [Algorithm::ES256, Algorithm::ES384]
        .map(|algorithm| SigningKey::generate(algorithm).unwrap().to_pem().unwrap());
    let text: String = pems.iter().map(ExposeSecret::expose_secret).collect();
    std::fs::write(&file, text).unwrap();
    let stop = CancellationToken::new();
    let signers = replica(KeySource::File(plain(&file)), false, &stop);
    until(|| signing(&signers).is_some()).await;
    let before = signing(&signers);
    // A second key of an algorithm is published, and the first one signs.
    let next = SigningKey::generate(Algorithm::ES256).unwrap();
    let mut more: String = pems.iter().map(ExposeSecret::expose_secret).collect();
    more.push_str(next.to_pem().unwrap().expose_secret());
    std::fs::write(&file, more).unwrap();
    let shows = |kid: &str| {
        let signers = signers.load();
        String::from_utf8_lossy(&signers.as_ref().unwrap().keys.text).contains(kid)
    };
    until(|| shows(next.kid())).await;
    assert_eq!(signing(&signers), before);
    std::fs::write(&file, "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(signing(&signers), before);
    stop.cancel();
    std::fs::remove_dir_all(folder).unwrap();
}

fn plain(path: &Path) -> KeyFile {
    KeyFile {
        path: path.to_owned(),
        identities: None,
    }
}

#[tokio::test]
async fn a_file_that_is_encrypted_with_age_is_a_source_too_for_whoever_has_the_identity() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/age");
    let file = |identities: Option<&str>| KeyFile {
        path: folder.join("keys.pem.age"),
        identities: identities.map(|name| folder.join(name)),
    };
    let read = async |file| KeySource::File(file).read(Timestamp::now()).await;
    let keys = read(file(Some("identity.txt"))).await.unwrap();
    assert!(keys.ring.signing(Algorithm::ES256).is_some());
    let error = read(file(None)).await.unwrap_err();
    assert!(matches!(error, KeySourceError::NoIdentity), "{error}");
    let error = read(file(Some("other-identity.txt"))).await.unwrap_err();
    assert!(matches!(error, KeySourceError::Age(AgeError::Recipient)), "{error}");
    let error = read(file(Some("no-such-file"))).await.unwrap_err();
    assert!(matches!(error, KeySourceError::File(_)), "{error}");
}

#[tokio::test]
async fn no_more_of_a_file_is_read_than_a_file_of_keys_may_have() {
    let error = KeySource::File(plain(Path::new("/dev/zero")))
        .read(Timestamp::now())
        .await;
    assert!(matches!(error, Err(KeySourceError::FileTooLong)));
}
