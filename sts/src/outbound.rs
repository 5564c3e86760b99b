//! The issuer of outbound tokens: its keys, its discovery, its signatures.
//!
//! IAM User Guide, "Outbound identity federation": each account has an issuer of its own, whose discovery document and keys are at
//! `/.well-known/openid-configuration` and `/.well-known/jwks.json`. Here they are served by the stand-in itself to requests for
//! the issuer's host, and to those for a loopback address while one account alone has an issuer. That all issuers of a
//! stand-in share their keys is its own simplification.

use std::sync::{Mutex, OnceLock};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use crate::account::OutboundFederation;
use crate::config_error::StsConfigError;
use crate::lock::lock;
use crate::request::SigningAlgorithm;

/// The claim that has everything that AWS adds.
pub(crate) const CLAIMS: &str = "https://sts.amazonaws.com/";

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/.well-known/jwks.json";

/// The issuers of all accounts that enabled them.
#[derive(Default)]
pub(crate) struct OutboundIssuers {
    enabled: Mutex<Vec<OutboundFederation>>,
    /// Made when the first account enables them.
    keys: OnceLock<SigningKeys>,
}

impl OutboundIssuers {
    /// Enables them for an account.
    pub(crate) fn enable(&self, federation: OutboundFederation) -> Result<(), StsConfigError> {
        federation.check()?;
        if self.keys.get().is_none() {
            let keys = SigningKeys::generate()
                .map_err(|_| StsConfigError::invalid("outbound_federation", "no key could be made"))?;
            // Another thread may have been first; its keys are as good.
            let _ = self.keys.set(keys);
        }
        let mut enabled = lock(&self.enabled);
        let same =
            |other: &&OutboundFederation| other.account == federation.account || other.issuer == federation.issuer;
        if let Some(other) = enabled.iter().find(same) {
            return Err(StsConfigError::EntityAlreadyExists(other.issuer.clone()));
        }
        enabled.push(federation);
        Ok(())
    }

    /// The issuer of an account; `None` while its federation isn't enabled.
    pub(crate) fn issuer_of(&self, account: &str) -> Option<String> {
        let enabled = lock(&self.enabled);
        let of_account = enabled.iter().find(|federation| federation.account == account);
        of_account.map(|federation| federation.issuer.clone())
    }

    /// True for every issuer of outbound tokens, whoever's.
    pub(crate) fn is_issuer(&self, url: &str) -> bool {
        url.ends_with(".tokens.sts.global.api.aws")
            || lock(&self.enabled).iter().any(|federation| federation.issuer == url)
    }

    /// A signed token with these claims, in the compact form.
    pub(crate) fn sign(&self, algorithm: SigningAlgorithm, claims: &Value) -> Result<String, Unspecified> {
        self.keys.get().ok_or(Unspecified)?.sign(algorithm, claims)
    }

    /// The answer to a request for one of the issuer's two documents; `None` for any other request.
    pub(crate) fn document<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let path = request.uri().path();
        if request.method() != Method::GET || ![DISCOVERY, KEYS].contains(&path) {
            return None;
        }
        let issuer = self.issuer_at(request.headers().get(HOST)?.to_str().ok()?)?;
        let document = match path {
            KEYS => json!({"keys": self.keys.get()?.jwks()}),
            _ => json!({
                "issuer": issuer,
                "jwks_uri": format!("{issuer}{KEYS}"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES384"],
                "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "scope", CLAIMS],
            }),
        };
        let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Some(response)
    }

    fn issuer_at(&self, host: &str) -> Option<String> {
        let enabled = lock(&self.enabled);
        let asked = without_port(host);
        let named = enabled.iter().find(|federation| {
            let own = federation.issuer.strip_prefix("https://").unwrap_or_default();
            without_port(own).eq_ignore_ascii_case(asked)
        });
        let only = match enabled.as_slice() {
            [only] if ["127.0.0.1", "localhost", "[::1]"].contains(&asked) => Some(only),
            _ => None,
        };
        named.or(only).map(|federation| federation.issuer.clone())
    }
}

fn without_port(host: &str) -> &str {
    let port = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    port.map_or(host, |(name, _)| name)
}

/// A key for each algorithm. No Debug: they are secret.
struct SigningKeys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl SigningKeys {
    fn generate() -> Result<Self, Unspecified> {
        Ok(Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048)?,
            ec: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
        })
    }

    fn sign(&self, algorithm: SigningAlgorithm, claims: &Value) -> Result<String, Unspecified> {
        let header = json!({"alg": algorithm.name(), "kid": key_id(algorithm), "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match algorithm {
            SigningAlgorithm::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)?;
                signature
            }
            SigningAlgorithm::Es384 => self.ec.sign(&random, signed.as_bytes())?.as_ref().to_vec(),
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// RFC 7517, RFC 7518 §6.
    fn jwks(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let rsa = self.rsa.public_key();
        // An uncompressed point: 4, then both coordinates of 48 bytes.
        let point = self.ec.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at(48.min(point.len().saturating_sub(1)));
        json!([
            {
                "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id(SigningAlgorithm::Rs256),
                "n": encode(rsa.modulus().big_endian_without_leading_zero()),
                "e": encode(rsa.exponent().big_endian_without_leading_zero()),
            },
            {
                "kty": "EC", "use": "sig", "alg": "ES384", "kid": key_id(SigningAlgorithm::Es384), "crv": "P-384",
                "x": encode(x), "y": encode(y),
            },
        ])
    }
}

fn key_id(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::Rs256 => "RSA_0",
        SigningAlgorithm::Es384 => "EC384_0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::KeySet;

    fn enabled(pairs: &[(&str, &str)]) -> OutboundIssuers {
        let issuers = OutboundIssuers::default();
        for (account, issuer) in pairs {
            let federation = OutboundFederation {
                account: (*account).into(),
                issuer: (*issuer).into(),
            };
            issuers.enable(federation).unwrap();
        }
        issuers
    }

    fn get(issuers: &OutboundIssuers, host: &str, path: &str) -> Option<Response<Full<Bytes>>> {
        let request = Request::get(path).header(HOST, host).body(()).unwrap();
        issuers.document(&request)
    }

    #[test]
    fn documents_are_served_for_the_issuers_host_and_for_loopback_while_there_is_one() {
        let one = enabled(&[("111122223333", "https://a.tokens.sts.global.api.aws")]);
        for (host, path, expected) in [
            ("a.tokens.sts.global.api.aws", DISCOVERY, true),
            ("A.tokens.sts.global.api.aws:443", KEYS, true),
            ("127.0.0.1:4711", KEYS, true),
            ("[::1]:4711", KEYS, true),
            ("b.tokens.sts.global.api.aws", DISCOVERY, false),
            ("127.0.0.1", "/", false),
        ] {
            assert_eq!(get(&one, host, path).is_some(), expected, "{host}{path}");
        }
        let two = enabled(&[("111122223333", "https://a.test"), ("444455556666", "https://b.test")]);
        assert!(get(&two, "127.0.0.1", KEYS).is_none() && get(&two, "b.test", KEYS).is_some());
    }

    #[test]
    fn the_published_keys_are_ones_that_a_verifier_takes() {
        let issuers = enabled(&[("111122223333", "https://a.test")]);
        let jwks = json!({"keys": issuers.keys.get().unwrap().jwks()}).to_string();
        let keys = KeySet::parse(jwks.as_bytes()).unwrap();
        for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es384] {
            assert!(keys.find(key_id(algorithm)).is_some());
        }
    }
}
