//! The commands that do one thing and end: `publish`, `rotate`, `revoke-key`.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kube::{Api, Client};
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_platform::args::CommonArgs;
use tokenscope_platform::client;
use tokenscope_platform::freshness::Freshness;

use crate::args::{PublishArgs, Published, RevokeArgs, RotateArgs};
use crate::document_source::DocumentSource;
use crate::issuer_url::IssuerUrl;
use crate::key_source::{KeySource, SecretKeys};
use crate::keys::{SigningKey, algorithm_name};
use crate::publish::Publication;
use crate::rotation::{KeyRing, KeyStanding, RingError, RingKey};
use crate::{cluster_keys, document_source};

/// A key's identifier is the thumbprint of RFC 7638: this many bytes in base64.
const SHA256_BYTES: usize = 32;

/// Writes discovery and keys as files.
pub async fn publish(arguments: PublishArgs) -> anyhow::Result<()> {
    ensure!(
        arguments.of == Published::Issuer || arguments.from.is_none(),
        "--from is only for --of issuer: leave it out"
    );
    let given = arguments.issuer_url.as_ref().map(|url| url.as_str().to_owned());
    let needed = || given.clone().context("--issuer-url is missing");
    let publication = match arguments.of {
        Published::Issuer => {
            let issuer = arguments.issuer_url.clone().context("--issuer-url is missing")?;
            let documents = document_source(&arguments, issuer.clone()).await?.fetch().await?;
            Publication::of(&issuer, &documents)?
        }
        Published::Cluster => {
            let (issuer, published) = cluster_keys::fetch(&connect(&arguments.common).await?).await?;
            Publication::of_another(&given.unwrap_or_else(|| issuer.into()), &published)?
        }
        Published::Spiffe => {
            let path = arguments.bundle.as_ref().context("--bundle is missing")?;
            let bundle = tokio::fs::read(path)
                .await
                .with_context(|| format!("can't read {}", path.display()))?;
            Publication::of_spiffe_bundle(&needed()?, &bundle)?
        }
    };
    publication.write(&arguments.dir)?;
    println!("published below {}", arguments.dir.display());
    Ok(())
}

/// The issuer itself, which knows its keys and serves the public ones to everybody.
async fn document_source(arguments: &PublishArgs, issuer: IssuerUrl) -> anyhow::Result<DocumentSource> {
    let origin = arguments
        .from
        .clone()
        .context("--from is missing: the URL at which the issuer serves its documents, such as https://tokenscope-issuer.tokenscope-system.svc")?;
    let path = arguments
        .from_authorities
        .as_ref()
        .context("--from-authorities is missing")?;
    let cant_use = || format!("--from-authorities: {} can't be used", path.display());
    let authorities = document_source::authorities_of_file(path)
        .await
        .with_context(cant_use)?;
    Ok(DocumentSource::new(issuer, origin, authorities)?)
}

/// Publishes a further key now.
pub async fn rotate(arguments: RotateArgs) -> anyhow::Result<()> {
    let algorithm = arguments.algorithm;
    let secret = secret(&arguments.common, &arguments.secret.keys_secret).await?;
    may_rotate(&secret_keys(&secret).await?, algorithm)?;
    let written = secret
        .change(|ring| ring.with_published(SigningKey::generate(algorithm)?, Timestamp::now()))
        .await?;
    let kid = written
        .ring
        .published(algorithm)
        .map(|key| key.kid().to_owned())
        .unwrap_or_default();
    println!("key {kid} is published, and signs after the wait that the issuer was started with (--publish-wait)");
    println!("run `publish` now where the documents are served as files");
    Ok(())
}

/// Whether a further key of an algorithm would be of use; the error says why not, and what to do.
pub fn may_rotate(ring: &KeyRing, algorithm: Algorithm) -> anyhow::Result<()> {
    if let Some(waiting) = ring.published(algorithm) {
        bail!("key {} is published already and waits until it signs", waiting.kid());
    }
    if ring.signing(algorithm).is_none() {
        // The leader would remove such a key at once, or makes one itself in a moment.
        bail!(
            "no key of {0} signs, so there is none that another one could follow: the issuer makes the first key of each algorithm of \
             issuer.keys.algorithms (--algorithm) itself, and removes those of other algorithms. Add {0} there, or name one of these",
            algorithm_name(algorithm)
        );
    }
    Ok(())
}

/// Removes a key at once.
pub async fn revoke(arguments: RevokeArgs) -> anyhow::Result<()> {
    let secret = secret(&arguments.common, &arguments.secret.keys_secret).await?;
    let now = Timestamp::now();
    let kid = arguments.kid.as_str();
    let mut was_there = true;
    secret
        .change(|ring| {
            was_there = ring.keys().iter().any(|key| key.kid() == kid);
            without_leaked(ring, kid, now)
        })
        .await?;
    if !was_there {
        println!("Key {kid} was not in the Secret. It is marked there as removed, so that no replica puts it back.");
    }
    // What it signed until the write can have made sessions until now.
    print!("{}", revoked(kid, Timestamp::now()));
    Ok(())
}

/// The ring without a key that leaked. In the same write another one takes over what it signed, so that no replica is without a key.
///
/// Somebody may have taken it out by hand: then it is marked as removed, since replicas that remember it would put it back, and each
/// algorithm with a retired key has one that signs again. What is not in the ring and can't be the name of a key is an error.
pub fn without_leaked(ring: &KeyRing, kid: &str, now: Timestamp) -> Result<KeyRing, RingError> {
    let Some(key) = ring.keys().iter().find(|key| key.kid() == kid) else {
        let marked = marked_as_removed(ring, kid)?;
        let is_retired = |key: &&RingKey| matches!(key.standing(), KeyStanding::Retired(_));
        let mut once_signed = ring.keys().iter().filter(is_retired).map(RingKey::algorithm);
        return once_signed.try_fold(marked, |ring, algorithm| with_signer(ring, algorithm, now));
    };
    let rest = ring.without(kid)?;
    match key.standing() {
        KeyStanding::Signing(_) => with_signer(rest, key.algorithm(), now),
        KeyStanding::Published | KeyStanding::Retired(_) => Ok(rest),
    }
}

/// The ring with a key of this algorithm that signs: that which does, the one that waits, or a new one.
fn with_signer(ring: KeyRing, algorithm: Algorithm, now: Timestamp) -> Result<KeyRing, RingError> {
    if ring.signing(algorithm).is_some() {
        return Ok(ring);
    }
    if let Some(next) = ring.published(algorithm).map(|key| key.kid().to_owned()) {
        return ring.with_signing(&next, now);
    }
    let next = SigningKey::generate(algorithm)?;
    let kid = next.kid().to_owned();
    ring.with_published(next, now)?.with_signing(&kid, now)
}

/// The ring with a mark that a key which is not in it was removed. What can't be the name of a key is taken for a slip.
pub fn marked_as_removed(ring: &KeyRing, kid: &str) -> Result<KeyRing, RingError> {
    let is_thumbprint = URL_SAFE_NO_PAD
        .decode(kid)
        .is_ok_and(|bytes| bytes.len() == SHA256_BYTES);
    if !is_thumbprint {
        return Err(RingError::NoKey(kid.into()));
    }
    ring.with_removed(kid)
}

/// What whoever removed a key should know and do. `now` is a time after the write; the policy names the next whole second, since that is
/// how exactly AWS compares times.
pub fn revoked(kid: &str, now: Timestamp) -> String {
    let begun = i64::from(now.subsec_nanosecond() > 0);
    let now = Timestamp::from_second(now.as_second().saturating_add(begun)).unwrap_or(now);
    let deny = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "TokensOfALeakedKey",
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": now.to_string()}},
        }],
    });
    format!(
        "Key {kid} is removed: no replica signs with it or publishes it after a few seconds, and none puts it back.\n\
         Run `publish` now where the documents are served as files.\n\
         \n\
         AWS may know the old key for an unknown time: nobody says how long it remembers an issuer's keys. Until then whoever has\n\
         the key can still make sessions. To be sure, delete the IAM OIDC provider and create it under another issuer URL.\n\
         \n\
         Sessions that exist end with this policy, attached inline to each role that the issuer's tokens can assume. It denies\n\
         every session that was made before {now}:\n\
         \n\
         {deny:#}\n"
    )
}

async fn connect(common: &CommonArgs) -> anyhow::Result<Client> {
    // A second installation of the same provider is no failure.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = client::configuration(common).await?;
    Ok(client::connect(config, &Freshness::new(common.watch_age_limit))?)
}

async fn secret(common: &CommonArgs, name: &str) -> anyhow::Result<SecretKeys> {
    Ok(SecretKeys {
        secrets: Api::namespaced(connect(common).await?, &common.namespace),
        name: name.to_owned(),
    })
}

async fn secret_keys(secret: &SecretKeys) -> anyhow::Result<KeyRing> {
    let keys = KeySource::Secret(Box::new(secret.clone()))
        .read(Timestamp::now())
        .await?;
    Ok(keys.ring)
}
