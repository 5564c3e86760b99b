//! The issuer's authority that a pod got when it was admitted.

use std::hash::{DefaultHasher, Hasher as _};
use std::num::NonZeroU64;

/// An authority of the issuer, as a number that is kept of each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuerAuthority(NonZeroU64);

impl IssuerAuthority {
    /// The first of these certificates in PEM: what is told of authorities begins with the present one. White space doesn't matter.
    pub(crate) fn first_of(pem: &str) -> Option<Self> {
        let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
        let (certificate, _) = rest.split_once("-----END CERTIFICATE-----")?;
        let mut hasher = DefaultHasher::new();
        for part in certificate.split_ascii_whitespace() {
            hasher.write(part.as_bytes());
        }
        NonZeroU64::new(hasher.finish()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_the_same_however_its_lines_end_and_the_first_counts() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let one = IssuerAuthority::first_of(&pem("QUFB\nQkJC"));
        assert!(one.is_some());
        assert_eq!(IssuerAuthority::first_of(&pem("QUFB\r\nQkJC\r")), one);
        assert_eq!(IssuerAuthority::first_of(&(pem("QUFBQkJC") + &pem("other"))), one);
        assert_ne!(IssuerAuthority::first_of(&pem("other")), one);
        for broken in ["", "-----BEGIN CERTIFICATE-----", "QUFB"] {
            assert_eq!(IssuerAuthority::first_of(broken), None);
        }
    }
}
