//! A request for a token by audience, as clients of Aporeto's enforcer send it (Aporeto, "Enforcer API"; trireme-lib): `GET
//! /token?audience=…&validity=…` with the header `X-Aporeto-Metadata: secrets`. Who may have which token. Pure.
//!
//! The answers differ from the enforcer's in one thing: what is refused is said as JSON. A token is answered alone, as there.

use form_urlencoded::parse;
use tokenscope_core::credentials_endpoint::{METADATA_HEADER, METADATA_VALUE, TOKEN_PATH};
use tokenscope_core::{Audience, TokenExpiration};

use super::answer::{HttpAnswer, is_for_us};
use super::authorization::Authorization;
use super::given_tokens::{GivenToken, find};
use super::request::RequestHead;
use super::validity::seconds;

/// The lifetime of a token that is asked for without one (the enforcer's).
const USUAL: TokenExpiration = TokenExpiration::HOUR;

/// Whoever asks for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenCaller {
    /// The container at this place, by its authorization token.
    Container(usize),
    /// Any process of the pod.
    Anybody,
}

/// A request that is granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenRequest {
    pub(super) caller: TokenCaller,
    pub(super) audience: Audience,
    pub(super) lifetime: TokenExpiration,
}

/// The contents of the query.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    audience: Audience,
    /// Seconds.
    validity: Option<u64>,
}

/// True if a request is for a token.
pub(super) fn is_for_token(request: &RequestHead<'_>) -> bool {
    let rest = request.path.strip_prefix(TOKEN_PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
}

/// The token that a request is granted, else the answer that refuses it. `common` has the tokens of those who don't say who they are.
pub(super) fn granted<'a>(
    request: &RequestHead<'_>,
    containers: impl IntoIterator<Item = (&'a Authorization, &'a [GivenToken])>,
    common: &[GivenToken],
) -> Result<TokenRequest, HttpAnswer> {
    is_for_us(request)?;
    if request.metadata != Some(METADATA_VALUE) {
        let message = format!("a token is asked for with the header {METADATA_HEADER}: {METADATA_VALUE}");
        return Err(HttpAnswer::error("403 Forbidden", "MetadataHeader", &message));
    }
    let (caller, tokens) = match request.authorization {
        None => (TokenCaller::Anybody, common),
        Some(given) => {
            let mut containers = containers.into_iter().enumerate();
            let found = containers.find(|(_, (authorization, _))| authorization.is(given));
            let (place, (_, tokens)) = found.ok_or_else(|| {
                let message = "the header Authorization should be the token of a container of this pod, or be left out";
                HttpAnswer::error("403 Forbidden", "InvalidAuthorization", message)
            })?;
            (TokenCaller::Container(place), tokens)
        }
    };
    let query = query(request.path)?;
    let token = find(tokens, &query.audience).ok_or_else(|| not_granted(caller, &query.audience))?;
    let lifetime = lifetime(query.validity, token.most)?;
    Ok(TokenRequest {
        caller,
        audience: query.audience,
        lifetime,
    })
}

fn not_granted(caller: TokenCaller, audience: &Audience) -> HttpAnswer {
    let message = match caller {
        TokenCaller::Container(_) => format!(
            "no policy with delivery.endpoint.aporetoTokens grants this container a token for the audience {audience}"
        ),
        TokenCaller::Anybody => format!(
            "not all containers of this pod are granted a token for the audience {audience}: one that is sends its authorization token, which is in the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names, as the header Authorization"
        ),
    };
    HttpAnswer::error("400 Bad Request", "AudienceNotGranted", &message)
}

/// The lifetime that is asked for, at most that which the policy grants, as the enforcer's console cut it.
fn lifetime(validity: Option<u64>, most: TokenExpiration) -> Result<TokenExpiration, HttpAnswer> {
    let Some(seconds) = validity else {
        return Ok(USUAL.min(most));
    };
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    TokenExpiration::from_seconds(seconds.min(most.seconds().into())).map_err(|_| {
        let least = TokenExpiration::MIN_SECONDS / 60;
        let message = format!("validity is {seconds} s, and no token is valid for less than {least}m");
        HttpAnswer::error(UNPROCESSABLE, "InvalidValidity", &message)
    })
}

const UNPROCESSABLE: &str = "422 Unprocessable Content";

fn query(path: &str) -> Result<Query, HttpAnswer> {
    let invalid = |message: &str| HttpAnswer::error("400 Bad Request", "InvalidParameter", message);
    let (_, query) = path.split_once('?').unwrap_or_default();
    let (mut kind, mut audience, mut validity) = (None, None, None);
    for (name, value) in parse(query.as_bytes()) {
        let place = match &*name {
            "type" => &mut kind,
            "audience" => &mut audience,
            "validity" => &mut validity,
            _ => return Err(invalid("the parameters should be audience, validity and type alone")),
        };
        if place.replace(value).is_some() {
            return Err(invalid("each parameter should be there once"));
        }
    }
    if kind.is_some_and(|kind| kind != "OAUTH") {
        return Err(invalid("type should be OAUTH, or be left out"));
    }
    let audience = audience.ok_or_else(|| invalid("the parameter audience should say whom the token is for"))?;
    let audience = audience
        .parse::<Audience>()
        .map_err(|error| invalid(&format!("audience: {error}")))?;
    let validity = validity.map(|text| {
        seconds(&text).ok_or_else(|| {
            let message = "validity should be numbers with units, such as 10m or 1h30m";
            HttpAnswer::error(UNPROCESSABLE, "InvalidValidity", message)
        })
    });
    Ok(Query {
        audience,
        validity: validity.transpose()?,
    })
}

#[cfg(test)]
mod tests;
