//! A certificate with its private key.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::x509::{Certificate, UnreadableCertificate, Validity};

/// A certificate, those that lead from it to an authority, and the certificate's private key: readable, of one pair, and valid
/// when it was parsed.
#[derive(Clone)]
pub struct CertificatePair {
    key: Arc<CertifiedKey>,
    certificate: Arc<Certificate>,
}

/// The reason why a certificate and key can't be used. No text repeats anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum UnusablePair {
    /// The certificates are not PEM.
    #[error("the certificate chain is not readable PEM")]
    Chain(#[source] pem::Error),
    /// There is no certificate in the PEM text.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// The first certificate can't be read.
    #[error(transparent)]
    Certificate(#[from] UnreadableCertificate),
    /// The key is not PEM, no private key is in it, or it is of a kind that can't be used. The parser's own error may quote a
    /// line, so it is left out.
    #[error("the private key is not a usable private key in PEM")]
    Key,
    /// The key belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Mismatch(#[source] Error),
    /// Its time is over, or not yet come.
    #[error("the certificate is valid from {} to {}, and now is {now}", .validity.not_before, .validity.not_after)]
    NotValidNow {
        /// The time for which it is valid.
        validity: Validity,
        /// The time at which it was judged.
        now: Timestamp,
    },
}

impl CertificatePair {
    /// Reads a chain of certificates (leaf first) and the leaf's key, both PEM, and sees that they can be used at `now`.
    pub fn parse(certificates: &[u8], key: &[u8], now: Timestamp) -> Result<Self, UnusablePair> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(UnusablePair::Chain)?;
        let leaf = chain.first().ok_or(UnusablePair::NoCertificate)?;
        let certificate = Certificate::from_der(leaf.clone())?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| UnusablePair::Key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => UnusablePair::Mismatch(error),
            _ => UnusablePair::Key,
        })?;
        if !certificate.validity.covers(now) {
            return Err(UnusablePair::NotValidNow {
                validity: certificate.validity,
                now,
            });
        }
        Ok(Self {
            key: Arc::new(key),
            certificate: Arc::new(certificate),
        })
    }

    /// The certificate whose key it is.
    pub fn certificate(&self) -> &Arc<Certificate> {
        &self.certificate
    }

    /// The chain and the key as a TLS server shows and uses them.
    pub(crate) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Debug for CertificatePair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("CertificatePair")
            .field(&self.certificate)
            .finish()
    }
}
