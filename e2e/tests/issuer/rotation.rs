//! Keys that rotate under three replicas and one real Secret, while the leader is killed at each write and pods go on exchanging, one of
//! them with its sidecar and the AWS SDK.
//!
//! Keys wait for hours at least, so all times in the Secret are set back until a step is due: the one that the state machine itself names.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use tokenscope_core::Algorithm;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::{delete, put};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::{ENTRY, KeyRing, KeyRotationSettings, KeyStanding, RingKey, RotationStep, next_step};

use super::callers::Callers;
use super::workload::{Workload, es256};
use super::*;

const REPLICAS: usize = 3;
/// The chart's least value.
const WAIT: Duration = Duration::from_secs(3600);
/// Long enough that a retired key is removed before the next one is made.
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// How long another replica may take to lead and write: the Lease of fifteen seconds, a look every five, and a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(180);
/// More steps than two rotations have.
const MOST_STEPS: usize = 12;

fn three_issuers() -> Options {
    let keys = json!({"algorithms": ["ES256"], "publishWaitSeconds": WAIT.as_secs(), "signingPeriodSeconds": PERIOD.as_secs()});
    Options {
        values: json!({"issuer": {"enabled": true, "url": URL, "keys": keys}}),
        issuers: REPLICAS,
        operator_arguments: vec![format!("--issuer-extra-serving-name={HOST}")],
        ..Options::default()
    }
}

fn settings() -> KeyRotationSettings {
    KeyRotationSettings::new(vec![Algorithm::ES256], WAIT, PERIOD).unwrap()
}

/// The kind of a step that writes. A new kind has to be named here, and then be seen by the test.
fn kind(step: &RotationStep) -> Option<&'static str> {
    match step {
        RotationStep::Publish(_) => Some("publish"),
        RotationStep::Sign(_) => Some("sign"),
        RotationStep::Retire(_) => Some("retire"),
        RotationStep::Remove(_) => Some("remove"),
        RotationStep::Wait(_) => None,
    }
}

const KINDS: [&str; 4] = ["publish", "sign", "retire", "remove"];

/// The Secret of the keys, as an administrator sees it.
struct Keys {
    client: Client,
    /// Every identifier that was ever in it.
    known: BTreeSet<String>,
    /// Those that were in it when it was last read.
    last: BTreeSet<String>,
}

impl Keys {
    fn path() -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-issuer-keys")
    }

    /// The keys and the Secret that they are in. An identifier that was gone must not be back.
    async fn read(&mut self) -> Result<(KeyRing, Value)> {
        let secret = get_json(&self.client, &Self::path()).await?;
        let text = STANDARD.decode(secret["data"][ENTRY].as_str().context("an entry")?)?;
        let ring = KeyRing::from_text(&text)?;
        let kids = kids(&ring);
        for kid in kids.difference(&self.last) {
            assert!(self.known.insert(kid.clone()), "key {kid} came back");
        }
        self.last = kids;
        Ok((ring, secret))
    }

    async fn write(&self, mut secret: Value, text: &str) -> Result<Value> {
        secret["data"][ENTRY] = STANDARD.encode(text).into();
        Ok(put(&self.client, &Self::path(), &secret).await?)
    }

    /// Lets time pass until a step is due, and says which. What the Secret's version is then comes with it.
    async fn pass_time(&mut self) -> Result<(RotationStep, Value)> {
        let (ring, secret) = self.read().await?;
        let now = Timestamp::now();
        let RotationStep::Wait(until) = next_step(&ring, now, &settings()) else {
            anyhow::bail!("a step is due and was not taken yet");
        };
        let by = until.duration_since(now) + SignedDuration::from_secs(1);
        let mut stored: Value = serde_json::from_str(ring.to_text()?.expose_secret())?;
        for key in stored["keys"].as_array_mut().context("keys")? {
            for time in ["publishedAt", "signingSince", "retiredAt"] {
                if let Some(at) = key[time].as_str() {
                    key[time] = at.parse::<Timestamp>()?.checked_sub(by)?.to_string().into();
                }
            }
        }
        let text = stored.to_string();
        let step = next_step(&KeyRing::from_text(text.as_bytes())?, Timestamp::now(), &settings());
        let written = self.write(secret, &text).await?;
        Ok((step, written["metadata"]["resourceVersion"].clone()))
    }

    /// Waits for the next write after a version.
    async fn written_after(&mut self, version: &Value) -> KeyRing {
        let began = Instant::now();
        loop {
            let (ring, secret) = self.read().await.unwrap();
            if secret["metadata"]["resourceVersion"] != *version {
                return ring;
            }
            assert!(began.elapsed() < TAKEN_OVER, "nobody takes the step");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn kids(ring: &KeyRing) -> BTreeSet<String> {
    ring.keys().iter().map(|key| key.kid().to_owned()).collect()
}

/// The number of the replica that leads.
async fn leader(client: &Client) -> Result<usize> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/tokenscope-issuer");
    let lease = get_json(client, &path).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().context("somebody leads")?;
    let number = holder
        .strip_prefix("tokenscope-issuer-")
        .and_then(|rest| rest.split(['_', '-']).next());
    Ok(number.context("a replica leads")?.parse()?)
}

/// A leader that was killed, until it is started again.
struct Fallen<'a> {
    environment: &'a Environment,
    number: Option<usize>,
}

impl Fallen<'_> {
    /// Kills who leads, and starts the one that fell before.
    async fn kill_leader(&mut self, client: &Client) {
        let number = eventually(TAKEN_OVER, "one that runs leads", async || {
            let number = leader(client).await?;
            anyhow::ensure!(
                Some(number) != self.number,
                "the one that was killed still has the Lease"
            );
            Ok(number)
        })
        .await
        .unwrap();
        self.environment.installed.issuer(number).0.kill().unwrap();
        self.restart();
        self.number = Some(number);
    }

    fn restart(&mut self) {
        if let Some(number) = self.number.take() {
            self.environment.installed.issuer(number).0.restart().unwrap();
        }
    }

    fn live_ports(&self) -> impl Iterator<Item = u16> {
        (0..REPLICAS)
            .filter(|number| Some(*number) != self.number)
            .map(|number| self.environment.installed.issuer(number).1)
    }
}

async fn settled(callers: &Callers, fallen: &Fallen<'_>, ring: &KeyRing) {
    for port in fallen.live_ports() {
        eventually(TAKEN_OVER, "every replica has the keys", async || {
            callers.is_settled(port, ring).await
        })
        .await
        .unwrap();
    }
}

/// A key that signs with an algorithm that nobody wants, as after a change of the chart's values.
async fn add_unwanted_signer(keys: &mut Keys) -> (String, Value) {
    let (ring, secret) = keys.read().await.unwrap();
    let key = SigningKey::generate(Algorithm::ES384).unwrap();
    let (kid, now) = (key.kid().to_owned(), Timestamp::now());
    let ring = ring.with_published(key, now).unwrap().with_signing(&kid, now).unwrap();
    let written = keys
        .write(secret, ring.to_text().unwrap().expose_secret())
        .await
        .unwrap();
    (kid, written["metadata"]["resourceVersion"].clone())
}

/// The keys after a step are what the step makes of them.
fn assert_taken(step: &RotationStep, ring: &KeyRing) {
    let standing = |kid: &str| {
        let mut keys = ring.keys().iter();
        keys.find(|key| key.kid() == kid).map(RingKey::standing)
    };
    let is_taken = match step {
        RotationStep::Publish(algorithm) => ring.published(*algorithm).is_some(),
        RotationStep::Sign(kid) => matches!(standing(kid), Some(KeyStanding::Signing(_))),
        RotationStep::Retire(kid) => matches!(standing(kid), Some(KeyStanding::Retired(_))),
        RotationStep::Remove(kid) => standing(kid).is_none() && ring.removed().contains(kid),
        RotationStep::Wait(_) => false,
    };
    assert!(is_taken, "{step:?} was not taken: {ring:?}");
}

/// Kills the leader at each write of a step until every kind of step was seen and the keys of the beginning are gone: what is left.
async fn killed_at_each_step(
    keys: &mut Keys,
    fallen: &mut Fallen<'_>,
    (callers, workload): (&Callers, &mut Workload),
) -> KeyRing {
    let mut seen = BTreeSet::new();
    let (unwanted, version) = add_unwanted_signer(keys).await;
    let first = keys.read().await.unwrap().0;
    let mut due = (RotationStep::Retire(unwanted.into()), version);
    for _ in 0..MOST_STEPS {
        let (step, version) = due;
        let ring = keys.written_after(&version).await;
        fallen.kill_leader(&keys.client).await;
        workload.renew();
        assert_taken(&step, &ring);
        seen.extend(kind(&step));
        settled(callers, fallen, &ring).await;
        if seen == BTreeSet::from(KINDS) && kids(&ring).is_disjoint(&kids(&first)) {
            return ring;
        }
        workload.let_time_pass(&ring).await;
        let passed = eventually(TAKEN_OVER, "nobody writes just then", async || keys.pass_time().await);
        due = passed.await.unwrap();
    }
    panic!("after {MOST_STEPS} steps only {seen:?} were seen");
}

/// The Secret goes while the leader is dead. Of the two that are left, one has just started and may never have read it.
async fn deleted(keys: &mut Keys, fallen: &mut Fallen<'_>, callers: &Callers, ring: &KeyRing) {
    fallen.kill_leader(&keys.client).await;
    delete(&keys.client, &Keys::path()).await.unwrap();
    eventually(TAKEN_OVER, "the Secret is there again with the same keys", async || {
        let (restored, _) = keys.read().await?;
        anyhow::ensure!(kids(&restored) == kids(ring) && restored.removed() == ring.removed());
        Ok(())
    })
    .await
    .unwrap();
    fallen.restart();
    settled(callers, fallen, ring).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed_at_each_step_of_a_rotation_and_no_exchange_fails() {
    let environment = Environment::start(three_issuers()).await.unwrap();
    let callers = Callers::start(&environment, REPLICAS).await;
    let mut workload = Workload::start(&environment, "workload", es256(), REPLICAS).await;
    let mut keys = Keys {
        client: environment.control_plane.client().await.unwrap(),
        known: BTreeSet::new(),
        last: BTreeSet::new(),
    };
    let mut fallen = Fallen {
        environment: &environment,
        number: None,
    };
    let (first, _) = keys.read().await.unwrap();
    settled(&callers, &fallen, &first).await;
    let rotated = async {
        let last = killed_at_each_step(&mut keys, &mut fallen, (&callers, &mut workload)).await;
        assert!(kids(&last).is_disjoint(&kids(&first)), "the first key is gone");
        deleted(&mut keys, &mut fallen, &callers, &last).await;
        workload.let_time_pass(&last).await;
        callers.stop();
    };
    let (tokens, ()) = tokio::join!(callers.exchange_and_verify(), rotated);
    let tokens = tokens.unwrap();
    assert!(tokens > 50, "{tokens}");
    assert!(workload.first_tokens() > KINDS.len(), "{}", workload.first_tokens());
    let calls = workload.stop().await;
    assert!(calls.failed.is_empty() && calls.good > 50, "{calls:?}");
}
