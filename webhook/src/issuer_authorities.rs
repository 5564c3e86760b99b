//! The authorities of the issuer's certificate, which sidecars get with their environment.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64_simd::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use tokenscope_core::Settings;
use tokenscope_core::sidecar::MOST_ISSUER_CA_BYTES;
use tokenscope_platform::telemetry::chain;
use tokio_util::sync::CancellationToken;

/// Between two looks at the file: a kubelet needs a minute or so for a changed volume anyway.
const PERIOD: Duration = Duration::from_secs(10);

/// The reason why the authorities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file can't be read.
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is larger than it may be.
    #[error("{} has more than {} KiB", .0.display(), MOST_ISSUER_CA_BYTES >> 10)]
    TooLarge(PathBuf),
    /// The file is no PEM.
    #[error("{} is not readable PEM", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    /// A certificate in the file can't be read.
    #[error("a certificate in {} can't be read", .0.display())]
    Certificate(PathBuf, #[source] rustls::Error),
    /// There is no certificate in the file.
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
}

/// The certificates in a PEM file, as PEM. They are written anew, so that nothing else of the file reaches a pod: it may have a key.
pub fn read(file: &Path) -> Result<Box<str>, AuthoritiesError> {
    let unread = |error| AuthoritiesError::Read(file.to_owned(), error);
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(unread)?;
    opened
        .take(MOST_ISSUER_CA_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(unread)?;
    if text.len() as u64 > MOST_ISSUER_CA_BYTES {
        return Err(AuthoritiesError::TooLarge(file.to_owned()));
    }
    match certificates(&text) {
        Ok(written) => Ok(written.into()),
        Err(NoCertificates::Pem(error)) => Err(AuthoritiesError::Pem(file.to_owned(), error)),
        Err(NoCertificates::Certificate(error)) => Err(AuthoritiesError::Certificate(file.to_owned(), error)),
        Err(NoCertificates::Empty) => Err(AuthoritiesError::Empty(file.to_owned())),
    }
}

/// The reason why a text has no certificates that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCertificates {
    /// The text is no PEM.
    #[error("it is not readable PEM")]
    Pem(#[source] pem::Error),
    /// A certificate in it can't be read.
    #[error("a certificate in it can't be read")]
    Certificate(#[source] rustls::Error),
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
}

/// The certificates in a PEM text, as PEM. They are written anew, so that nothing else of the text is in the result.
pub(crate) fn certificates(text: &[u8]) -> Result<String, NoCertificates> {
    let mut written = String::with_capacity(text.len());
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(NoCertificates::Pem)?;
        push_certificate(&mut written, &certificate);
        // As the sidecar reads it.
        let added = RootCertStore::empty().add(certificate);
        added.map_err(NoCertificates::Certificate)?;
    }
    if written.is_empty() {
        return Err(NoCertificates::Empty);
    }
    Ok(written)
}

/// The textual encoding of RFC 7468: lines of 64 characters.
fn push_certificate(text: &mut String, certificate: &[u8]) {
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in STANDARD.encode_to_string(certificate).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
}

/// Reads the file, now and again and again until `stop`, into the settings that reviews use. Where it can't be used, what it had
/// before stays: without any, reviews grant no token of the issuer.
pub async fn follow(file: PathBuf, settings: Arc<ArcSwap<Settings>>, stop: CancellationToken) {
    let mut problem = None;
    loop {
        let found = reload(&file, &settings).err().map(|error| chain(&error));
        // The same problem is one line in the log.
        if let Some(error) = &found
            && problem.as_ref() != Some(error)
        {
            tracing::warn!(error, "the authorities of the issuer's certificate stay those before");
        }
        problem = found;
        if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

/// Reads the file once into `settings`.
pub fn reload(file: &Path, settings: &ArcSwap<Settings>) -> Result<(), AuthoritiesError> {
    let authorities = Some(read(file)?);
    let before = settings.load();
    if before.sidecar.issuer_authorities != authorities {
        let mut changed = Settings::clone(&before);
        changed.sidecar.issuer_authorities = authorities;
        settings.store(Arc::new(changed));
        tracing::info!(file = %file.display(), "the authorities of the issuer's certificate were read");
    }
    Ok(())
}
