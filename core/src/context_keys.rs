//! The context keys of all policies, which one document of AWS maps.
//!
//! An IAM OIDC provider has one ContextProvider with at most ten keys, so the keys of all policies with source Issuer share them. Cluster
//! policies come first, and then those of namespaces, of each kind the older ones: whoever may write policies in one namespace takes
//! nothing of the cluster's, nor of what another namespace has already. One whose keys don't fit beside those of the policies before it
//! grants nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::claims::{CONTEXT_PREFIX, MOST_CONTEXT_KEYS};
use crate::text::some_of;
use crate::{Policy, PolicyName, TokenSource};

/// The keys of the document, and the policies without room in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextKeys {
    keys: BTreeSet<Box<str>>,
    without_room: BTreeMap<PolicyName, NoContextRoom>,
}

/// The reason why a policy's context keys have no room. `Display` is a clause that names the key and those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoContextRoom {
    /// There are as many keys as AWS takes.
    #[error(
        "spec.claims.context[{key}] would be one key too many: AWS takes {MOST_CONTEXT_KEYS} for all policies of an issuer, and cluster policies and older policies have {keys}; use one of these, or remove keys there"
    )]
    TooMany {
        /// The key that has no room.
        key: Box<str>,
        /// Those that are there.
        keys: Box<str>,
    },
    /// The same key is there in upper or lower case (IAM user guide, "IAM JSON policy elements: Condition": keys of conditions are not
    /// case-sensitive).
    #[error(
        "spec.claims.context[{key}] differs from the key {other} by upper and lower case alone, and AWS takes both for one: {other} is in a cluster policy, an older policy or this one. Write {other} here too, or choose another key"
    )]
    OtherCase {
        /// The key that has no room.
        key: Box<str>,
        /// The one that is there.
        other: Box<str>,
    },
}

impl ContextKeys {
    /// The entry of the operator's ConfigMap that has [`Self::provider_document`].
    pub const PROVIDER_ENTRY: &str = "context-provider.json";

    /// The keys of these policies: those of cluster policies first, then those of the oldest, by name where two are of the same second.
    pub(crate) fn of<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let mut policies: Vec<_> = policies.filter(|policy| has_context(policy)).collect();
        policies.sort_by_key(|policy| {
            let created = policy.created.unwrap_or(Timestamp::MAX);
            (!policy.name.is_cluster(), created, &policy.name)
        });
        let mut taken = BTreeMap::new();
        let mut without_room = BTreeMap::new();
        for policy in policies {
            match with_keys(&taken, policy) {
                Ok(with) => taken = with,
                Err(why) => {
                    without_room.insert(policy.name.clone(), why);
                }
            }
        }
        Self {
            keys: taken.into_values().collect(),
            without_room,
        }
    }

    /// The keys, in order; the claim of `team` is `tokenscope_team`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// The claims of the keys, in order: `tokenscope_team` for `team`. At most [`MOST_CONTEXT_KEYS`].
    pub fn claims(&self) -> impl Iterator<Item = String> {
        self.keys().map(|key| format!("{CONTEXT_PREFIX}{key}"))
    }

    /// `ContextProvider` as CreateOpenIDConnectProvider and UpdateOpenIDConnectProvider take it (IAM's service model of November
    /// 2026). Not yet seen by AWS.
    pub fn provider_document(&self) -> serde_json::Value {
        let mappings = self
            .keys()
            .zip(self.claims())
            .map(|(key, claim)| serde_json::json!({"SourceKey": claim, "TargetKey": key}));
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

/// The keys with those of a further policy, by their lower case. There are at most [`MOST_CONTEXT_KEYS`].
fn with_keys(taken: &BTreeMap<String, Box<str>>, policy: &Policy) -> Result<BTreeMap<String, Box<str>>, NoContextRoom> {
    let mut with = taken.clone();
    for key in policy.claims.context.keys() {
        let lower = key.to_ascii_lowercase();
        match with.get(&lower) {
            Some(other) if other == key => {}
            Some(other) => {
                return Err(NoContextRoom::OtherCase {
                    key: key.clone(),
                    other: other.clone(),
                });
            }
            None if with.len() >= MOST_CONTEXT_KEYS => {
                let keys: Vec<_> = taken.values().collect();
                return Err(NoContextRoom::TooMany {
                    key: key.clone(),
                    keys: some_of(&keys),
                });
            }
            None => {
                with.insert(lower, key.clone());
            }
        }
    }
    Ok(with)
}

/// True if its tokens have a context.
pub(crate) fn has_context(policy: &Policy) -> bool {
    policy.token.source == TokenSource::Issuer && !policy.claims.context.is_empty()
}
