//! The keys that an issuer publishes, and the signatures that they verify.

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Keys of one kind that an issuer may publish (IAM User Guide, "Create an OpenID Connect (OIDC) identity provider in IAM":
/// at most 100 RSA and 100 EC keys).
const MAX_KEYS: usize = 100;

/// The signature algorithms that STS takes (STS API reference, AssumeRoleWithWebIdentity, WebIdentityToken).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
}

impl TokenAlgorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }
}

/// A public key out of a JWKS.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The only algorithm it is meant for, if it says so.
    algorithm: Option<String>,
    public: PublicKey,
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

impl Key {
    /// One algorithm, the header's, with exactly the kind of key that it needs: a key is never tried with another.
    pub(super) fn verifies(&self, algorithm: TokenAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if self
            .algorithm
            .as_deref()
            .is_some_and(|only| TokenAlgorithm::parse(only) != Some(algorithm))
        {
            return false;
        }
        let checked = match (&self.public, algorithm) {
            (
                PublicKey::Rsa { modulus, exponent },
                TokenAlgorithm::Rs256 | TokenAlgorithm::Rs384 | TokenAlgorithm::Rs512,
            ) => {
                let parameters = match algorithm {
                    TokenAlgorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    TokenAlgorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, message, signature)
            }
            (PublicKey::Ec { curve, point }, _) => {
                let parameters = match (curve.as_str(), algorithm) {
                    ("P-256", TokenAlgorithm::Es256) => &ECDSA_P256_SHA256_FIXED,
                    ("P-384", TokenAlgorithm::Es384) => &ECDSA_P384_SHA384_FIXED,
                    ("P-521", TokenAlgorithm::Es512) => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(message, signature)
            }
            _ => return false,
        };
        checked.is_ok()
    }
}

/// An issuer's published keys by `kid`.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(pub(super) HashMap<String, Key>);

impl KeySet {
    /// Reads a JWKS (RFC 7517 §5). The error says why AWS would not take it.
    pub(crate) fn parse(jwks: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        let set: Set = serde_json::from_slice(jwks).map_err(|error| format!("not a JWKS: {error}"))?;
        let count = |kind: &str| set.keys.iter().filter(|key| key.kty == kind).count();
        let (rsa, ec) = (count("RSA"), count("EC"));
        if rsa > MAX_KEYS || ec > MAX_KEYS {
            return Err(format!(
                "{rsa} RSA and {ec} EC keys: at most {MAX_KEYS} of each are allowed"
            ));
        }
        if rsa + ec == 0 {
            return Err("no RSA and no EC key".to_owned());
        }
        Ok(Self(set.keys.into_iter().filter_map(Jwk::usable).collect()))
    }

    pub(crate) fn find(&self, key_id: &str) -> Option<&Key> {
        self.0.get(key_id)
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// `None` for a key that no token can name or that is not for signatures.
    fn usable(self) -> Option<(String, Key)> {
        if self.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let public = match self.kty.as_str() {
            "RSA" => {
                let (mut modulus, exponent) = (decode(self.n)?, decode(self.e)?);
                let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
                modulus.drain(..zeros);
                PublicKey::Rsa { modulus, exponent }
            }
            "EC" => PublicKey::Ec {
                curve: self.crv?,
                point: [vec![4], decode(self.x)?, decode(self.y)?].concat(),
            },
            _ => return None,
        };
        Some((
            self.kid?,
            Key {
                algorithm: self.alg,
                public,
            },
        ))
    }
}
