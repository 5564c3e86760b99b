//! Our issuer's tokens without a cluster around it, and what a forger makes of them.
//!
//! Keys, payloads, discovery, key set and TLS listener are those of the crates `issuer` and `platform`. The servers that judge
//! tokens ([`crate::keycloak`], [`crate::radosgw`]) fetch the documents and are shown the tokens as text.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenscope_core::Algorithm;
use tokenscope_issuer::claims::{Issuance, payload};
use tokenscope_issuer::grant::TokenGrant;
use tokenscope_issuer::issuer_url::IssuerUrl;
use tokenscope_issuer::keys::{SigningKey, algorithm_name};
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::signers::Signers;
use tokenscope_platform::tls::{ConnectionMetrics, Limits, ServingCertificate, serve, server_config};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pki::{CertificateAuthority, IssuedCertificate};

/// The text that is served as the key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// What the issuer serves without the flag `--x5c`.
    Plain,
    /// What it serves with that flag.
    WithCertificates,
}

/// An issuer that serves its documents on 127.0.0.1. It ends when it is dropped, and at the latest with the test program.
#[derive(Debug)]
pub struct TokenMaker {
    url: IssuerUrl,
    signers: Signers,
    authority: String,
    _server: DropGuard,
}

impl TokenMaker {
    /// Starts one with a key that signs for each algorithm.
    pub fn start(algorithms: &[Algorithm], key_set: KeySet) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url: IssuerUrl = format!("https://{}", listener.local_addr()?).parse()?;
        let keys = algorithms.iter().map(|algorithm| SigningKey::generate(*algorithm));
        let ring = KeyRing::of_signing_keys(keys.collect::<Result<Vec<_>, _>>()?, Timestamp::now())?;
        let signers = match key_set {
            KeySet::Plain => Signers::new(ring, &url),
            KeySet::WithCertificates => Signers::certified(ring, &url)?,
        };
        let json = [(CONTENT_TYPE, "application/json")];
        let app = Router::new()
            .route(
                &url.discovery_path(),
                get((json.clone(), signers.discovery.text.clone())),
            )
            .route(&url.keys_path(), get((json, signers.keys.text.clone())));
        let authority = CertificateAuthority::new("issuer")?;
        let server = spawn(listener, app, &authority.server(&["127.0.0.1"])?)?;
        Ok(Self {
            url,
            signers,
            authority: authority.certificate(),
            _server: server,
        })
    }

    /// The value of `iss`.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The URL of the keys.
    pub fn jwks_url(&self) -> String {
        self.url.jwks_uri()
    }

    /// The keys as they are published: a JWK Set.
    pub fn keys(&self) -> &[u8] {
        &self.signers.keys.text
    }

    /// The authority of the certificate that is served with, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The key that signs with an algorithm.
    pub fn key(&self, algorithm: Algorithm) -> Result<&SigningKey> {
        let key = self.signers.signer(algorithm);
        key.with_context(|| format!("no key signs with {}", algorithm_name(algorithm)))
    }

    /// The token that the issuer signs for a grant now, with an ID that no other token has.
    pub fn token(&self, grant: &TokenGrant) -> Result<String> {
        static ISSUED: AtomicU64 = AtomicU64::new(0);
        let id = ISSUED.fetch_add(1, Ordering::Relaxed).to_string();
        let issuance = Issuance {
            issuer: &self.url,
            id: &id,
            issued_at: Timestamp::now().as_second(),
            lifetime: grant.lifetime.into(),
        };
        let payload = payload(grant, issuance);
        Ok(self.key(grant.algorithm)?.token(&payload)?)
    }
}

/// Serves with this certificate until the guard is dropped.
pub(crate) fn spawn(listener: TcpListener, app: Router, identity: &IssuedCertificate) -> Result<DropGuard> {
    let certificate = ServingCertificate::from_pem(&identity.certificate, &identity.key)?;
    let config = server_config(certificate, None)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    // A runtime of its own: that of a test ends with the test, and judges are shared by several.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::spawn(move || {
        let (limits, metrics) = (Limits::default(), ConnectionMetrics::default());
        runtime.block_on(serve(listener, config, app, limits, metrics, stopped));
    });
    Ok(stop.drop_guard())
}

fn pair_of(key: &SigningKey) -> Result<KeyPair> {
    Ok(KeyPair::from_pem(key.to_pem()?.expose_secret())?)
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload_of(token)?)?)?)
}

/// A token with the claims of another. Some are replaced, and those removed whose change is `null`.
pub fn with_claims(token: &str, changes: &Value, key: &SigningKey) -> Result<String> {
    let mut claims = claims_of(token)?;
    json_patch::merge(&mut claims, changes);
    Ok(key.token(&claims.to_string())?)
}

/// A token with the payload of another, any header and a signature of the caller's making.
pub fn with_header(token: &str, header: &Value, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<String> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), payload_of(token)?);
    let signature = sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// A public key as somebody may encode it who mistakes it for a secret: SubjectPublicKeyInfo (RFC 5280 §4.1) in DER and in PEM.
pub fn public_encodings(key: &SigningKey) -> Result<[Vec<u8>; 2]> {
    let pair = pair_of(key)?;
    Ok([pair.subject_public_key_info(), pair.public_key_pem().into_bytes()])
}

fn payload_of(token: &str) -> Result<&str> {
    token.split('.').nth(1).context("a token has three parts")
}
