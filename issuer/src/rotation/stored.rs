//! The key ring as the text of a Secret's or a file's one entry.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::ring::{KeyRing, RingError, RingKey};
use crate::keys::{KeyError, SigningKey, algorithm_name};

/// The entry of the Secret.
pub const ENTRY: &str = "keyring.json";
/// The form that this version writes and reads.
const VERSION: u32 = 1;
/// The longest text that is read. A Secret has at most a mebibyte.
const MOST_BYTES: usize = 1 << 20;

/// The reason why a text is no key ring. No error repeats anything of the text.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeyRing {
    /// It is no JSON of this form. The parser's own error may quote it, so it is left out.
    #[error("{ENTRY} is not readable (line {line}, column {column})")]
    Json {
        /// The place at which reading ended.
        line: usize,
        /// The place at which reading ended.
        column: usize,
    },
    /// It is too long.
    #[error("{ENTRY} has more than {} KiB", MOST_BYTES >> 10)]
    TooLong,
    /// Another version wrote it.
    #[error("{ENTRY} is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// A key in it can't be used.
    #[error("key {0:?} in {ENTRY} can't be used")]
    Key(Box<str>, #[source] KeyError),
    /// A key has another identifier or algorithm than is written beside it.
    #[error("key {0:?} in {ENTRY} is another key than its identifier says")]
    OtherKey(Box<str>),
    /// The keys don't go together.
    #[error("the keys in {ENTRY} don't go together")]
    Ring(#[from] RingError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredRing {
    version: u32,
    keys: Vec<StoredKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<Box<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    kid: Box<str>,
    alg: Box<str>,
    pem: String,
    published_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
}

impl KeyRing {
    /// Writes the ring, private keys and all.
    pub fn to_text(&self) -> Result<SecretString, KeyError> {
        let stored = |key: &RingKey| {
            Ok(StoredKey {
                kid: key.kid().into(),
                alg: algorithm_name(key.algorithm()).into(),
                pem: key.key.to_pem()?.expose_secret().to_owned(),
                published_at: key.published_at,
                signing_since: key.signing_since,
                retired_at: key.retired_at,
            })
        };
        let ring = StoredRing {
            version: VERSION,
            keys: self.keys().iter().map(stored).collect::<Result<_, KeyError>>()?,
            removed: self.removed().to_vec(),
        };
        // Texts and times always serialise.
        Ok(serde_json::to_string(&ring).unwrap_or_default().into())
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn from_text(text: &[u8]) -> Result<Self, InvalidKeyRing> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if text.len() > MOST_BYTES {
            return Err(InvalidKeyRing::TooLong);
        }
        let unreadable = |error: serde_json::Error| InvalidKeyRing::Json {
            line: error.line(),
            column: error.column(),
        };
        let Versioned { version } = serde_json::from_slice(text).map_err(unreadable)?;
        if version != VERSION {
            return Err(InvalidKeyRing::Version(version));
        }
        let ring: StoredRing = serde_json::from_slice(text).map_err(unreadable)?;
        let keys = ring.keys.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self::of(keys, ring.removed)?)
    }
}

fn read(stored: StoredKey) -> Result<RingKey, InvalidKeyRing> {
    let pem = SecretString::from(stored.pem);
    let key =
        SigningKey::from_pem(pem.expose_secret()).map_err(|error| InvalidKeyRing::Key(stored.kid.clone(), error))?;
    if key.kid() != &*stored.kid || algorithm_name(key.algorithm()) != &*stored.alg {
        return Err(InvalidKeyRing::OtherKey(stored.kid));
    }
    Ok(RingKey {
        key: Arc::new(key),
        published_at: stored.published_at,
        signing_since: stored.signing_since,
        retired_at: stored.retired_at,
    })
}
