//! Trusted identity propagation: the document that maps claims of an identity provider's tokens to context keys.
//!
//! The document and its bounds are those of IAM's service model of November 2026 (`ContextProvider`,
//! `ContextProviderKeyDefinition`, `CreateOpenIDConnectProvider`, `UpdateOpenIDConnectProvider`), the keys that come of it
//! those of the STS model (`TrustedIdentityPropagationContext`).
//!
//! Not yet seen by AWS, and therefore taken in the strict way: a claim is a text at the top level (a name never reaches
//! into an object), the subject's claim must be there, a mapped claim that is there must be a text of 1..=128 characters,
//! a mapping names its target, and two mappings have targets that differ in more than case. Whether the role's trust
//! policy must allow `sts:SetContext` is not known either; it is not asked for. Identity Center instances are not there.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::aws_error::AwsError;

/// `contextProviderSourceKeyType`, `contextProviderTargetKeyType`, `subjectTypeValueType`: characters.
const MAX_KEY: usize = 128;
/// `keyDefinitionListType`.
const MAX_MAPPINGS: usize = 10;
/// `transactionContextValueType`: characters.
const MAX_VALUE: usize = 128;

/// A document that IAM would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextProvider {
    subject: String,
    subject_type: Option<SubjectType>,
    /// Target key and the claim that it takes.
    mappings: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SubjectType {
    Value(String),
    Claim(String),
}

/// The values that STS sets in a session out of a token, and nobody can change there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Propagated {
    pub(crate) subject: String,
    pub(crate) subject_type: Option<String>,
    /// `iss` without `https://`.
    pub(crate) issuer: String,
    pub(crate) provider_arn: String,
    /// By target key.
    pub(crate) transaction: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ContextDocument {
    subject_source_key: String,
    subject_type_value: Option<String>,
    subject_type_source_key: Option<String>,
    #[serde(default)]
    key_definition_list: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct KeyDefinition {
    source_key: String,
    target_key: Option<String>,
}

impl ContextProvider {
    /// Reads the document as `CreateOpenIDConnectProvider` takes it. The error begins with the place in it.
    pub(crate) fn parse(document: &Value) -> Result<Self, String> {
        let document: ContextDocument = object(document).map_err(|problem| format!("ContextProvider: {problem}"))?;
        let subject = key(document.subject_source_key, "SubjectSourceKey")?;
        let subject_type = subject_type(document.subject_type_value, document.subject_type_source_key)?;
        if document.key_definition_list.len() > MAX_MAPPINGS {
            let count = document.key_definition_list.len();
            return Err(format!(
                "KeyDefinitionList: {count} mappings, at most {MAX_MAPPINGS} are allowed"
            ));
        }
        let mut mappings = Vec::new();
        let mut targets = HashSet::new();
        for (index, mapping) in document.key_definition_list.iter().enumerate() {
            let at = format!("KeyDefinitionList[{index}]");
            let mapping: KeyDefinition = object(mapping).map_err(|problem| format!("{at}: {problem}"))?;
            let source = key(mapping.source_key, &format!("{at}.SourceKey"))?;
            let target = mapping
                .target_key
                .ok_or_else(|| format!("{at}.TargetKey: is required here: IAM doesn't say what stands without it"))?;
            let target = key(target, &format!("{at}.TargetKey"))?;
            if !targets.insert(target.to_lowercase()) {
                return Err(format!("{at}.TargetKey: `{target}` is there twice; case doesn't count"));
            }
            mappings.push((target, source));
        }
        Ok(Self {
            subject,
            subject_type,
            mappings,
        })
    }

    /// Maps the claims of a verified token of `issuer`.
    pub(crate) fn read(
        &self,
        claims: &Map<String, Value>,
        issuer: &str,
        provider_arn: &str,
    ) -> Result<Propagated, AwsError> {
        let subject_type = match &self.subject_type {
            None => None,
            Some(SubjectType::Value(value)) => Some(value.clone()),
            Some(SubjectType::Claim(name)) => {
                let value = required(claims, name)?;
                let known = is_subject_type(value);
                Some(
                    known
                        .then(|| value.to_owned())
                        .ok_or_else(|| wrong(name, "must be user or workload"))?,
                )
            }
        };
        let mut transaction = BTreeMap::new();
        for (target, source) in &self.mappings {
            if let Some(value) = text(claims, source)? {
                if value.chars().count() > MAX_VALUE {
                    return Err(wrong(source, "must have at most 128 characters"));
                }
                transaction.insert(target.clone(), value.to_owned());
            }
        }
        Ok(Propagated {
            subject: required(claims, &self.subject)?.to_owned(),
            subject_type,
            issuer: issuer.strip_prefix("https://").unwrap_or(issuer).to_owned(),
            provider_arn: provider_arn.to_owned(),
            transaction,
        })
    }
}

impl Propagated {
    /// The context keys and their values.
    pub(crate) fn context_keys(&self) -> impl Iterator<Item = (String, &str)> {
        let origin = [
            ("Subject", Some(&self.subject)),
            ("SubjectType", self.subject_type.as_ref()),
            ("Issuer", Some(&self.issuer)),
            ("FederatedProviderArn", Some(&self.provider_arn)),
        ];
        let origin = origin
            .into_iter()
            .filter_map(|(name, value)| Some((format!("aws:OriginIdentity/{name}"), value?.as_str())));
        let transaction = self
            .transaction
            .iter()
            .map(|(key, value)| (format!("aws:TransactionContext/IdentityProvider/{key}"), value.as_str()));
        origin.chain(transaction)
    }
}

fn subject_type(value: Option<String>, claim: Option<String>) -> Result<Option<SubjectType>, String> {
    // An empty value means that no static type is set.
    match (value.filter(|value| !value.is_empty()), claim) {
        (Some(_), Some(_)) => Err("SubjectTypeValue: excludes SubjectTypeSourceKey".to_owned()),
        (Some(value), None) if is_subject_type(&value) => Ok(Some(SubjectType::Value(value))),
        (Some(value), None) => Err(format!("SubjectTypeValue: `{value}` is neither user nor workload")),
        (None, Some(claim)) => Ok(Some(SubjectType::Claim(key(claim, "SubjectTypeSourceKey")?))),
        (None, None) => Ok(None),
    }
}

/// A structure from an object; serde would take a list of its members, too.
fn object<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    if !value.is_object() {
        return Err("must be an object".to_owned());
    }
    T::deserialize(value).map_err(|error| error.to_string())
}

/// The two types that the models name. Others are not yet seen by AWS.
fn is_subject_type(text: &str) -> bool {
    matches!(text, "user" | "workload")
}

/// A source or target key: 1..=128 ASCII letters, digits, single spaces and `_ . : / = + - @ #`, no space at the ends.
fn key(text: String, at: &str) -> Result<String, String> {
    if !(1..=MAX_KEY).contains(&text.chars().count()) {
        return Err(format!("{at}: must have 1..={MAX_KEY} characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@#".contains(c);
    if !text.chars().all(allowed) || text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(format!(
            "{at}: `{text}` must consist of A-Z a-z 0-9 _ . : / = + - @ # and single spaces that don't stand at its ends"
        ));
    }
    Ok(text)
}

fn wrong(claim: &str, rule: &str) -> AwsError {
    AwsError::invalid_token(format!("Invalid claim {claim}: {rule}"))
}

fn required<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, AwsError> {
    text(claims, name)?.ok_or_else(|| AwsError::invalid_token(format!("Missing a required claim: {name}")))
}

/// The text of a claim at the top level.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AwsError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(wrong(name, "must be a text of at least one character")),
    }
}

#[cfg(test)]
mod tests;
