//! Certificates of our own keys, for relying parties that read keys from certificates alone (`x5c`, RFC 7517 §4.7).
//!
//! Such a certificate is signed with its own key and certifies no identity: it is another form of the public key.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use secrecy::{ExposeSecret as _, SecretString};

/// A certificate of a key (PKCS #8, PEM), in DER. It ends long after the key, which counts for as long as it is published. `None` if
/// the key can't sign one: the library's own error could quote the key.
pub(super) fn of_key(pem: &SecretString, kid: &str) -> Option<Vec<u8>> {
    let pair = KeyPair::from_pem(pem.expose_secret()).ok()?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, kid);
    Some(params.self_signed(&pair).ok()?.der().to_vec())
}
