//! Keys: those that sign, those that are published, and those that verify.
//!
//! A key's identifier is the thumbprint of RFC 7638, so it is made of the key and no two keys ever have one. A key has exactly one
//! algorithm, by its kind: RSA with SHA-256, and each curve with its own hash.

mod certificate;
mod jwk;
mod own_set;
mod signing;
mod verification;

pub use jwk::{InvalidJwks, MOST_KEYS_OF_A_KIND, PublicJwk, document, read};
pub use own_set::{InvalidOwnSet, read_own};
pub use signing::{KeyError, SigningKey};
use tokenscope_core::Algorithm;
pub use verification::{VerificationKey, VerificationKeys};

/// The name of a signature algorithm in a token's header (RFC 7518 §3.1).
pub fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
    }
}

/// The algorithm of a name.
pub fn algorithm_of(name: &str) -> Option<Algorithm> {
    let mut all = Algorithm::ALL.into_iter();
    all.find(|algorithm| algorithm_name(*algorithm) == name)
}
