//! The claims of a token whose signature holds: STS's rules of time, audience and subject.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::claim::{missing, strings, text_claim, wrong};
use super::session_tags::{SessionTags, session_tags, source_identity};
use crate::aws_error::AwsError;
use crate::identity::WebIdentity;

/// How far clocks may differ, in seconds: after `exp` (IAM User Guide, "OIDC federation": up to five minutes), and before `iat`
/// and `nbf` (seen, not documented).
const LEEWAY: i64 = 300;
/// A token older than this by `iat` is refused whatever its `exp` says, in seconds. Not documented: STS answered `Token too
/// old` to tokens of 153,938 s and more, and the exact limit is not known.
const MAX_AGE: i64 = 86_400;

/// Checks the claims and makes them an identity. `client_ids` are those of the registered provider.
pub(crate) fn check_claims(
    claims: &Map<String, Value>,
    client_ids: &[String],
    now: Timestamp,
) -> Result<WebIdentity, AwsError> {
    let subject = text_claim(claims, "sub")?.ok_or_else(|| missing("sub"))?;
    let original_audiences = audiences(claims)?;
    let issued = time_claim(claims, "iat")?.ok_or_else(|| missing("iat"))?;
    let expires = time_claim(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let not_before = time_claim(claims, "nbf")?;
    check_times(issued, expires, not_before, now.as_second())?;

    let audience = authorized_audience(claims, &original_audiences)?;
    if !client_ids.iter().any(|client_id| client_id == audience) {
        return Err(AwsError::invalid_token("Incorrect token audience"));
    }
    // SubjectFromWebIdentityToken in the answer has these bounds (STS API reference, AssumeRoleWithWebIdentity).
    if !(6..=255).contains(&subject.chars().count()) {
        return Err(AwsError::invalid_token("The sub claim must have 6 to 255 characters"));
    }
    let SessionTags { tags, transitive } = session_tags(claims)?;
    Ok(WebIdentity {
        subject: subject.to_owned(),
        audience: audience.to_owned(),
        authentication_methods: authentication_methods(claims)?,
        email: text_claim(claims, "email")?.map(str::to_owned),
        tags,
        transitive_tag_keys: transitive,
        source_identity: source_identity(claims)?,
        original_audiences,
        claims: claims.clone(),
        propagated: None,
    })
}

/// Leeway, and age by `iat`. How far `exp` may lie behind `iat` is not documented, so only the age is bounded.
fn check_times(issued: i64, expires: i64, not_before: Option<i64>, now: i64) -> Result<(), AwsError> {
    if now > expires.saturating_add(LEEWAY) {
        let message =
            format!("Token expired: current date/time {now} must be before the expiration date/time {expires}");
        return Err(AwsError::new(400, "ExpiredTokenException", message));
    }
    if issued > now + LEEWAY {
        return Err(AwsError::invalid_token("Token was issued in the future"));
    }
    if not_before.is_some_and(|not_before| not_before > now + LEEWAY) {
        return Err(AwsError::invalid_token("Token is not valid yet"));
    }
    let age = now.saturating_sub(issued);
    if age > MAX_AGE {
        let message = format!("Token too old: {age}");
        return Err(AwsError::new(400, "ExpiredTokenException", message));
    }
    Ok(())
}

/// The audience that counts: `azp` if there is one, else the only `aud`.
fn authorized_audience<'a>(claims: &'a Map<String, Value>, audiences: &'a [String]) -> Result<&'a str, AwsError> {
    match (text_claim(claims, "azp")?, audiences) {
        (Some(authorized_party), _) => Ok(authorized_party),
        (None, [only]) => Ok(only),
        (None, _) => {
            let message = "Token audience contains more than one audience while authorized party is not present";
            Err(AwsError::invalid_token(message))
        }
    }
}

/// AWS takes integer timestamps only.
fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, AwsError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| wrong(name, "must be an integer of seconds")),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, AwsError> {
    let list = match claims.get("aud") {
        None | Some(Value::Null) => return Err(missing("aud")),
        Some(Value::String(only)) => vec![only.clone()],
        Some(Value::Array(list)) => {
            strings(list).ok_or_else(|| wrong("aud", "must be a string or a list of strings"))?
        }
        Some(_) => return Err(wrong("aud", "must be a string or a list of strings")),
    };
    if list.is_empty() { Err(missing("aud")) } else { Ok(list) }
}

/// `amr`: a list of strings (OpenID Connect Core 1.0 §2).
fn authentication_methods(claims: &Map<String, Value>) -> Result<Vec<String>, AwsError> {
    match claims.get("amr") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => strings(list).ok_or_else(|| wrong("amr", "must be a list of strings")),
        Some(_) => Err(wrong("amr", "must be a list of strings")),
    }
}
