//! The authorities of the issuer's certificate, which sidecars get with their environment.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64_simd::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use tokenscope_core::Settings;
use tokenscope_platform::telemetry::chain;
use tokio_util::sync::CancellationToken;

/// The largest file that is read. What it has stands in every pod that gets tokens of the issuer, so it must stay small.
const MOST_FILE_BYTES: u64 = 32 << 10;
/// Between two looks at the file: a kubelet needs a minute or so for a changed volume anyway.
const PERIOD: Duration = Duration::from_secs(10);

/// The reason why the authorities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file can't be read.
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is larger than it may be.
    #[error("{} has more than {} KiB", .0.display(), MOST_FILE_BYTES >> 10)]
    TooLarge(PathBuf),
    /// The file is no PEM.
    #[error("{} is not readable PEM", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
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
        .take(MOST_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(unread)?;
    if text.len() as u64 > MOST_FILE_BYTES {
        return Err(AuthoritiesError::TooLarge(file.to_owned()));
    }
    let mut written = String::with_capacity(text.len());
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| AuthoritiesError::Pem(file.to_owned(), error))?;
        push_certificate(&mut written, &certificate);
    }
    if written.is_empty() {
        return Err(AuthoritiesError::Empty(file.to_owned()));
    }
    Ok(written.into())
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
