//! A small OIDC issuer of the test itself: it publishes discovery and keys on 127.0.0.1, and signs any claims.
//!
//! The servers that judge tokens ([`crate::keycloak`], [`crate::radosgw`]) are told an issuer's URL and shown tokens as
//! text, so tokens of any other issuer, such as a real process, can be shown to them in the same way.

use std::fmt;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData as _,
    RsaKeySize,
};
use serde_json::{Value, json};
pub use tokenscope_core::Algorithm;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a token lives, in seconds, unless its claims say otherwise.
const LIFETIME: i64 = 300;

/// Every algorithm.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];

/// The value of `alg` (RFC 7518 §3.1).
pub fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
    }
}

/// A key pair that signs tokens.
pub struct TestKey {
    algorithm: Algorithm,
    private: Private,
    public_der: Vec<u8>,
    public_pem: String,
    jwk: Value,
}

enum Private {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

impl TestKey {
    /// A new one. Its ID is its thumbprint (RFC 7638).
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        let pair = match algorithm {
            Algorithm::RS256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
        };
        let der = pair.serialize_der();
        let private = match algorithm {
            Algorithm::RS256 => Private::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der)?)),
            Algorithm::ES256 => Private::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)?),
            Algorithm::ES384 => Private::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der)?),
        };
        let jwk = public_jwk(algorithm, &pair)?;
        Ok(Self {
            algorithm,
            private,
            public_der: pair.subject_public_key_info(),
            public_pem: pair.public_key_pem(),
            jwk,
        })
    }

    /// The value of `kid`.
    pub fn id(&self) -> &str {
        self.jwk["kid"].as_str().unwrap_or_default()
    }

    /// The public key as somebody may encode it who mistakes it for a secret: SubjectPublicKeyInfo (RFC 5280 §4.1) in DER and
    /// in PEM.
    pub fn public_encodings(&self) -> [Vec<u8>; 2] {
        [self.public_der.clone(), self.public_pem.clone().into_bytes()]
    }

    /// A token with these claims, whatever they are.
    pub fn token(&self, claims: &Value) -> Result<String> {
        self.token_with(
            &json!({"alg": name_of(self.algorithm), "typ": "JWT", "kid": self.id()}),
            claims,
        )
    }

    /// A token with these claims under any header.
    pub fn token_with(&self, header: &Value, claims: &Value) -> Result<String> {
        compact(header, claims, |message| self.sign(message))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| anyhow!("RSA did not sign"))?;
                Ok(signature)
            }
            Private::Ec(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| anyhow!("ECDSA did not sign"))?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

/// Without the private key.
impl fmt::Debug for TestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestKey")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// A token in the compact form (RFC 7515 §7.1) with a signature of the caller's making.
pub fn compact(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Result<Value> {
    let part = token.split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// Claims with some of them replaced, and those removed whose change is `null`.
pub fn changed(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    json_patch::merge(&mut claims, changes);
    claims
}

/// A running issuer. It ends when it is dropped, and at the latest with the test program.
#[derive(Debug)]
pub struct TokenMaker {
    url: String,
    keys: Vec<TestKey>,
    _server: DropGuard,
}

impl TokenMaker {
    /// Starts one with a published key for each algorithm, in this order: radosgw takes the first one only.
    pub fn start(algorithms: &[Algorithm]) -> Result<Self> {
        let keys = algorithms
            .iter()
            .map(|algorithm| TestKey::generate(*algorithm))
            .collect::<Result<Vec<_>>>()?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let jwks = json!({"keys": keys.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>()});
        let documents = [("/.well-known/openid-configuration", discovery(&url)), ("/keys", jwks)];
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        // A runtime of its own: that of a test ends with the test, and judges are shared by several.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            let serve = async {
                let router = documents.into_iter().fold(Router::new(), |router, (path, document)| {
                    let answer = move || async move { ([(CONTENT_TYPE, "application/json")], document.to_string()) };
                    router.route(path, get(answer))
                });
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => served,
                    () = stopped => Ok(()),
                }
            };
            // Without its issuer a judge refuses, and says that it got no keys.
            let _ = runtime.block_on(serve);
        });
        Ok(Self {
            url,
            keys,
            _server: stop.drop_guard(),
        })
    }

    /// The value of `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the keys are.
    pub fn jwks_url(&self) -> String {
        format!("{}/keys", self.url)
    }

    /// The published key for an algorithm.
    pub fn key(&self, algorithm: Algorithm) -> Result<&TestKey> {
        self.keys
            .iter()
            .find(|key| key.algorithm == algorithm)
            .with_context(|| format!("no key for {} is published", name_of(algorithm)))
    }

    /// The claims of a good token, issued now and with an ID that no other has.
    pub fn claims(&self, subject: &str, audience: &str) -> Result<Value> {
        let mut id = [0; 16];
        fill(&mut id).map_err(|_| anyhow!("no random bytes"))?;
        let now = Timestamp::now().as_second();
        Ok(json!({
            "iss": self.url, "sub": subject, "aud": audience, "iat": now, "nbf": now, "exp": now + LIFETIME,
            "jti": URL_SAFE_NO_PAD.encode(id),
        }))
    }
}

/// OpenID Connect Discovery 1.0 §3, as far as servers read it that take tokens.
fn discovery(url: &str) -> Value {
    json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ALGORITHMS.map(name_of),
    })
}

/// The public key (RFC 7517), with a certificate of its own: radosgw reads the key from `x5c` alone.
fn public_jwk(algorithm: Algorithm, pair: &KeyPair) -> Result<Value> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // An uncompressed point, or an RSAPublicKey (RFC 8017, appendix A.1.1).
    let public = pair.public_key_raw();
    let coordinates = |length: usize| -> Result<(&[u8], &[u8])> {
        ensure!(public.len() == 1 + 2 * length, "a point has {} bytes", public.len());
        Ok(public[1..].split_at(length))
    };
    let mut jwk = match algorithm {
        Algorithm::RS256 => {
            // Of 2048 bits: the heads of the sequence and of the modulus with its leading zero are 9 bytes, and the
            // exponent, 65537, is the last 5.
            ensure!(public.len() == 9 + 256 + 5, "an RSA key has {} bytes", public.len());
            json!({"e": "AQAB", "kty": "RSA", "n": encode(&public[9..9 + 256])})
        }
        Algorithm::ES256 => {
            let (x, y) = coordinates(32)?;
            json!({"crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y)})
        }
        Algorithm::ES384 => {
            let (x, y) = coordinates(48)?;
            json!({"crv": "P-384", "kty": "EC", "x": encode(x), "y": encode(y)})
        }
    };
    // Exactly these members in alphabetical order, which is the order of a JSON object here.
    let thumbprint = digest(&SHA256, jwk.to_string().as_bytes());
    let certificate = CertificateParams::new(Vec::<String>::new())?.self_signed(pair)?;
    json_patch::merge(
        &mut jwk,
        &json!({
            "kid": encode(thumbprint.as_ref()), "use": "sig", "alg": name_of(algorithm),
            "x5c": [STANDARD.encode(certificate.der())],
        }),
    );
    Ok(jwk)
}
