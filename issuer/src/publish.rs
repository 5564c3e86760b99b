//! Discovery and keys as files, for a web server or bucket that AWS can reach.
//!
//! The keys are written before the document that names them, and each file takes the place of the one before at once, so that nobody
//! ever reads half of one.

use std::io::{self, Write as _};
use std::path::Path;

use crate::discovery;
use crate::document_source::FetchedDocuments;
use crate::issuer_url::{DISCOVERY_PATH, IssuerUrl, KEYS_PATH};
use crate::keys::{self, InvalidJwks, InvalidOwnSet, PublicJwk};

/// The claims that AWS takes from tokens of any issuer.
const CLAIMS_OF_OTHERS: [&str; 5] = ["aud", "exp", "iat", "iss", "sub"];

/// The reason why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file can't be written.
    #[error("can't write {0}")]
    Write(String, #[source] io::Error),
    /// There is nothing to publish, and an empty key set would make every token fail.
    #[error("there are no keys to publish")]
    NoKeys,
    /// The issuer serves no key set of its own.
    #[error("the issuer's key set can't be published")]
    Own(#[from] InvalidOwnSet),
    /// The bundle can't be used.
    #[error("the bundle of the SPIFFE trust domain can't be used")]
    Bundle(#[from] InvalidJwks),
}

/// The documents that an issuer publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    discovery: String,
    keys: String,
}

impl Publication {
    /// The documents of our issuer as it serves them. They are written anew from what was read, so nothing else of them is published.
    pub fn of(issuer: &IssuerUrl, fetched: &FetchedDocuments) -> Result<Self, PublishError> {
        let published = keys::read_own(&fetched.keys)?;
        let claims: Vec<&str> = fetched.claims.iter().map(|claim| &**claim).collect();
        Self::with(issuer.as_str(), &published, &claims)
    }

    /// The documents of somebody else's issuer.
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
