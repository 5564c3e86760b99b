//! The source of the keys: one Secret that all replicas read and the leader writes, or a file that another program keeps.
//!
//! A Secret that was deleted is written again from memory by the first replica that notices. One that can't be read is never overwritten.
//! Keys that are missing in it without a mark that they were removed are put back by the leader.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretSlice};
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::watch;
use tokio::io::AsyncReadExt as _;

use crate::age::{self, AgeError, AgeIdentity};
use crate::keys::{KeyError, SigningKey};
use crate::rotation::{ENTRY, InvalidKeyRing, KeyRing, RingError};

/// The longest file of keys.
const MOST_FILE_BYTES: u64 = 1 << 20;
/// The number of times that a write is tried again after somebody else wrote in between.
const TRIES: usize = 5;

/// The source of the keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// One Secret, which the leader writes.
    Secret(Box<SecretKeys>),
    /// A file that somebody else keeps.
    File(KeyFile),
}

/// A file with keys: the entry of such a Secret, or private keys in PEM, of which the first of each algorithm signs. Nothing here
/// writes it.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// Its path.
    pub path: PathBuf,
    /// The path of the age identities that it is encrypted for; none where it is not encrypted.
    pub identities: Option<PathBuf>,
}

/// The Secret with the keys.
#[derive(Clone, Debug)]
pub struct SecretKeys {
    /// The Secrets of the namespace.
    pub secrets: Api<Secret>,
    /// Its name.
    pub name: String,
}

/// Keys as they were read. `Debug` shows no private key.
#[derive(Clone, Debug, Default)]
pub struct StoredKeys {
    /// The keys.
    pub ring: KeyRing,
    /// The Secret's version, or a hash of the file; none where there is no Secret.
    pub version: Option<String>,
}

/// The reason why keys can't be read or written. No text repeats anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// The Secret can't be read or written.
    #[error("Secret {0} can't be {1}: {2}")]
    Secret(String, &'static str, String),
    /// The Secret has no such entry.
    #[error("Secret {0} has no entry {ENTRY}")]
    NoEntry(String),
    /// Reading and writing took too long.
    #[error("the API server does not answer in time")]
    Late,
    /// Somebody else wrote in between.
    #[error("Secret {0} was written by somebody else meanwhile")]
    Conflict(String),
    /// The file can't be read.
    #[error("the file of keys can't be read")]
    File(#[from] std::io::Error),
    /// It is encrypted and nothing says with what.
    #[error("the file of keys is encrypted with age, and --keys-identity names no identity")]
    NoIdentity,
    /// It can't be decrypted.
    #[error("the file of keys can't be decrypted")]
    Age(#[from] AgeError),
    /// The file is too long.
    #[error("the file of keys, or that of the identities, has more than {} KiB", MOST_FILE_BYTES >> 10)]
    FileTooLong,
    /// The text is no key ring.
    #[error(transparent)]
    Ring(#[from] InvalidKeyRing),
    /// The keys don't go together.
    #[error(transparent)]
    Keys(#[from] RingError),
    /// A key can't be used.
    #[error("a private key can't be used")]
    Key(#[from] KeyError),
}

impl KeySource {
    /// A signal for each change of the Secret, as far as it can be watched; none for a file.
    pub fn changes(&self) -> BoxStream<'static, ()> {
        match self {
            Self::Secret(secret) => {
                let told = watch::object(secret.secrets.clone(), &secret.name);
                // Who can't watch it still reads it again and again.
                told.filter_map(async |told| told.ok().map(drop)).boxed()
            }
            Self::File(_) => stream::pending().boxed(),
        }
    }

    /// The keys as they are now; none where there is no Secret yet.
    pub async fn read(&self, now: Timestamp) -> Result<StoredKeys, KeySourceError> {
        match self {
            Self::Secret(secret) => secret.read().await,
            Self::File(file) => file.read(now).await,
        }
    }
}

impl KeyFile {
    async fn read(&self, now: Timestamp) -> Result<StoredKeys, KeySourceError> {
        let text = bounded(&self.path).await?;
        let version = Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, text.expose_secret())));
        let clear = match &self.identities {
            Some(identities) => {
                let identities = AgeIdentity::read(bounded(identities).await?.expose_secret())?;
                age::decrypt(text.expose_secret(), &identities)?
            }
            None if age::is_encrypted(text.expose_secret()) => return Err(KeySourceError::NoIdentity),
            None => text,
        };
        Ok(StoredKeys {
            ring: from_file(clear.expose_secret(), now)?,
            version,
        })
    }
}

async fn bounded(path: &Path) -> Result<SecretSlice<u8>, KeySourceError> {
    let file = tokio::fs::File::open(path).await?;
    // With room for all of it no copy of a secret stays behind where the text grows or shrinks.
    let mut text = Zeroizing::new(Vec::with_capacity(MOST_FILE_BYTES as usize + 2));
    // Its length may change while it is read.
    let length = file.take(MOST_FILE_BYTES + 1).read_to_end(&mut text).await?;
    let text = SecretSlice::from(text.to_vec());
    if length as u64 > MOST_FILE_BYTES {
        return Err(KeySourceError::FileTooLong);
    }
    Ok(text)
}

fn from_file(text: &[u8], now: Timestamp) -> Result<KeyRing, KeySourceError> {
    if text.trim_ascii_start().starts_with(b"{") {
        return Ok(KeyRing::from_text(text)?);
    }
    let text = std::str::from_utf8(text).map_err(|_| KeyError::Pem)?;
    let mut keys: Vec<SigningKey> = Vec::new();
    for pem in text.split_inclusive("-----END PRIVATE KEY-----") {
        if pem.trim().is_empty() {
            continue;
        }
        keys.push(SigningKey::from_pem(pem)?);
    }
    if keys.is_empty() {
        return Err(KeyError::Pem.into());
    }
    Ok(KeyRing::of_signing_keys(keys, now)?)
}

impl SecretKeys {
    async fn read(&self) -> Result<StoredKeys, KeySourceError> {
        let found = self.secrets.get_opt(&self.name).await;
        let found = found.map_err(|error| KeySourceError::Secret(self.name.clone(), "read", chain(&error)))?;
        let Some(secret) = found else {
            return Ok(StoredKeys::default());
        };
        let text = secret.data.as_ref().and_then(|data| data.get(ENTRY));
        let text = text.ok_or_else(|| KeySourceError::NoEntry(self.name.clone()))?;
        Ok(StoredKeys {
            ring: KeyRing::from_text(&text.0)?,
            version: secret.metadata.resource_version,
        })
    }

    /// Writes the keys in place of the version that they were made from, and of no other.
    pub async fn write(&self, keys: &StoredKeys) -> Result<StoredKeys, KeySourceError> {
        let text = keys.ring.to_text()?.expose_secret().as_bytes().to_vec();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: keys.version.clone(),
                labels: Some([("app.kubernetes.io/part-of".to_owned(), "tokenscope".to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(ENTRY.to_owned(), ByteString(text))].into()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let parameters = PostParams::default();
        let written = match keys.version {
            Some(_) => self.secrets.replace(&self.name, &parameters, &secret).await,
            None => self.secrets.create(&parameters, &secret).await,
        };
        match written {
            Ok(secret) => Ok(StoredKeys {
                ring: keys.ring.clone(),
                version: secret.metadata.resource_version,
            }),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Err(KeySourceError::Conflict(self.name.clone()))
            }
            Err(error) => Err(KeySourceError::Secret(self.name.clone(), "written", chain(&error))),
        }
    }

    /// Changes the keys, whoever writes at the same time.
    pub async fn change(
        &self,
        mut change: impl FnMut(&KeyRing) -> Result<KeyRing, RingError>,
    ) -> Result<StoredKeys, KeySourceError> {
        let mut last = KeySourceError::Conflict(self.name.clone());
        for _ in 0..TRIES {
            let keys = self.read().await?;
            let next = StoredKeys {
                ring: change(&keys.ring)?,
                version: keys.version,
            };
            match self.write(&next).await {
                Err(conflict @ KeySourceError::Conflict(_)) => last = conflict,
                other => return other,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(last)
    }
}
