//! Certificates of our own keys, for relying parties that read keys from certificates alone (`x5c`, RFC 7517 §4.7).
//!
//! Such a certificate is signed with its own key and says nothing of anybody: it is another form of the public key.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use secrecy::ExposeSecret as _;

use super::jwk::PublicJwk;
use super::signing::{KeyError, SigningKey};

/// What is published of a key, with a certificate of it. It ends long after the key, which counts for as long as it is published.
pub(super) fn certified(key: &SigningKey) -> Result<PublicJwk, KeyError> {
    let pem = key.to_pem()?;
    // The library's own error could quote the key.
    let pair = KeyPair::from_pem(pem.expose_secret()).map_err(|_| KeyError::Crypto)?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, key.kid());
    let certificate = params.self_signed(&pair).map_err(|_| KeyError::Crypto)?;
    Ok(key.public().clone().certified(certificate.der()))
}
