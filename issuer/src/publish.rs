//! Discovery and keys as files, for a web server or bucket that AWS can reach.
//!
//! The keys are written before the document that names them, and each file takes the place of the one before at once, so that nobody
//! ever reads half of one.

use std::io::{self, Write as _};
use std::path::Path;

use crate::claims;
use crate::discovery;
use crate::issuer_url::{DISCOVERY_PATH, KEYS_PATH};
use crate::keys::{self, InvalidJwks, PublicJwk};

/// What tokens of any issuer say that AWS takes.
const CLAIMS_OF_OTHERS: [&str; 5] = ["aud", "exp", "iat", "iss", "sub"];

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file can't be written.
    #[error("can't write {0}")]
    Write(String, #[source] io::Error),
    /// There is nothing to publish, and an empty key set would make every token fail.
    #[error("there are no keys to publish")]
    NoKeys,
    /// The bundle can't be used.
    #[error("the bundle of the SPIFFE trust domain can't be used")]
    Bundle(#[from] InvalidJwks),
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    discovery: String,
    keys: String,
}

impl Publication {
    /// Those of this issuer with these keys, served below `issuer`.
    pub fn of(issuer: &str, published: &[PublicJwk]) -> Result<Self, PublishError> {
        Self::with(issuer, published, &claims::SUPPORTED)
    }

    /// Those of somebody else's issuer.
    pub fn of_another(issuer: &str, published: &[PublicJwk]) -> Result<Self, PublishError> {
        Self::with(issuer, published, &CLAIMS_OF_OTHERS)
    }

    fn with(issuer: &str, published: &[PublicJwk], claims: &[&str]) -> Result<Self, PublishError> {
        if published.is_empty() {
            return Err(PublishError::NoKeys);
        }
        let published: Vec<_> = published.iter().collect();
        let (discovery, keys) = discovery::documents(issuer, &published, claims);
        Ok(Self { discovery, keys })
    }

    /// The documents for the JWT keys of a SPIFFE trust domain's bundle (SPIFFE Trust Domain and Bundle §4).
    pub fn of_spiffe_bundle(issuer: &str, bundle: &[u8]) -> Result<Self, PublishError> {
        Self::of_another(issuer, &keys::read(bundle, Some("jwt-svid"))?)
    }

    /// Writes both files below a folder.
    pub fn write(&self, folder: &Path) -> Result<(), PublishError> {
        for (path, text) in [(KEYS_PATH, &self.keys), (DISCOVERY_PATH, &self.discovery)] {
            let file = folder.join(path.trim_start_matches('/'));
            replace(&file, text).map_err(|error| PublishError::Write(file.display().to_string(), error))?;
        }
        Ok(())
    }
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let next = folder.join(name);
    let written = write_whole(&next, text).and_then(|()| std::fs::rename(&next, file));
    if written.is_err() {
        // What is left of it is of no use, and the error that matters is the first.
        let _ = std::fs::remove_file(&next);
    }
    written
}

fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut open = std::fs::File::create(file)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()
}
