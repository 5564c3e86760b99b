//! Session tags and the source identity of a token: the claims under `https://aws.amazon.com/`.
//!
//! IAM User Guide, "Pass session tags in AWS STS" (AssumeRoleWithWebIdentity, "Things to know about session tags") and
//! "Monitor and control actions taken with assumed roles"; bounds and patterns from the STS service model (`tagListType`,
//! `tagKeyType`, `tagValueType`, `tagKeyListType`).
//!
//! Not yet seen by AWS, and therefore taken in the strict way: the error's code and words, both forms of tags in one
//! token, members of the claim and claims under the prefix that nobody documents, a transitive key that is no tag or
//! stands twice.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::claim::{strings, text_claim, wrong};
use crate::aws_error::AwsError;
use crate::names::is_name_character;
use crate::tags::{MAX_TAGS, check_transitive, checked};

const AWS_CLAIMS: &str = "https://aws.amazon.com/";
/// The claim of nested tags.
pub(super) const TAGS: &str = "https://aws.amazon.com/tags";
/// The prefix of flattened ones, for issuers that can't nest.
pub(super) const FLAT_TAG: &str = "https://aws.amazon.com/tags/principal_tags/";
pub(super) const FLAT_TRANSITIVE: &str = "https://aws.amazon.com/tags/transitive_tag_keys";
/// The claim of the source identity.
pub(super) const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";

/// Tags by key, and the keys of those that last through a chain of roles.
#[derive(Debug, Default)]
pub(super) struct SessionTags {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) transitive: Vec<String>,
}

/// The tags of a token, in the nested form, whose values are lists of exactly one string, or in the flattened form,
/// whose values are plain strings.
pub(super) fn session_tags(claims: &Map<String, Value>) -> Result<SessionTags, AwsError> {
    if let Some(unknown) = claims.keys().find(|name| !is_known(name)) {
        return Err(wrong(unknown, "is no claim that AWS documents"));
    }
    let flat: Vec<_> = claims
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(FLAT_TAG)?, value)))
        .collect();
    let flat_transitive = claims.get(FLAT_TRANSITIVE);
    let (pairs, transitive) = match claims.get(TAGS) {
        Some(_) if !flat.is_empty() || flat_transitive.is_some() => {
            return Err(wrong(TAGS, "tags are there nested and flattened"));
        }
        Some(nested) => nested_tags(nested)?,
        None => (flattened_tags(flat)?, flat_transitive),
    };
    let tags = checked(&pairs).map_err(|rule| wrong(TAGS, &rule))?;
    let transitive = transitive_keys(transitive, &tags)?;
    Ok(SessionTags { tags, transitive })
}

fn is_known(claim: &str) -> bool {
    !claim.starts_with(AWS_CLAIMS)
        || [TAGS, FLAT_TRANSITIVE, SOURCE_IDENTITY].contains(&claim)
        || claim.starts_with(FLAT_TAG)
}

type TagPairs<'a> = Vec<(&'a str, &'a str)>;

fn nested_tags(claim: &Value) -> Result<(TagPairs<'_>, Option<&Value>), AwsError> {
    let claim = claim.as_object().ok_or_else(|| wrong(TAGS, "must be an object"))?;
    let known = ["principal_tags", "transitive_tag_keys"];
    if let Some(other) = claim.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(wrong(TAGS, &format!("{other} is no member that AWS documents")));
    }
    let mut pairs = Vec::new();
    match claim.get("principal_tags") {
        None => {}
        Some(Value::Object(tags)) => {
            for (key, value) in tags {
                let Some([Value::String(only)]) = value.as_array().map(Vec::as_slice) else {
                    return Err(wrong(
                        TAGS,
                        &format!("the value of {key} must be a list of exactly one string"),
                    ));
                };
                pairs.push((key.as_str(), only.as_str()));
            }
        }
        Some(_) => return Err(wrong(TAGS, "principal_tags must be an object")),
    }
    Ok((pairs, claim.get("transitive_tag_keys")))
}

fn flattened_tags<'a>(claims: Vec<(&'a str, &'a Value)>) -> Result<TagPairs<'a>, AwsError> {
    let text = |(key, value): (&'a str, &'a Value)| {
        let value = value
            .as_str()
            .ok_or_else(|| wrong(TAGS, &format!("the value of {key} must be a string")))?;
        Ok((key, value))
    };
    claims.into_iter().map(text).collect()
}

fn transitive_keys(list: Option<&Value>, tags: &BTreeMap<String, String>) -> Result<Vec<String>, AwsError> {
    let keys = match list {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() > MAX_TAGS => {
            return Err(wrong(TAGS, "more than 50 transitive_tag_keys"));
        }
        Some(Value::Array(list)) => strings(list).ok_or_else(|| wrong(TAGS, "transitive_tag_keys must be strings"))?,
        Some(_) => return Err(wrong(TAGS, "transitive_tag_keys must be a list")),
    };
    check_transitive(&keys, tags).map_err(|rule| wrong(TAGS, &rule))?;
    Ok(keys)
}

/// The source identity: 2..=64 characters (IAM User Guide, "IAM and AWS STS quotas"; the model's type of the answer allows
/// 256 since November 2026), none of which is the colon of the reserved prefix `aws:`.
pub(super) fn source_identity(claims: &Map<String, Value>) -> Result<Option<String>, AwsError> {
    if claims.get(SOURCE_IDENTITY).is_some_and(Value::is_null) {
        return Err(wrong(SOURCE_IDENTITY, "must be a string"));
    }
    let Some(text) = text_claim(claims, SOURCE_IDENTITY)? else {
        return Ok(None);
    };
    if (2..=64).contains(&text.len()) && text.chars().all(is_name_character) {
        Ok(Some(text.to_owned()))
    } else {
        Err(wrong(SOURCE_IDENTITY, r"must match [\w+=,.@-]{2,64}"))
    }
}

#[cfg(test)]
mod tests;
