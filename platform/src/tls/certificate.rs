//! The certificate that a listener shows, which can be replaced while it serves.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

/// The certificate and key that a listener shows, or none yet: then every handshake fails.
#[derive(Default)]
pub struct ServingCertificate(ArcSwapOption<Pair>);

struct Pair {
    key: Arc<CertifiedKey>,
    info: Arc<CertificateInfo>,
}

/// What a serving certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// The DNS names that it is good for.
    pub dns_names: Vec<String>,
    /// Its serial number, in hexadecimal bytes with colons.
    pub serial: String,
}

/// Why a certificate and key are not taken. No text repeats anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates are not PEM.
    #[error("the certificate chain is not readable PEM")]
    Chain(#[source] rustls_pki_types::pem::Error),
    /// There is no certificate in the PEM text.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// The key is not PEM, or no private key is in it. The parser's own error may quote a line, so it is left out.
    #[error("the private key is not a private key in PEM")]
    Key,
    /// The key is of a kind that can't be used, or belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Mismatch(#[source] rustls::Error),
    /// The first certificate can't be read.
    #[error("the certificate is not readable X.509")]
    Certificate(#[source] x509_parser::error::X509Error),
    /// Its time is over, or not yet come.
    #[error("the certificate is valid from {not_before} to {not_after}, and now is {now}")]
    NotValidNow {
        /// From when it is valid.
        not_before: Timestamp,
        /// Until when it is valid.
        not_after: Timestamp,
        /// When that was looked at.
        now: Timestamp,
    },
}

impl ServingCertificate {
    /// No certificate yet.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    /// The certificate chain (leaf first) and private key in these PEM texts.
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Arc<Self>, Error> {
        let this = Self::empty();
        this.replace(certificates, key)?;
        Ok(this)
    }

    /// Shows this chain (leaf first) with this key from the next handshake on.
    ///
    /// A pair that can't be read, doesn't belong together or isn't valid now is refused, and the one before stays.
    pub fn replace(
        &self,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Arc<CertificateInfo>, Error> {
        self.replace_at(certificates.as_ref(), key.as_ref(), Timestamp::now())
    }

    /// What is shown now.
    pub fn info(&self) -> Option<Arc<CertificateInfo>> {
        self.0.load().as_ref().map(|pair| pair.info.clone())
    }

    fn replace_at(&self, certificates: &[u8], key: &[u8], now: Timestamp) -> Result<Arc<CertificateInfo>, Error> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Chain)?;
        let info = Arc::new(describe(chain.first().ok_or(Error::NoCertificate)?)?);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::Key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(Error::Mismatch)?;
        let CertificateInfo {
            not_before, not_after, ..
        } = *info;
        if now < not_before || now > not_after {
            return Err(Error::NotValidNow {
                not_before,
                not_after,
                now,
            });
        }
        self.0.store(Some(Arc::new(Pair {
            key: Arc::new(key),
            info: info.clone(),
        })));
        Ok(info)
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ServingCertificate").field(&self.info()).finish()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| pair.key.clone())
    }
}

fn describe(leaf: &CertificateDer<'_>) -> Result<CertificateInfo, Error> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| match error {
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => Error::Certificate(error),
        x509_parser::nom::Err::Incomplete(_) => Error::Certificate(x509_parser::error::X509Error::InvalidCertificate),
    })?;
    let names = leaf.subject_alternative_name().map_err(Error::Certificate)?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp())
            .map_err(|_| Error::Certificate(x509_parser::error::X509Error::InvalidDate))
    };
    Ok(CertificateInfo {
        not_before: time(leaf.validity().not_before)?,
        not_after: time(leaf.validity().not_after)?,
        dns_names: names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
        serial: leaf.raw_serial_as_string(),
    })
}
