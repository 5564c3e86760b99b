//! The request of a token exchange (RFC 8693 §2.1): a form, read strictly.

use std::borrow::Cow;

use tokenscope_core::Audience;

use crate::oauth::{OAuthError, OAuthErrorCode, TOKEN_TYPE};

/// The grant type of RFC 8693.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The longest body that is read: a subject token, an audience, and the names around them.
pub const MOST_BODY_BYTES: usize = 16 << 10;
/// The most parameters: unknown ones are ignored, as RFC 6749 §3.2 demands, but not in any number.
const MOST_PARAMETERS: usize = 32;
/// The parameters that would change what is issued, and that are not offered: to pass over them would be to say yes to them.
const NOT_OFFERED: [&str; 3] = ["actor_token", "resource", SCOPE];
const SCOPE: &str = "scope";

/// The request. It has no `Debug`: the subject token is a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct ExchangeRequest<'a> {
    /// The token that proves who asks.
    pub subject_token: Cow<'a, str>,
    /// The audience of the token that is to be issued.
    pub audience: Audience,
    /// The longest lifetime that is wanted, in seconds. RFC 8693 has no parameter for it; ours has the name of the answer's
    /// `expires_in`.
    pub expires_in: Option<u32>,
}

/// The parameters that are read.
#[derive(Default)]
struct FormParameters<'a> {
    grant_type: Option<Cow<'a, str>>,
    subject_token: Option<Cow<'a, str>>,
    subject_token_type: Option<Cow<'a, str>>,
    requested_token_type: Option<Cow<'a, str>>,
    audience: Option<Cow<'a, str>>,
    expires_in: Option<Cow<'a, str>>,
    /// One of [`NOT_OFFERED`].
    unsupported: Option<&'static str>,
}

impl<'a> ExchangeRequest<'a> {
    /// Reads a body of `application/x-www-form-urlencoded`.
    pub fn read(body: &'a [u8]) -> Result<Self, OAuthError> {
        if body.len() > MOST_BODY_BYTES {
            return Err(invalid("the request is too long"));
        }
        let parameters = FormParameters::read(body)?;
        match parameters.grant_type.as_deref() {
            Some(GRANT_TYPE) => {}
            Some(_) => {
                return Err(OAuthError::new(
                    OAuthErrorCode::UnsupportedGrantType,
                    format!("grant_type should be {GRANT_TYPE}"),
                ));
            }
            None => return Err(missing("grant_type")),
        }
        if let Some(name) = parameters.unsupported {
            let code = match name {
                SCOPE => OAuthErrorCode::InvalidScope,
                _ => OAuthErrorCode::InvalidRequest,
            };
            return Err(OAuthError::new(code, format!("{name} is not supported")));
        }
        if parameters
            .subject_token_type
            .ok_or_else(|| missing("subject_token_type"))?
            != TOKEN_TYPE
        {
            return Err(invalid(&format!("subject_token_type should be {TOKEN_TYPE}")));
        }
        if parameters.requested_token_type.is_some_and(|found| found != TOKEN_TYPE) {
            return Err(invalid(&format!("requested_token_type should be {TOKEN_TYPE}")));
        }
        let audience = parameters.audience.ok_or_else(|| missing("audience"))?;
        let audience = audience
            .parse()
            .map_err(|error| OAuthError::new(OAuthErrorCode::InvalidTarget, format!("audience: {error}")))?;
        let expires_in = parameters.expires_in.map(|text| seconds(&text)).transpose()?;
        Ok(Self {
            subject_token: parameters.subject_token.ok_or_else(|| missing("subject_token"))?,
            audience,
            expires_in,
        })
    }
}

impl<'a> FormParameters<'a> {
    fn read(body: &'a [u8]) -> Result<Self, OAuthError> {
        let mut read = Self::default();
        for (count, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if count >= MOST_PARAMETERS {
                return Err(invalid("the request has too many parameters"));
            }
            // RFC 6749 §3.2: a parameter without a value counts as one that was not sent.
            if value.is_empty() {
                continue;
            }
            let place = match &*name {
                "grant_type" => &mut read.grant_type,
                "subject_token" => &mut read.subject_token,
                "subject_token_type" => &mut read.subject_token_type,
                "requested_token_type" => &mut read.requested_token_type,
                "audience" => &mut read.audience,
                "expires_in" => &mut read.expires_in,
                other => {
                    let found = NOT_OFFERED.into_iter().find(|known| *known == other);
                    read.unsupported = read.unsupported.or(found);
                    continue;
                }
            };
            // Which of two counts would be a matter of taste, so neither does.
            if place.replace(value).is_some() {
                return Err(invalid(&format!("{name} is there more than once")));
            }
        }
        Ok(read)
    }
}

fn seconds(text: &str) -> Result<u32, OAuthError> {
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| is_decimal);
    seconds.ok_or_else(|| invalid("expires_in should be a whole number of seconds"))
}

fn invalid(description: &str) -> OAuthError {
    OAuthError::new(OAuthErrorCode::InvalidRequest, description.to_owned())
}

fn missing(name: &str) -> OAuthError {
    invalid(&format!("{name} is missing"))
}
