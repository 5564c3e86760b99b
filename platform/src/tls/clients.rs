//! The clients that may connect to a listener that asks for a certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;

use crate::telemetry::chain;

/// The largest file of authorities that is read: some hundred certificates.
const MOST_FILE_BYTES: u64 = 1 << 20;
/// Between two looks at the file: a kubelet needs a minute or so for a changed volume anyway.
const PERIOD: Duration = Duration::from_secs(10);

/// The clients that a listener takes: those with a certificate of some authority, and, where names are given, of one of them.
#[derive(Debug)]
pub struct Clients {
    file: PathBuf,
    names: Vec<String>,
    verifier: ArcSwap<Trusted>,
    /// The last contents of the file, so that only a change is read.
    read: Mutex<Vec<u8>>,
}

#[derive(Debug)]
struct Trusted(Arc<dyn ClientCertVerifier>);

/// The reason why the authorities of client certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// The file can't be read.
    #[error("the client authorities in {} can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is larger than any list of authorities.
    #[error("the client authorities in {} have more than {} MiB", .0.display(), MOST_FILE_BYTES >> 20)]
    TooLarge(PathBuf),
    /// The file is no PEM.
    #[error("the client authorities in {} are not readable PEM", .0.display())]
    Pem(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// A certificate in the file is none of an authority.
    #[error("a certificate in {} can't be trusted as an authority", .0.display())]
    Authority(PathBuf, #[source] rustls::Error),
    /// There is no certificate in the file.
    #[error("there is no client authority in {}", .0.display())]
    Empty(PathBuf, #[source] VerifierBuilderError),
}

impl Clients {
    /// Clients with a certificate of an authority in this PEM file whose common name or one of whose alternative names is
    /// among `names`. Without names every certificate of these authorities will do.
    pub fn from_file(file: &Path, names: Vec<String>) -> Result<Arc<Self>, ClientsError> {
        let pem = read(file)?;
        Ok(Arc::new(Self {
            verifier: ArcSwap::from_pointee(trusted(file, &pem)?),
            file: file.to_owned(),
            names,
            read: Mutex::new(pem),
        }))
    }

    /// Reads the file again; from the next handshake on what it has counts. Where it can't be used, what it had before stays.
    pub fn reload(&self) -> Result<(), ClientsError> {
        let pem = read(&self.file)?;
        let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == pem {
            return Ok(());
        }
        self.verifier.store(Arc::new(trusted(&self.file, &pem)?));
        *before = pem;
        tracing::info!(file = %self.file.display(), "the client authorities were read");
        Ok(())
    }

    /// Reloads again and again until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut problem = None;
        while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            let found = self.reload().err().map(|error| chain(&error));
            // The same problem is one line in the log.
            if let Some(error) = &found
                && problem.as_ref() != Some(error)
            {
                tracing::warn!(error, "the client authorities stay those before");
            }
            problem = found;
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ClientsError> {
    use std::io::Read as _;
    let unread = |error| ClientsError::Read(file.to_owned(), error);
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file).map_err(unread)?;
    opened.take(MOST_FILE_BYTES + 1).read_to_end(&mut pem).map_err(unread)?;
    if pem.len() as u64 > MOST_FILE_BYTES {
        return Err(ClientsError::TooLarge(file.to_owned()));
    }
    Ok(pem)
}

fn trusted(file: &Path, pem: &[u8]) -> Result<Trusted, ClientsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| ClientsError::Pem(file.to_owned(), error))?;
        roots
            .add(certificate)
            .map_err(|error| ClientsError::Authority(file.to_owned(), error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier
        .map(Trusted)
        .map_err(|error| ClientsError::Empty(file.to_owned(), error))
}

/// True if the certificate's common name or one of its alternative names is among these.
fn is_named(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let is_one = |name: &str| names.iter().any(|wanted| wanted == name);
    let mut common = certificate.subject().iter_common_name();
    if common.any(|name| name.as_str().is_ok_and(is_one)) {
        return true;
    }
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let mut alternative = alternative.iter().flat_map(|names| &names.value.general_names);
    alternative.any(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => is_one(name),
        _ => false,
    })
}

impl ClientCertVerifier for Clients {
    /// No hints: the authorities may change, and a client with one certificate shows it anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .verifier
            .load()
            .0
            .verify_client_cert(certificate, intermediates, now)?;
        if self.names.is_empty() || is_named(certificate, &self.names) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .load()
            .0
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .load()
            .0
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().0.supported_verify_schemes()
    }
}
