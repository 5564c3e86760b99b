//! A cluster that signs service account tokens, and the values that tests change in them.
#![allow(dead_code, reason = "each test file uses its part")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenscope_core::{Algorithm, FilledClaims, PolicyName};
use tokenscope_issuer::grant::{GrantingPolicy, TokenGrant};
use tokenscope_issuer::keys::{SigningKey, VerificationKeys};
use tokenscope_issuer::subject_token::{Caller, Expected, InvalidSubjectToken, SubjectToken};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
pub(crate) const EXCHANGE: &str = "tokenscope-issuer";

pub(crate) fn expected() -> Expected<'static> {
    Expected {
        issuer: CLUSTER,
        audience: EXCHANGE,
    }
}

/// A cluster's key and what it publishes.
pub(crate) struct Cluster {
    pub(crate) key: SigningKey,
    pub(crate) keys: VerificationKeys,
}

impl Cluster {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let key = SigningKey::generate(algorithm).unwrap();
        let keys = VerificationKeys::of(&[key.public().clone()]);
        Self { key, keys }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.key.token(&claims.to_string()).unwrap()
    }

    pub(crate) fn verify(&self, token: &str) -> Result<Caller, InvalidSubjectToken> {
        let subject = SubjectToken::read(token, &expected(), NOW)?;
        let key = subject.key(&self.keys)?;
        subject.verify(key)
    }
}

/// The claims of an honest pod's token, with changes: `null` takes a claim away.
pub(crate) fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": CLUSTER, "sub": "system:serviceaccount:shop:orders", "aud": [EXCHANGE],
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600, "jti": "0b9c4c4e-6d3a-4a5c-9d3e-0d9a5a2a7a11",
        "kubernetes.io": {
            "namespace": "shop", "node": {"name": "node-1", "uid": "9c1d"},
            "pod": {"name": "orders-1", "uid": "5f2c9a10-2c9f-4f57-8d1c-63c4c2f8f8d1"},
            "serviceaccount": {"name": "orders", "uid": "1c2d3e4f-0000-4f57-8d1c-63c4c2f8f8d1"},
        },
    });
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        object.insert(name.clone(), value.clone());
    }
    object.retain(|_, value| !value.is_null());
    claims
}

/// A token with any header, signed by `sign`.
pub(crate) fn forged(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())))
}

/// An honest token with its header replaced; the signature stays.
pub(crate) fn with_header(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

pub(crate) fn grant() -> TokenGrant {
    TokenGrant {
        audience: "sts.amazonaws.com".parse().unwrap(),
        subject: "system:serviceaccount:shop:orders".into(),
        lifetime: 3600,
        algorithm: Algorithm::RS256,
        claims: FilledClaims::default(),
        policy: GrantingPolicy {
            name: PolicyName::namespaced("shop", "orders"),
            uid: "c0ffee00-2c9f-4f57-8d1c-63c4c2f8f8d1".into(),
        },
    }
}
