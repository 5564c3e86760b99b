//! The header of a subject token (RFC 7515 §4).

use serde::Deserialize;

use super::InvalidSubjectToken;
use super::object::Object;

/// The algorithms that Kubernetes signs with (kube-apiserver, KEP-740).
const ALGORITHMS: [&str; 4] = ["RS256", "ES256", "ES384", "ES512"];

/// The members of a service account token's header. Any other member refuses the token, and so does one that is there twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectHeader {
    pub(super) alg: Box<str>,
    #[serde(default)]
    pub(super) kid: Box<str>,
    #[serde(default)]
    typ: Option<Box<str>>,
}

impl SubjectHeader {
    pub(super) fn read(text: &[u8]) -> Result<Self, InvalidSubjectToken> {
        let Object(header): Object<Self> = serde_json::from_slice(text).map_err(|error| {
            if error.is_data() {
                InvalidSubjectToken::Header
            } else {
                InvalidSubjectToken::Form
            }
        })?;
        if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
            return Err(InvalidSubjectToken::Header);
        }
        if !ALGORITHMS.contains(&&*header.alg) {
            return Err(InvalidSubjectToken::Algorithm);
        }
        if header.kid.is_empty() {
            return Err(InvalidSubjectToken::NoKid);
        }
        Ok(header)
    }
}
