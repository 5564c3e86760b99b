//! The claims of a token whose signature holds: STS's rules of time, audience, session tags and source identity.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::identity::WebIdentity;
use crate::names::is_name_character;
use crate::xml::AwsError;

/// How far clocks may differ, in seconds: after `exp` (IAM User Guide, "OIDC federation": up to five minutes), and before `iat`
/// and `nbf` (seen, not documented).
const LEEWAY: i64 = 300;
/// A token older than this by `iat` is refused whatever its `exp` says, in seconds. Not documented: STS answered `Token too
/// old` to tokens of 153,938 s and more, and the exact limit is not known.
const MAX_AGE: i64 = 86_400;
/// Session tags of a token (IAM User Guide, "Pass session tags in AWS STS").
const MAX_TAGS: usize = 50;

/// The claim of nested session tags (IAM User Guide, "Pass session tags in AWS STS", AssumeRoleWithWebIdentity).
pub(super) const TAGS: &str = "https://aws.amazon.com/tags";
/// The prefix of flattened ones.
pub(super) const FLAT_TAG: &str = "https://aws.amazon.com/tags/principal_tags/";
pub(super) const FLAT_TRANSITIVE: &str = "https://aws.amazon.com/tags/transitive_tag_keys";
/// The claim of the source identity (IAM User Guide, "Monitor and control actions taken with assumed roles").
pub(super) const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";

/// Checks the claims and makes them an identity. `client_ids` are those of the registered provider.
pub(super) fn check_claims(
    claims: &Map<String, Value>,
    client_ids: &[String],
    now: Timestamp,
) -> Result<WebIdentity, AwsError> {
    let subject = text_claim(claims, "sub")?.ok_or_else(|| missing("sub"))?;
    let original_audiences = audiences(claims)?;
    let issued = time_claim(claims, "iat")?.ok_or_else(|| missing("iat"))?;
    let expires = time_claim(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let not_before = time_claim(claims, "nbf")?;

    let now = now.as_second();
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
        return Err(AwsError::new(
            400,
            "ExpiredTokenException",
            format!("Token too old: {age}"),
        ));
    }

    let audience = match (text_claim(claims, "azp")?, original_audiences.as_slice()) {
        (Some(authorized_party), _) => authorized_party,
        (None, [only]) => only,
        (None, _) => {
            let message = "Token audience contains more than one audience while authorized party is not present";
            return Err(AwsError::invalid_token(message));
        }
    };
    if !client_ids.iter().any(|client_id| client_id == audience) {
        return Err(AwsError::invalid_token("Incorrect token audience"));
    }
    // SubjectFromWebIdentityToken in the answer has these bounds (STS API reference, AssumeRoleWithWebIdentity).
    if !(6..=255).contains(&subject.chars().count()) {
        return Err(AwsError::invalid_token("The sub claim must have 6 to 255 characters"));
    }
    let (tags, transitive_tag_keys) = session_tags(claims)?;
    Ok(WebIdentity {
        subject: subject.to_owned(),
        audience: audience.to_owned(),
        tags,
        transitive_tag_keys,
        source_identity: source_identity(claims)?,
        original_audiences,
    })
}

pub(super) fn missing(claim: &str) -> AwsError {
    AwsError::invalid_token(format!("Missing a required claim: {claim}"))
}

fn wrong(claim: &str, rule: &str) -> AwsError {
    AwsError::invalid_token(format!("Invalid claim {claim}: {rule}"))
}

pub(super) fn text_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AwsError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "must be a string")),
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

fn strings(list: &[Value]) -> Option<Vec<String>> {
    list.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// Session tags in the nested form, whose values are lists of exactly one string, or in the flattened form, whose
/// values are plain strings. A token with both forms is refused: AWS doesn't say which one counts.
fn session_tags(claims: &Map<String, Value>) -> Result<(BTreeMap<String, String>, Vec<String>), AwsError> {
    let flat: Vec<_> = claims
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(FLAT_TAG)?, value)))
        .collect();
    let flat_transitive = claims.get(FLAT_TRANSITIVE);
    let (pairs, transitive) = match claims.get(TAGS) {
        Some(_) if !flat.is_empty() || flat_transitive.is_some() => {
            return Err(wrong(TAGS, "tags are there nested and flattened"));
        }
        Some(nested) => {
            let tags = match nested.get("principal_tags") {
                None => Vec::new(),
                Some(Value::Object(tags)) => tags.iter().collect(),
                Some(_) => return Err(wrong(TAGS, "principal_tags must be an object")),
            };
            let single = tags
                .into_iter()
                .map(|(key, value)| match value.as_array().map(Vec::as_slice) {
                    Some([Value::String(only)]) => Ok((key.as_str(), only.as_str())),
                    _ => Err(wrong(
                        TAGS,
                        &format!("the value of {key} must be a list of exactly one string"),
                    )),
                });
            (
                single.collect::<Result<Vec<_>, _>>()?,
                nested.get("transitive_tag_keys"),
            )
        }
        None => {
            let plain = flat.into_iter().map(|(key, value)| {
                let value = value
                    .as_str()
                    .ok_or_else(|| wrong(TAGS, &format!("the value of {key} must be a string")))?;
                Ok((key, value))
            });
            (plain.collect::<Result<Vec<_>, AwsError>>()?, flat_transitive)
        }
    };
    if pairs.len() > MAX_TAGS {
        return Err(wrong(TAGS, "more than 50 tags"));
    }
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        if !(1..=128).contains(&key.chars().count()) || !key.chars().all(is_tag_character) {
            return Err(wrong(
                TAGS,
                &format!(r"the key `{key}` must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{1,128}}"),
            ));
        }
        if value.chars().count() > 256 || !value.chars().all(is_tag_character) {
            return Err(wrong(
                TAGS,
                &format!(r"the value of {key} must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{0,256}}"),
            ));
        }
        if [key, value].iter().any(|text| text.to_lowercase().starts_with("aws:")) {
            return Err(wrong(TAGS, &format!("{key}: keys and values must not begin with aws:")));
        }
        if tags
            .keys()
            .any(|other: &String| other.to_lowercase() == key.to_lowercase())
        {
            return Err(wrong(
                TAGS,
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    let transitive = match transitive {
        None => Vec::new(),
        Some(Value::Array(list)) => strings(list).ok_or_else(|| wrong(TAGS, "transitive_tag_keys must be strings"))?,
        Some(_) => return Err(wrong(TAGS, "transitive_tag_keys must be a list")),
    };
    match transitive
        .iter()
        .find(|key| !tags.keys().any(|tag| tag.to_lowercase() == key.to_lowercase()))
    {
        Some(key) => Err(wrong(
            TAGS,
            &format!("the transitive tag key {key} is not among the tags"),
        )),
        None => Ok((tags, transitive)),
    }
}

fn source_identity(claims: &Map<String, Value>) -> Result<Option<String>, AwsError> {
    let Some(text) = text_claim(claims, SOURCE_IDENTITY)? else {
        return Ok(None);
    };
    let valid = (2..=64).contains(&text.len()) && text.chars().all(is_name_character) && !text.starts_with("aws:");
    if valid {
        Ok(Some(text.to_owned()))
    } else {
        Err(wrong(SOURCE_IDENTITY, r"must match [\w+=,.@-]{2,64}"))
    }
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`; the standard library's letters include a few combining marks that \p{L} does not.
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}
