//! The web identity token: its form, its signature, its claims.

mod claim;
mod claims;
mod keys;
mod session_tags;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claim::{missing, text_claim};
pub(crate) use claims::check_claims;
use jiff::Timestamp;
use keys::TokenAlgorithm;
pub(crate) use keys::{Key, KeySet};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::aws_error::AwsError;
use crate::identity::WebIdentity;
use crate::strict_json;

/// A token taken apart; nothing in it is proven yet. No Debug: it is a credential.
pub(crate) struct Unverified<'a> {
    pub(crate) key_id: String,
    pub(crate) issuer: String,
    algorithm: TokenAlgorithm,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// AWS's answer when it has no key to check a token with, whatever the cause.
pub(crate) fn no_verification_key() -> AwsError {
    AwsError::invalid_token(
        "Couldn't retrieve verification key from your identity provider, please reference \
         AssumeRoleWithWebIdentity documentation for requirements",
    )
}

/// Reads the compact form (RFC 7515 §7.1).
pub(crate) fn parse(token: &str) -> Result<Unverified<'_>, AwsError> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        kid: Option<String>,
        crit: Option<Value>,
    }
    let no_jwt = || {
        AwsError::invalid_token(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| no_jwt());

    let (signed, signature) = token.rsplit_once('.').ok_or_else(no_jwt)?;
    let (header, claims) = signed.split_once('.').ok_or_else(no_jwt)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| no_jwt())?;
    let claims = strict_json::object(&decode(claims)?).map_err(|_| no_jwt())?;
    // AWS answers an algorithm outside its list (EdDSA, PS*, HS*, none) like something that is no JWT at all.
    let algorithm = TokenAlgorithm::parse(&header.alg)
        .filter(|_| header.crit.is_none())
        .ok_or_else(no_jwt)?;
    let signature = decode(signature)?;
    let issuer = text_claim(&claims, "iss")?.ok_or_else(|| missing("iss"))?.to_owned();
    let key_id = header
        .kid
        .filter(|kid| !kid.is_empty())
        .ok_or_else(no_verification_key)?;
    Ok(Unverified {
        key_id,
        issuer,
        algorithm,
        claims,
        signed,
        signature,
    })
}

/// Checks the signature with the issuer's key and then the claims. `client_ids` are those of the registered provider.
pub(crate) fn verify(
    token: &Unverified<'_>,
    key: &Key,
    client_ids: &[String],
    now: Timestamp,
) -> Result<WebIdentity, AwsError> {
    if !key.verifies(token.algorithm, token.signed.as_bytes(), &token.signature) {
        return Err(AwsError::invalid_token("Invalid token signature"));
    }
    check_claims(&token.claims, client_ids, now)
}
