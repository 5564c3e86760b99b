//! The subject of an exchange: the pod's projected service account token (Kubernetes, "Service account tokens", KEP-1205).
//!
//! [`SubjectToken::read`] takes the token apart and refuses what is cheap to refuse. [`SubjectToken::verify`] checks the signature
//! with a key of the cluster and makes it a [`Caller`].
//!
//! A library for JWTs would verify the signature with the same call of aws-lc-rs that stands here. The rules for a caller and the bounds
//! of the input would have to be checked beside it. No figure speaks for either.
//!
//! Nothing in a token chooses the way in which it is verified: its algorithm must be the one of the key, and members that name keys
//! elsewhere (`jku`, `jwk`, `x5u`, `x5c`) or demand extensions (`crit`) refuse it.

mod claims;
mod header;
mod object;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::SubjectClaims;
use header::SubjectHeader;

use crate::keys::{VerificationKey, VerificationKeys};

/// The longest token that is read. The API server's have about 1,200 bytes; STS takes 20,000.
pub const MOST_BYTES: usize = 8 << 10;

/// The most seconds by which the clocks of API server and issuer may differ.
const LEEWAY: i64 = 10;

/// The issuer and the audience of the tokens that are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// The cluster's issuer of service account tokens.
    pub issuer: &'a str,
    /// The audience that such a token must have: the exchange's own, and no other.
    pub audience: &'a str,
}

/// A pod that proved what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The namespace.
    pub namespace: Box<str>,
    /// The service account's name.
    pub service_account: Box<str>,
    /// The service account's UID.
    pub service_account_uid: Box<str>,
    /// The pod's name.
    pub pod: Box<str>,
    /// The pod's UID.
    pub pod_uid: Box<str>,
    /// The time at which the token was issued, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// The time at which it ends, in seconds since the Unix epoch.
    pub expires_at: i64,
}

impl Caller {
    /// The name as which the API server knows its service account (Kubernetes, "User in pods"), and the subject of its own token.
    pub fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// The reason why a subject token is refused. No text repeats the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubjectToken {
    /// It is too long.
    #[error("the subject token has more than {} KiB", MOST_BYTES >> 10)]
    TooLong,
    /// It has another form.
    #[error("the subject token is no signed JSON Web Token in the compact form")]
    Form,
    /// Its header has members that service account tokens don't have.
    #[error("the subject token's header should have alg, kid and typ alone")]
    Header,
    /// No key of the cluster has its algorithm.
    #[error("the subject token's algorithm is not one of RS256, ES256, ES384 and ES512")]
    Algorithm,
    /// It names no key.
    #[error("the subject token names no key")]
    NoKid,
    /// The cluster has no such key.
    #[error("the subject token's key is not one of the cluster")]
    UnknownKey,
    /// The signature is not that of the key, or the key has another algorithm.
    #[error("the subject token's signature does not hold")]
    Signature,
    /// Its claims have another form.
    #[error("the subject token's claims are not those of a Kubernetes service account token")]
    Claims,
    /// Another cluster or issuer made it.
    #[error("the subject token is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("the subject token should have one audience, the one of this exchange")]
    Audience,
    /// Its time is over.
    #[error("the subject token has expired: read the projected token again")]
    Expired,
    /// Its time has not come.
    #[error("the subject token is not valid yet: the clocks of API server and issuer differ")]
    NotYet,
    /// It is bound to no pod.
    #[error("the subject token is bound to no pod: only a pod's projected token is taken")]
    NoPod,
}

/// A token taken apart, of which nothing is proven but that an honest one could look so. No `Debug`: it is a credential.
pub struct SubjectToken {
    header: SubjectHeader,
    claims: SubjectClaims,
    signed: Box<str>,
    signature: Vec<u8>,
}

impl SubjectToken {
    /// Reads the compact form and refuses what costs no signature: another issuer, another audience, another time, no pod.
    pub fn read(token: &str, expected: &Expected<'_>, now: i64) -> Result<Self, InvalidSubjectToken> {
        if token.len() > MOST_BYTES {
            return Err(InvalidSubjectToken::TooLong);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidSubjectToken::Form);
        let (signed, signature) = token.rsplit_once('.').ok_or(InvalidSubjectToken::Form)?;
        // With more dots the payload would have one, which base64url does not know.
        let (header, payload) = signed.split_once('.').ok_or(InvalidSubjectToken::Form)?;
        let header = SubjectHeader::read(&decode(header)?)?;
        let claims = SubjectClaims::read(&decode(payload)?)?;
        claims.check(expected, now)?;
        let signature = decode(signature)?;
        if signature.is_empty() {
            return Err(InvalidSubjectToken::Form);
        }
        Ok(Self {
            header,
            claims,
            signed: signed.into(),
            signature,
        })
    }

    /// The key that it names.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// The cluster's key that it names.
    pub fn key<'k>(&self, keys: &'k VerificationKeys) -> Result<&'k VerificationKey, InvalidSubjectToken> {
        keys.find(self.kid()).ok_or(InvalidSubjectToken::UnknownKey)
    }

    /// Checks the signature.
    pub fn verify(self, key: &VerificationKey) -> Result<Caller, InvalidSubjectToken> {
        if !key.verifies(&self.header.alg, self.signed.as_bytes(), &self.signature) {
            return Err(InvalidSubjectToken::Signature);
        }
        self.claims.caller()
    }
}
