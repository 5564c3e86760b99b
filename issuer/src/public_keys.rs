//! The keys at the issuer's own public URL, for installations whose keys sign only once they can be read there.
//!
//! Each look is one request in a task of its own, with the deadline and bounds of [`DocumentSource`]. No caller waits for it: callers get the
//! result of the last look.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use tokenscope_platform::telemetry::chain;

use crate::document_source::{DocumentError, DocumentSource};
use crate::issuer_url::IssuerUrl;
use crate::keys::{self, InvalidJwks};
use crate::rotation::PublicKids;

/// The least time between two looks.
pub const PERIOD: Duration = Duration::from_secs(60);
/// The time for which what was read last counts, where nothing can be read any more.
pub const STALE: Duration = Duration::from_secs(600);

/// The reason why the public keys are not known.
#[derive(Debug, thiserror::Error)]
enum PublicKeysError {
    #[error(transparent)]
    Documents(#[from] DocumentError),
    #[error("the key set there can't be used")]
    Keys(#[from] InvalidJwks),
}

/// Asks the issuer's URL.
#[derive(Clone, Debug)]
pub struct PublicKeys {
    source: DocumentSource,
    period: Duration,
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    /// The time at which the last look began.
    asked: Option<Instant>,
    is_asking: bool,
    /// The result of the last look, and its time.
    read: Option<(Instant, PublicKids)>,
    /// The reason why the last look brought nothing.
    problem: Option<String>,
}

impl PublicKeys {
    /// Those at an issuer's URL, whose certificate the authorities of Mozilla's list vouch for.
    pub fn of(issuer: &IssuerUrl) -> Result<Self, DocumentError> {
        let authorities = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let source = DocumentSource::new(issuer.clone(), issuer.origin(), authorities)?;
        Ok(Self::at(source, PERIOD))
    }

    /// Those at another place, looked at once in a `period` at most.
    pub fn at(source: DocumentSource, period: Duration) -> Self {
        Self {
            source,
            period,
            found: Arc::default(),
        }
    }

    /// The result of the last look. Where that is older than the period, a task begins to look again.
    pub fn known(&self) -> PublicKids {
        let now = Instant::now();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.is_asking && found.asked.is_none_or(|at| now.duration_since(at) >= self.period) {
            found.asked = Some(now);
            found.is_asking = true;
            tokio::spawn(self.clone().look());
        }
        match &found.read {
            Some((at, kids)) if now.duration_since(*at) < STALE => kids.clone(),
            _ => PublicKids::Unknown,
        }
    }

    /// The reason why the last look brought nothing; none where it did.
    pub fn problem(&self) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.problem.clone()
    }

    async fn look(self) {
        let read = self.read().await;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.is_asking = false;
        match read {
            Ok(kids) => {
                found.read = Some((Instant::now(), kids));
                found.problem = None;
            }
            Err(error) => found.problem = Some(chain(&error)),
        }
    }

    async fn read(&self) -> Result<PublicKids, PublicKeysError> {
        let documents = self.source.fetch().await?;
        // Several clusters may have one issuer, so there may be keys of others.
        let keys = keys::read(&documents.keys, None)?;
        Ok(PublicKids::Read(keys.iter().map(|key| key.kid().into()).collect()))
    }
}
