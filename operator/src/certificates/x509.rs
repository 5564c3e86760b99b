//! Making certificates, and which authority signed one. No private key leaves through `Debug` or an error.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{ServerName, UnixTime};
use tokenscope_platform::certificate::{Certificate, CertificatePair, Validity};

use super::plan::{Constraint, IssueReason, made};

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate can't be made")]
pub(crate) struct NotMade(#[from] rcgen::Error);

/// A certificate and its private key, both PEM.
pub(crate) struct IssuedPair {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
}

/// A certificate authority that can sign.
pub(crate) struct SigningAuthority {
    certificate: Arc<Certificate>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate authority that was made.
pub(crate) struct NewAuthority {
    /// Its own certificate and key.
    pub(crate) pair: IssuedPair,
    /// The same name and key, certified by the authority before: whoever trusts that one, trusts this one by it.
    pub(crate) cross: Option<String>,
}

/// Makes a certificate authority: ECDSA P-256, for serving certificates of these DNS names and IP addresses only. Whoever
/// takes its key can't pose as anybody else towards those who trust it.
///
/// `former` vouches for it until it ends itself. `depth` is how many authorities may stand between it and a serving certificate.
pub(crate) fn create_authority(
    name: &str,
    hosts: &[String],
    validity: Validity,
    depth: u8,
    former: Option<&SigningAuthority>,
) -> Result<NewAuthority, NotMade> {
    let mut params = CertificateParams::default();
    // Each has a name of its own, so that a verifier never has to guess which of several signed.
    params.distinguished_name = common_name(&format!("{name} {}", made(validity)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(name_constraints(hosts));
    set_validity(&mut params, validity);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?.pem();
    let cross = former.map(|former| {
        let not_after = validity.not_after.min(former.validity().not_after);
        set_validity(&mut params, Validity { not_after, ..validity });
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&key, &former.issuer)
    });
    Ok(NewAuthority {
        pair: IssuedPair {
            certificate,
            key: key.serialize_pem(),
        },
        cross: cross.transpose()?.map(|cross| cross.pem()),
    })
}

impl SigningAuthority {
    /// Reads one from PEM; it must be able to sign at `now`.
    pub(crate) fn read(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Self, IssueReason> {
        let certificate = CertificatePair::parse(certificate, key, now)?.certificate().clone();
        if !certificate.is_authority {
            return Err(IssueReason::Unreadable);
        }
        let issuer =
            Issuer::from_ca_cert_der(certificate.der(), read_key(key)?).map_err(|_| IssueReason::Unreadable)?;
        Ok(Self { certificate, issuer })
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its life.
    pub(crate) fn validity(&self) -> Validity {
        self.certificate.validity
    }

    /// The relation of the names that it may sign for to these.
    pub(crate) fn constraint(&self, hosts: &[String]) -> Constraint {
        let wanted: BTreeSet<String> = hosts.iter().cloned().collect();
        match &self.certificate.permitted_names {
            Some(permitted) if *permitted == wanted => Constraint::Exact,
            Some(permitted) if !permitted.is_superset(&wanted) => Constraint::TooNarrow,
            _ => Constraint::TooWide,
        }
    }

    /// True if this is its certificate.
    pub(crate) fn is(&self, certificate: &Certificate) -> bool {
        *self.certificate == *certificate
    }

    /// True if it signed a certificate that an API server would accept for one of the certificate's own names.
    pub(crate) fn signed(&self, certificate: &Certificate, now: Timestamp) -> bool {
        signed_by(&self.certificate, certificate, now)
    }

    /// Signs a serving certificate for DNS names and IP addresses.
    pub(crate) fn sign(&self, names: &[String], validity: Validity) -> Result<IssuedPair, NotMade> {
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
        Ok(IssuedPair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// True if an authority signed a certificate that an API server would accept for one of the certificate's own names.
pub(crate) fn signed_by(authority: &Certificate, certificate: &Certificate, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.der().clone()).is_err() {
        return false;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    certificate.names().first().is_some_and(|name| {
        ServerName::try_from(name.as_str()).is_ok_and(|name| {
            verifier
                .verify_server_cert(certificate.der(), &[], &name, &[], now)
                .is_ok()
        })
    })
}

/// The parser's own error could quote the text, so it is left out.
fn read_key(pem: &[u8]) -> Result<KeyPair, IssueReason> {
    let text = std::str::from_utf8(pem).map_err(|_| IssueReason::Unreadable)?;
    KeyPair::from_pem(text).map_err(|_| IssueReason::Unreadable)
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

/// The most authorities of a bundle: a webhook configuration is sent to every API server whole.
const MOST_TRUSTED: usize = 4;
/// Those of these certificates that are valid now, each once.
pub(super) fn valid(certificates: Vec<Certificate>, now: Timestamp) -> Vec<Certificate> {
    let mut valid: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if certificate.validity.covers(now) && !valid.contains(&certificate) {
            valid.push(certificate);
        }
    }
    valid
}

/// The authority first, then others.
pub(super) fn bundle(authority: &str, others: &[Certificate]) -> String {
    let (own, _) = Certificate::all_in(authority.as_bytes());
    let mut pem = String::new();
    for certificate in own
        .iter()
        .chain(others.iter().filter(|other| !own.contains(other)))
        .take(MOST_TRUSTED)
    {
        pem.push_str(&certificate.pem());
    }
    pem
}
