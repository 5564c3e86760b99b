//! The values that are about tokenscope's issuer.

use std::path::PathBuf;

use tokenscope_core::TokenExpiration;

use super::given::{Given, from_str};
use super::options::{ISSUED_TOKEN, ISSUER, ISSUER_CA, SUBJECT_TOKEN, TOKEN_LIFETIME};
use super::{ConfigError, SourceSettings, TokenFile};
use crate::exchange::{IssuerSettings, authorities};

/// The issuer, and the files of its tokens.
pub(super) fn source<E: Fn(&str) -> Option<String>>(
    given: &Given<E>,
) -> Result<(SourceSettings, Vec<TokenFile>), ConfigError> {
    let tokens = given.files(&ISSUED_TOKEN)?;
    if tokens.is_empty() {
        return Err(ConfigError::Missing(
            "there is no token to ask the issuer for: give --issued-token token=sts.amazonaws.com or TOKENSCOPE_ISSUED_TOKENS",
        ));
    }
    let settings = IssuerSettings {
        endpoint: given.parsed(&ISSUER, from_str)?.ok_or(ConfigError::Missing(
            "there is no address of the issuer: give --issuer or TOKENSCOPE_ISSUER, such as https://tokenscope-issuer.tokenscope-system.svc",
        ))?,
        authorities: given.parsed(&ISSUER_CA, authorities)?.ok_or(ConfigError::Missing(
            "there are no authorities for the issuer's certificate: give --issuer-ca or TOKENSCOPE_ISSUER_CA, PEM",
        ))?,
        subject_token: given.parsed(&SUBJECT_TOKEN, path)?.ok_or(ConfigError::Missing(
            "there is no file of the pod's own token, which is exchanged: give --subject-token or TOKENSCOPE_SUBJECT_TOKEN",
        ))?,
        lifetime: given.parsed(&TOKEN_LIFETIME, from_str::<TokenExpiration>)?,
    };
    Ok((SourceSettings::Issuer(settings), tokens))
}

fn path(text: &str) -> Result<PathBuf, String> {
    let is_absolute = text.starts_with('/');
    is_absolute
        .then(|| text.into())
        // The value is not repeated: somebody may have given the token itself.
        .ok_or_else(|| "the value should be an absolute path, such as /tokenscope-subject-token/token".to_owned())
}
