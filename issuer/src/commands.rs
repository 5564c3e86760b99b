//! The commands that do one thing and end: `publish`, `rotate`, `revoke-key`.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kube::{Api, Client};
use serde_json::json;
use tokenscope_platform::args::CommonArgs;
use tokenscope_platform::client;
use tokenscope_platform::freshness::Freshness;

use crate::args::{KeysArgs, PublishArgs, Published, RevokeArgs, RotateArgs};
use crate::cluster_keys;
use crate::key_source::{KeySource, SecretKeys};
use crate::keys::{PublicJwk, SigningKey};
use crate::publish::Publication;
use crate::rotation::{KeyRing, KeyStanding, RingError, RingKey};

/// A key's identifier is the thumbprint of RFC 7638: this many bytes in base64.
const SHA256_BYTES: usize = 32;

/// Writes discovery and keys as files.
pub async fn publish(arguments: PublishArgs) -> anyhow::Result<()> {
    let given = arguments.issuer_url.as_ref().map(|url| url.as_str().to_owned());
    let needed = || given.clone().context("--issuer-url is missing");
    let publication = match arguments.of {
        Published::Issuer => {
            let source = key_source(&arguments.common, &arguments.keys).await?;
            let keys = source.read(Timestamp::now()).await?;
            let published = |key: &RingKey| {
                if arguments.keys.x5c {
                    return key.key().certified();
                }
                Ok(key.key().public().clone())
            };
            let published: Vec<PublicJwk> = keys.ring.keys().iter().map(published).collect::<Result<_, _>>()?;
            Publication::of(&needed()?, &published)?
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

/// Publishes a further key now.
pub async fn rotate(arguments: RotateArgs) -> anyhow::Result<()> {
    let algorithm = arguments.algorithm;
    let secret = secret(&arguments.common, &arguments.secret.keys_secret).await?;
    if let Some(waiting) = secret_keys(&secret).await?.published(algorithm) {
        bail!("key {} is published already and waits until it signs", waiting.kid());
    }
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

/// Removes a key at once.
pub async fn revoke(arguments: RevokeArgs) -> anyhow::Result<()> {
    let secret = secret(&arguments.common, &arguments.secret.keys_secret).await?;
    let now = Timestamp::now();
    let kid = arguments.kid.as_str();
    let mut was_there = true;
    secret
        .change(|ring| {
            was_there = true;
            let Some(key) = ring.keys().iter().find(|key| key.kid() == kid) else {
                // Somebody took it out by hand, perhaps: without the mark, replicas that remember it would put it back.
                was_there = false;
                return absent(ring, kid);
            };
            let signs = matches!(key.standing(), KeyStanding::Signing(_));
            let algorithm = key.algorithm();
            let rest = ring.without(kid)?;
            if !signs {
                return Ok(rest);
            }
            // In the same write another one takes over, so that no replica is without a key.
            if let Some(next) = rest.published(algorithm).map(|key| key.kid().to_owned()) {
                return rest.with_signing(&next, now);
            }
            let next = SigningKey::generate(algorithm)?;
            let next_kid = next.kid().to_owned();
            rest.with_published(next, now)?.with_signing(&next_kid, now)
        })
        .await?;
    if !was_there {
        println!("Key {kid} was not in the Secret. It is marked there as removed, so that no replica puts it back.");
    }
    print!("{}", revoked(kid, now));
    Ok(())
}

/// The ring with the mark that a key was removed which is not in it. What can't be the name of a key is taken for a slip.
pub fn absent(ring: &KeyRing, kid: &str) -> Result<KeyRing, RingError> {
    let is_thumbprint = URL_SAFE_NO_PAD
        .decode(kid)
        .is_ok_and(|bytes| bytes.len() == SHA256_BYTES);
    if !is_thumbprint {
        return Err(RingError::NoKey(kid.into()));
    }
    ring.with_removed(kid)
}

/// What whoever removed a key should know and do.
pub fn revoked(kid: &str, now: Timestamp) -> String {
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

async fn key_source(common: &CommonArgs, keys: &KeysArgs) -> anyhow::Result<KeySource> {
    Ok(match keys.file() {
        Some(file) => KeySource::File(file),
        None => KeySource::Secret(Box::new(secret(common, &keys.secret.keys_secret).await?)),
    })
}
