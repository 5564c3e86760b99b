//! The certificate that a listener shows, which can be replaced while it serves.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificate, CertificatePair, UnusablePair};

/// The certificate and key that a listener shows, or none yet: then every handshake fails.
#[derive(Default)]
pub struct ServingCertificate(ArcSwapOption<CertificatePair>);

impl ServingCertificate {
    /// No certificate yet.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    /// The certificate chain (leaf first) and private key in these PEM texts.
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Arc<Self>, UnusablePair> {
        let this = Self::empty();
        this.replace(certificates, key)?;
        Ok(this)
    }

    /// Shows this chain (leaf first) with this key from the next handshake on.
    ///
    /// A pair that can't be used now is refused, and the one before stays.
    pub fn replace(
        &self,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Arc<Certificate>, UnusablePair> {
        let pair = CertificatePair::parse(certificates.as_ref(), key.as_ref(), Timestamp::now())?;
        let certificate = pair.certificate().clone();
        self.show(pair);
        Ok(certificate)
    }

    /// Shows this pair from the next handshake on.
    pub fn show(&self, pair: CertificatePair) {
        self.0.store(Some(Arc::new(pair)));
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.0.load().as_ref().map(|pair| pair.certificate().clone())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("ServingCertificate")
            .field(&self.certificate())
            .finish()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| pair.certified_key().clone())
    }
}
