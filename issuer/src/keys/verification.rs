//! Keys that verify signatures, parsed once.

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jwk::{Material, PublicJwk};

/// A key that verifies signatures of one algorithm.
#[derive(Clone)]
pub struct VerificationKey {
    algorithm: &'static str,
    key: ParsedPublicKey,
}

impl VerificationKey {
    /// Parses a public key; none where its numbers make no key.
    pub fn of(jwk: &PublicJwk) -> Option<Self> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let key = match &jwk.material {
            Material::Rsa { n, e } => {
                let components = RsaPublicKeyComponents {
                    n: decode(n)?,
                    e: decode(e)?,
                };
                components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?
            }
            Material::Ec { crv, x, y } => {
                let algorithm = match *crv {
                    "P-256" => &ECDSA_P256_SHA256_FIXED,
                    "P-384" => &ECDSA_P384_SHA384_FIXED,
                    _ => &ECDSA_P521_SHA512_FIXED,
                };
                ParsedPublicKey::new(algorithm, [vec![4], decode(x)?, decode(y)?].concat()).ok()?
            }
        };
        Some(Self {
            algorithm: jwk.algorithm(),
            key,
        })
    }

    /// The one algorithm that it verifies.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// True if the key's algorithm is `algorithm` and the signature is the key's.
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        algorithm == self.algorithm && self.key.verify_sig(message, signature).is_ok()
    }
}

/// Keys by their identifier.
#[derive(Clone, Default)]
pub struct VerificationKeys(HashMap<Box<str>, VerificationKey>);

impl VerificationKeys {
    /// Parses public keys. Those whose numbers make no key are left out.
    pub fn of(keys: &[PublicJwk]) -> Self {
        let parsed = keys
            .iter()
            .filter_map(|jwk| Some((jwk.kid().into(), VerificationKey::of(jwk)?)));
        Self(parsed.collect())
    }

    /// The key of an identifier.
    pub fn find(&self, kid: &str) -> Option<&VerificationKey> {
        self.0.get(kid)
    }

    /// The number of them.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
