//! The claims of a token of tokenscope's issuer about the pod.

use std::collections::{BTreeMap, BTreeSet};

use tokenscope_core as core;
use tokenscope_core::claims::{
    MOST_CONTEXT_KEYS, MOST_CONTEXT_VALUE, MOST_TAG_KEY, MOST_TAG_VALUE, MOST_TAGS, folded_tag_key,
    is_context_character, is_context_key, is_reserved_tag, is_tag_text,
};
use tokenscope_core::{InvalidPolicy, Template};

use super::session_name::sts_name;
use super::{Placeholder, invalid, parse};
use crate::messages;
use crate::v1alpha1::{ClaimsSpec, SourceSpec};

pub(super) fn claims(claims: &ClaimsSpec, source: SourceSpec) -> Result<core::Claims, InvalidPolicy> {
    if *claims != ClaimsSpec::default() && source != SourceSpec::Issuer {
        return Err(invalid("spec.claims", messages::CLAIMS_WITHOUT_ISSUER));
    }
    for (index, key) in claims.transitive_tag_keys.iter().enumerate() {
        if !claims.principal_tags.contains_key(key) {
            return Err(invalid(
                format!("spec.claims.transitiveTagKeys[{index}]"),
                format!("{key:?} is none of them: {}", messages::TRANSITIVE_KEY),
            ));
        }
    }
    Ok(core::Claims {
        principal_tags: principal_tags(&claims.principal_tags)?,
        transitive_tag_keys: claims
            .transitive_tag_keys
            .iter()
            .map(|key| key.as_str().into())
            .collect(),
        context: context(&claims.context)?,
        source_identity: match &claims.source_identity {
            None => None,
            Some(text) => Some(sts_name(text, "spec.claims.sourceIdentity")?),
        },
    })
}

/// Tagging rules of the IAM user guide and of the API reference (Tag).
fn principal_tags(tags: &BTreeMap<String, String>) -> Result<BTreeMap<Box<str>, Template>, InvalidPolicy> {
    const FIELD: &str = "spec.claims.principalTags";
    if tags.len() > MOST_TAGS {
        return Err(invalid(
            FIELD,
            format!("should have at most {MOST_TAGS} tags, not {}", tags.len()),
        ));
    }
    let mut parsed = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for (key, value) in tags {
        let field = format!("{FIELD}[{key}]");
        if key.is_empty() || key.chars().count() > MOST_TAG_KEY || !is_tag_text(key) {
            return Err(invalid(field, messages::TAG_KEY));
        }
        if !keys.insert(folded_tag_key(key)) {
            return Err(invalid(field, messages::TAG_KEY_TWICE));
        }
        let template: Template = parse(value, &field)?;
        let literal = template.render(&Placeholder).unwrap_or_default();
        if !is_tag_text(&literal) {
            return Err(invalid(field, messages::TAG_VALUE));
        }
        if template
            .literal()
            .is_some_and(|text| text.chars().count() > MOST_TAG_VALUE)
        {
            return Err(invalid(field, messages::TAG_VALUE_LENGTH));
        }
        if is_reserved_tag(key) {
            return Err(invalid(field, messages::TAG_KEY_OF_AWS));
        }
        if is_reserved_tag(value) {
            return Err(invalid(field, messages::TAG_VALUE_OF_AWS));
        }
        parsed.insert(key.as_str().into(), template);
    }
    Ok(parsed)
}

/// Flat claims for an IAM OIDC provider's ContextProvider (IAM API reference, ContextProvider).
fn context(context: &BTreeMap<String, String>) -> Result<BTreeMap<Box<str>, Template>, InvalidPolicy> {
    const FIELD: &str = "spec.claims.context";
    if context.len() > MOST_CONTEXT_KEYS {
        return Err(invalid(
            FIELD,
            format!("should have at most {MOST_CONTEXT_KEYS} keys, not {}", context.len()),
        ));
    }
    let mut parsed = BTreeMap::new();
    for (key, value) in context {
        let field = format!("{FIELD}[{key}]");
        if !is_context_key(key) {
            return Err(invalid(field, messages::CONTEXT_KEY));
        }
        let template: Template = parse(value, &field)?;
        let literal = template.render(&Placeholder).unwrap_or_default();
        if !literal.chars().all(is_context_character) {
            return Err(invalid(field, messages::CONTEXT_VALUE));
        }
        let fits = |text: &str| (1..=MOST_CONTEXT_VALUE).contains(&text.len());
        if template.literal().is_some_and(|text| !fits(&text)) {
            return Err(invalid(field, messages::CONTEXT_VALUE_LENGTH));
        }
        parsed.insert(key.as_str().into(), template);
    }
    Ok(parsed)
}
