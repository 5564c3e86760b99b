//! Making certificates and reading them. No private key leaves through `Debug` or an error.

use super::plan::{Constraint, Reason, Validity};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, time::ASN1Time};

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate can't be made")]
pub(crate) struct NotMade(#[from] rcgen::Error);

/// A certificate and its private key, both PEM.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
}

/// A certificate authority that can sign.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

/// A certificate that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
    /// Its life.
    pub(crate) validity: Validity,
    names: BTreeSet<String>,
}

/// Makes a certificate authority: ECDSA P-256, for serving certificates of these DNS names and IP addresses only. Whoever
/// takes its key can't pose as anybody else towards those who trust it.
pub(crate) fn create_authority(hosts: &[String], validity: Validity) -> Result<Pair, NotMade> {
    let mut params = CertificateParams::default();
    // Each has a name of its own, so that a verifier never has to guess which of several signed.
    params.distinguished_name = common_name(&format!("tokenscope webhook CA {}", validity.made()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(name_constraints(hosts));
    set_validity(&mut params, validity);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Pair {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

impl Authority {
    /// Reads one from PEM; it must be able to sign at `now`.
    pub(crate) fn read(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Self, Reason> {
        let read = read_pair(certificate, key, now)?;
        if !parse(&read.der).ok_or(Reason::Unreadable)?.is_ca() {
            return Err(Reason::Unreadable);
        }
        let issuer = Issuer::from_ca_cert_der(&read.der, read_key(key)?).map_err(|_| Reason::Unreadable)?;
        Ok(Self {
            certificate: read.der,
            issuer,
            validity: read.validity,
        })
    }

    /// Its life.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// How the names that it may sign for stand to these.
    pub(crate) fn constraint(&self, hosts: &[String]) -> Constraint {
        let wanted: BTreeSet<String> = hosts.iter().cloned().collect();
        match permitted_names(&self.certificate) {
            Some(permitted) if permitted == wanted => Constraint::Exact,
            Some(permitted) if !permitted.is_superset(&wanted) => Constraint::TooNarrow,
            _ => Constraint::TooWide,
        }
    }

    /// Whether this is its certificate.
    pub(crate) fn is(&self, certificate: &Certificate) -> bool {
        self.certificate == certificate.der
    }

    /// Whether it signed a certificate that an API server would accept for one of the certificate's own names.
    pub(crate) fn signed(&self, certificate: &Certificate, now: Timestamp) -> bool {
        vouches(&self.certificate, certificate, now)
    }

    /// Signs a serving certificate for DNS names and IP addresses.
    pub(crate) fn sign(&self, names: &[String], validity: Validity) -> Result<Pair, NotMade> {
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        // A common name has at most 64 characters (RFC 5280, ub-common-name) and says nothing that the names don't.
        params.distinguished_name = common_name("tokenscope webhook");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Certificate {
    /// The certificates of a PEM text, and whether all of it could be read.
    pub(crate) fn all_in(pem: &[u8]) -> (Vec<Self>, bool) {
        let mut sound = true;
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            match der.ok().and_then(Self::from_der) {
                Some(certificate) => certificates.push(certificate),
                None => sound = false,
            }
        }
        (certificates, sound)
    }

    /// Reads a serving certificate and sees that the key is its own and that it is valid at `now`.
    pub(crate) fn read(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Self, Reason> {
        read_pair(certificate, key, now)
    }

    /// Whether `self`, an authority, signed a certificate that an API server would accept for one of its own names.
    pub(crate) fn signed(&self, other: &Self, now: Timestamp) -> bool {
        vouches(&self.der, other, now)
    }

    /// Whether it names exactly these DNS names and IP addresses.
    pub(crate) fn names_exactly(&self, names: &[String]) -> bool {
        self.names.iter().eq(names.iter().collect::<BTreeSet<_>>())
    }

    /// As PEM.
    pub(crate) fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            // Base64 is ASCII.
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    fn from_der(der: CertificateDer<'static>) -> Option<Self> {
        let parsed = parse(&der)?;
        let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = Validity {
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
        };
        let names = parsed.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => address(octets),
            _ => None,
        });
        let names = names.collect();
        Some(Self { der, validity, names })
    }
}

fn read_pair(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Certificate, Reason> {
    let der = CertificateDer::from_pem_slice(certificate).map_err(|_| Reason::Unreadable)?;
    let read = Certificate::from_der(der).ok_or(Reason::Unreadable)?;
    let key = read_key(key)?;
    let parsed = parse(&read.der).ok_or(Reason::Unreadable)?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(Reason::KeyMismatch);
    }
    if !read.validity.covers(now) {
        return Err(Reason::NotValidNow);
    }
    Ok(read)
}

/// The parser's own error could quote the text, so it is left out.
fn read_key(pem: &[u8]) -> Result<KeyPair, Reason> {
    let text = std::str::from_utf8(pem).map_err(|_| Reason::Unreadable)?;
    KeyPair::from_pem(text).map_err(|_| Reason::Unreadable)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(der).ok().map(|(_, parsed)| parsed)
}

fn vouches(authority: &CertificateDer<'static>, certificate: &Certificate, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    certificate.names.first().is_some_and(|name| {
        ServerName::try_from(name.as_str()).is_ok_and(|name| {
            verifier
                .verify_server_cert(&certificate.der, &[], &name, &[], now)
                .is_ok()
        })
    })
}

/// These names, and no others of either kind: where no name of a kind is permitted, all of it is excluded.
fn name_constraints(hosts: &[String]) -> NameConstraints {
    let (mut permitted, mut excluded) = (Vec::new(), Vec::new());
    for host in hosts {
        permitted.push(match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => GeneralSubtree::IpAddress(CidrSubnet::V4(address.octets(), [0xff; 4])),
            Ok(IpAddr::V6(address)) => GeneralSubtree::IpAddress(CidrSubnet::V6(address.octets(), [0xff; 16])),
            Err(_) => GeneralSubtree::DnsName(host.clone()),
        });
    }
    if !permitted
        .iter()
        .any(|name| matches!(name, GeneralSubtree::IpAddress(_)))
    {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: excluded,
    }
}

/// The DNS names and single IP addresses that an authority is permitted to sign for; none if it may sign for any.
fn permitted_names(authority: &CertificateDer<'_>) -> Option<BTreeSet<String>> {
    let parsed = parse(authority)?;
    let constraints = parsed.name_constraints().ok()??;
    let permitted = constraints.value.permitted_subtrees.iter().flatten();
    let names = permitted.filter_map(|subtree| match &subtree.base {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        // An address, then a mask of the same length.
        GeneralName::IPAddress(octets) => address(octets.get(..octets.len() / 2)?),
        _ => None,
    });
    Some(names.collect())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default());
    params.not_before = epoch + since_epoch(validity.not_before);
    params.not_after = epoch + since_epoch(validity.not_after);
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(octets)
        .ok()
        .map(|octets| IpAddr::from(octets).to_string())
}
