//! The context keys of all policies, which one document of AWS maps.
//!
//! An IAM OIDC provider has one ContextProvider with at most ten keys, so the keys of all policies with source Issuer share them. The
//! older policy has its keys; one whose keys don't fit beside those of older ones grants nothing.

use crate::{
    Policy, PolicyName, TokenSource,
    claims::{CONTEXT_PREFIX, MOST_CONTEXT_KEYS},
    text::some_of,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The keys of the document, and the policies without room in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextKeys {
    keys: BTreeSet<Box<str>>,
    without_room: BTreeMap<PolicyName, NoContextRoom>,
}

/// The reason why a policy's context keys have no room. `Display` is a clause that names the key and those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.claims.context[{key}] would be one key too many: AWS takes {MOST_CONTEXT_KEYS} for all policies of an issuer, and older policies have {keys}; use one of these, or remove keys there"
)]
pub struct NoContextRoom {
    key: Box<str>,
    keys: Box<str>,
}

impl ContextKeys {
    /// The keys of these policies: those of the oldest first, by name where two are of the same second.
    pub(crate) fn of<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let mut policies: Vec<_> = policies.filter(|policy| has_context(policy)).collect();
        policies.sort_by_key(|policy| (policy.created.unwrap_or(Timestamp::MAX), &policy.name));
        let mut found = Self::default();
        for policy in policies {
            let mut new = policy.claims.context.keys().filter(|key| !found.keys.contains(*key));
            match new.nth(MOST_CONTEXT_KEYS.saturating_sub(found.keys.len())) {
                None => found.keys.extend(policy.claims.context.keys().cloned()),
                Some(key) => {
                    let keys: Vec<_> = found.keys.iter().collect();
                    let why = NoContextRoom {
                        key: key.clone(),
                        keys: some_of(&keys),
                    };
                    found.without_room.insert(policy.name.clone(), why);
                }
            }
        }
        found
    }

    /// The keys, in order; the claim of `team` is `tokenscope_team`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// `ContextProvider` as CreateOpenIDConnectProvider and UpdateOpenIDConnectProvider take it (IAM's service model of November
    /// 2026). Not yet seen by AWS.
    pub fn provider_document(&self) -> serde_json::Value {
        let mappings = self
            .keys()
            .map(|key| serde_json::json!({"SourceKey": format!("{CONTEXT_PREFIX}{key}"), "TargetKey": key}));
        serde_json::json!({
            "SubjectSourceKey": "sub",
            "SubjectTypeValue": "workload",
            "KeyDefinitionList": mappings.collect::<Vec<_>>(),
        })
    }

    /// The policies whose keys have no room, and why.
    pub fn without_room(&self) -> &BTreeMap<PolicyName, NoContextRoom> {
        &self.without_room
    }
}

/// True if its tokens have a context.
pub(crate) fn has_context(policy: &Policy) -> bool {
    policy.token.source == TokenSource::Issuer && !policy.claims.context.is_empty()
}
