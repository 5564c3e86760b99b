//! A certificate: what of X.509 (RFC 5280) is read, and its PEM.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::nom;
use x509_parser::time::ASN1Time;

/// The time in which a certificate is valid, both ends inclusive (RFC 5280, 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// True if a certificate is valid at `now`.
    pub fn covers(self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A certificate that was read. Equal are those of the same bytes.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    /// The time in which it is valid.
    pub validity: Validity,
    /// The DNS names that it is good for.
    pub dns_names: Vec<String>,
    /// The IP addresses that it is good for.
    pub addresses: Vec<IpAddr>,
    /// Its serial number, in hexadecimal bytes with colons.
    pub serial: String,
    /// True if it is the certificate of an authority.
    pub is_authority: bool,
    /// The DNS names and single IP addresses that an authority may sign for (RFC 5280, 4.2.1.10); none if it may sign for any.
    pub permitted_names: Option<BTreeSet<String>>,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

/// A certificate is not X.509.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is not readable X.509")]
pub struct UnreadableCertificate(#[from] X509Error);

impl Certificate {
    /// Reads one.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, UnreadableCertificate> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| match error {
            nom::Err::Error(error) | nom::Err::Failure(error) => error,
            nom::Err::Incomplete(_) => X509Error::InvalidCertificate,
        })?;
        // What is behind the certificate belongs to none, and a TLS peer refuses it.
        if !rest.is_empty() {
            return Err(X509Error::InvalidCertificate.into());
        }
        let validity = Validity {
            not_before: timestamp(parsed.validity().not_before)?,
            not_after: timestamp(parsed.validity().not_after)?,
        };
        let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
        let names = parsed.subject_alternative_name()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => addresses.extend(address(octets)),
                _ => {}
            }
        }
        let (serial, is_authority) = (parsed.raw_serial_as_string(), parsed.is_ca());
        let permitted_names = permitted_names(&parsed);
        Ok(Self {
            der,
            validity,
            dns_names,
            addresses,
            serial,
            is_authority,
            permitted_names,
        })
    }

    /// The certificates of a PEM text, and whether all of it could be read.
    pub fn all_in(pem: &[u8]) -> (Vec<Self>, bool) {
        let mut sound = true;
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            match der.ok().and_then(|der| Self::from_der(der).ok()) {
                Some(certificate) => certificates.push(certificate),
                None => sound = false,
            }
        }
        (certificates, sound)
    }

    /// Its bytes.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// As PEM.
    pub fn pem(&self) -> String {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        pem::encode_config(&Pem::new("CERTIFICATE", self.der.as_ref()), config)
    }

    /// The DNS names and IP addresses that it is good for.
    pub fn names(&self) -> BTreeSet<String> {
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        self.dns_names.iter().cloned().chain(addresses).collect()
    }
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, X509Error> {
    Timestamp::from_second(time.timestamp()).map_err(|_| X509Error::InvalidDate)
}

fn permitted_names(certificate: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
    let constraints = certificate.name_constraints().ok()??;
    let permitted = constraints.value.permitted_subtrees.iter().flatten();
    let names = permitted.filter_map(|subtree| match &subtree.base {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        // An address, then a mask of the same length.
        GeneralName::IPAddress(octets) => address(octets.get(..octets.len() / 2)?).map(|address| address.to_string()),
        _ => None,
    });
    Some(names.collect())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}
