//! Private keys that sign tokens.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokenscope_core::Algorithm;

use super::jwk::PublicJwk;
use super::{algorithm_name, certificate};

/// The reason why a key can't be made, read or used. No text repeats anything of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no PEM of PKCS #8.
    #[error("it is no private key in PEM with the words BEGIN PRIVATE KEY (PKCS #8, not encrypted)")]
    Pem,
    /// The key is of another kind.
    #[error("it is neither an RSA key of 2048 to 8192 bits nor one on P-256 or P-384")]
    Kind,
    /// The crypto library failed.
    #[error("the crypto library failed")]
    Crypto,
}

/// A private key and what is published of it. `Debug` shows the identifier alone.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: SigningPair,
    public: PublicJwk,
    /// The header of its tokens in base64url, with the dot behind it.
    header: Box<str>,
}

enum SigningPair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl SigningKey {
    /// A new key; RSA keys have 2,048 bits.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let ec = |curve| EcdsaKeyPair::generate(curve).map(SigningPair::Ec);
        let pair = match algorithm {
            Algorithm::RS256 => RsaKeyPair::generate(KeySize::Rsa2048).map(SigningPair::Rsa),
            Algorithm::ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
        };
        pair.map(|pair| Self::new(algorithm, pair))
            .map_err(|_| KeyError::Crypto)
    }

    /// Reads the first private key of a PEM text: PKCS #8 (RFC 5958), not encrypted. Its kind says which algorithm it is for.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            // The library itself takes no RSA key of less than 2,048 bits.
            return Ok(Self::new(Algorithm::RS256, SigningPair::Rsa(pair)));
        }
        let curves: [(Algorithm, &'static EcdsaSigningAlgorithm); 2] = [
            (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ];
        let on_curve = curves.into_iter().find_map(|(algorithm, curve)| {
            let pair = EcdsaKeyPair::from_pkcs8(curve, der).ok()?;
            Some(Self::new(algorithm, SigningPair::Ec(pair)))
        });
        on_curve.ok_or(KeyError::Kind)
    }

    /// The private key as PEM of PKCS #8.
    pub fn to_pem(&self) -> Result<SecretString, KeyError> {
        let text = match &self.pair {
            SigningPair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Crypto)?;
                pem(der.as_ref())
            }
            SigningPair::Ec(pair) => pem(pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref()),
        };
        Ok(text)
    }

    fn new(algorithm: Algorithm, pair: SigningPair) -> Self {
        let public = match &pair {
            SigningPair::Rsa(pair) => {
                let key = pair.public_key();
                PublicJwk::rsa(
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                )
            }
            SigningPair::Ec(pair) => {
                let curve = if algorithm == Algorithm::ES256 {
                    "P-256"
                } else {
                    "P-384"
                };
                PublicJwk::ec(curve, pair.public_key().as_ref())
            }
        };
        // A thumbprint in base64url needs no escape in JSON.
        let header = format!(
            r#"{{"alg":"{}","kid":"{}","typ":"JWT"}}"#,
            algorithm_name(algorithm),
            public.kid()
        );
        Self {
            algorithm,
            pair,
            header: format!("{}.", URL_SAFE_NO_PAD.encode(header)).into(),
            public,
        }
    }

    /// The algorithm that it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public part that is published.
    pub fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// The same with a certificate of the key (`x5c`).
    pub fn certified(&self) -> Result<PublicJwk, KeyError> {
        let certificate = certificate::of_key(&self.to_pem()?, self.kid()).ok_or(KeyError::Crypto)?;
        Ok(self.public().clone().certified(&certificate))
    }

    /// The key's identifier.
    pub fn kid(&self) -> &str {
        self.public.kid()
    }

    /// A token with this payload, in the compact form (RFC 7515 §7.1).
    pub fn token(&self, payload: &str) -> Result<String, KeyError> {
        let mut token = String::with_capacity(self.header.len() + (payload.len() + 512) * 4 / 3);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// A signature as tokens have it (RFC 7518 §3.3, §3.4), of any bytes: tests show the servers that judge tokens what no token of ours
    /// has.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            SigningPair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map(|()| signature)
            }
            SigningPair::Ec(pair) => pair.sign(&random, message).map(|found| found.as_ref().to_vec()),
        };
        signature.map_err(|_| KeyError::Crypto)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

/// PEM with lines of 64 characters (RFC 7468 §2).
fn pem(der: &[u8]) -> SecretString {
    let body = SecretString::from(STANDARD.encode(der));
    let lines: Vec<&str> = body
        .expose_secret()
        .as_bytes()
        .chunks(64)
        // Base64 is ASCII.
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_pem_and_keeps_its_identifier() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm).unwrap();
            let pem = key.to_pem().unwrap();
            let again = SigningKey::from_pem(pem.expose_secret()).unwrap();
            assert_eq!((again.algorithm(), again.public()), (algorithm, key.public()));
            assert_eq!(key.kid().len(), 43, "SHA-256 in base64url");
        }
    }

    #[test]
    fn no_debug_and_no_error_shows_a_private_key() {
        let key = SigningKey::generate(Algorithm::ES256).unwrap();
        let pem = key.to_pem().unwrap();
        let body: String = pem
            .expose_secret()
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let shown = format!("{key:?} {pem:?}");
        assert!(!shown.contains(&body[..24]) && shown.contains(key.kid()), "{shown}");
        let broken = pem.expose_secret().replace("BEGIN PRIVATE", "BEGIN SOME");
        let error = SigningKey::from_pem(&broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&body[..24]));
    }

    #[test]
    fn encrypted_and_foreign_keys_are_refused() {
        assert_eq!(SigningKey::from_pem("").unwrap_err(), KeyError::Pem);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(SigningKey::from_pem(encrypted).unwrap_err(), KeyError::Pem);
        let p521 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let foreign = pem(p521.to_pkcs8v1().unwrap().as_ref());
        assert_eq!(
            SigningKey::from_pem(foreign.expose_secret()).unwrap_err(),
            KeyError::Kind
        );
    }
}
