//! A probe of the webhook: a review that the operator sends to find out whether the webhook works.
//!
//! Marks of pods are no evidence, since whoever may create a pod can write them. The operator sends a review as
//! the API server does: through the Service, over TLS, trusting what the webhook configuration tells the API server to trust.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokenscope_core::trial_review;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::certificates::TrustBundles;

/// The deadline of one question, from the name's resolution to the answer's end.
const DEADLINE: Duration = Duration::from_secs(5);
/// The time between two questions.
const PAUSE: Duration = Duration::from_secs(5);
/// The time for which an answer shows that the webhook works: until the next one may be there.
const VALID: Duration = Duration::from_secs(12);

/// The reason why the webhook does not count as working.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The value of the flag is no address.
    #[error("--webhook-address: {0:?} is no address: HOST:PORT is expected")]
    Address(String),
    /// There is no configuration, or an entry of it has no bundle.
    #[error("the webhook configuration names no certificate authority that all of its entries trust")]
    NoAuthority,
    /// A file of the client's certificate can't be read.
    #[error("{} has no readable certificate or key", .0.display())]
    ClientCertificate(PathBuf),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// Nobody answers.
    #[error("{0} can't be reached, or broke off")]
    Unreachable(String, #[source] io::Error),
    /// The webhook takes too long.
    #[error("{0} did not answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Late(String),
    /// The webhook does not let the pod through.
    #[error("{0} answered {1:?}")]
    Answer(String, String),
}

/// The certificate that the operator shows, where the webhook asks its clients for one: PEM files.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate {
    /// The certificate and those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Asks the webhook.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// HOST:PORT of the Service.
    pub(crate) address: String,
    /// The bundles that the API servers are told to trust.
    pub(crate) bundles: watch::Receiver<Option<TrustBundles>>,
    /// The certificate to show where the webhook asks its clients for one.
    pub(crate) client_certificate: Option<ClientCertificate>,
}

impl Probe {
    /// Sends one review of a pod that opts out, which changes nothing; it succeeds if the webhook lets the pod through.
    pub(crate) async fn ask(self) -> Result<(), Error> {
        timeout(DEADLINE, self.review())
            .await
            .unwrap_or_else(|_| Err(Error::Late(self.address.clone())))
    }

    async fn review(&self) -> Result<(), Error> {
        let address = &self.address;
        let no_address = || Error::Address(address.clone());
        let (host, _) = address.rsplit_once(':').ok_or_else(no_address)?;
        // An IPv6 address stands in brackets.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| no_address())?;
        let config = self.trusting().await?;
        let unreachable = |error| Error::Unreachable(address.clone(), error);

        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.map_err(unreachable)?;
        stream
            .write_all(trial_review::request(host).as_bytes())
            .await
            .map_err(unreachable)?;
        let mut text = Vec::new();
        let mut answer = stream.take(trial_review::LONGEST_ANSWER);
        answer.read_to_end(&mut text).await.map_err(unreachable)?;
        let text = String::from_utf8_lossy(&text);
        if trial_review::lets_the_pod_through(&text) {
            return Ok(());
        }
        let first = text.lines().next().unwrap_or_default().chars().take(200).collect();
        Err(Error::Answer(address.clone(), first))
    }

    /// Trusts what every entry of the webhook configuration trusts.
    async fn trusting(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for authority in common_authorities(self.bundles.borrow().as_ref()) {
            roots.add(authority)?;
        }
        if roots.is_empty() {
            return Err(Error::NoAuthority);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let Some(ClientCertificate { certificate, key }) = &self.client_certificate else {
            return Ok(builder.with_no_client_auth());
        };
        let read = async |file: &PathBuf| {
            let text = tokio::fs::read(file).await;
            text.map_err(|_| Error::ClientCertificate(file.clone()))
        };
        let chain = CertificateDer::pem_slice_iter(&read(certificate).await?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::ClientCertificate(certificate.clone()))?;
        // The parser's own error may quote a line of the key.
        let private_key =
            PrivateKeyDer::from_pem_slice(&read(key).await?).map_err(|_| Error::ClientCertificate(key.clone()))?;
        Ok(builder.with_client_auth_cert(chain, private_key)?)
    }
}

/// The authorities that are in every bundle.
fn common_authorities(bundles: Option<&TrustBundles>) -> Vec<CertificateDer<'static>> {
    let bundles = bundles.into_iter().flatten().flatten();
    let mut bundles = bundles.map(|pem| CertificateDer::pem_slice_iter(pem).flatten().collect::<Vec<_>>());
    let mut common = bundles.next().unwrap_or_default();
    for others in bundles {
        common.retain(|authority| others.contains(authority));
    }
    common
}

/// The webhook's answers so far.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    is_asked: bool,
    asked: Option<Instant>,
    worked: Option<Instant>,
    /// True if the last answer was a failure, which was told.
    failed: bool,
}

impl Evidence {
    /// True if the webhook has shown lately that it works.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.worked.is_some_and(|worked| now < worked + VALID)
    }

    /// True if it may be asked now, which is noted if so.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        let may = !self.is_asked && self.asked.is_none_or(|asked| now >= asked + PAUSE);
        if may {
            (self.is_asked, self.asked) = (true, Some(now));
        }
        may
    }

    /// Takes in an answer; answers whether it is the first failure in a row.
    pub(crate) fn note(&mut self, works: bool, now: Instant) -> bool {
        self.is_asked = false;
        self.worked = works.then_some(now);
        let is_first = !works && !self.failed;
        self.failed = !works;
        is_first
    }
}

#[cfg(test)]
mod tests;
