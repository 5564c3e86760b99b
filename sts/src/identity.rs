//! The identity that a verified token proves.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::context_provider::Propagated;

/// A verified token's statement about its bearer. Trust policies are decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WebIdentity {
    pub(crate) subject: String,
    /// `azp` if there is one, else the only `aud`.
    pub(crate) audience: String,
    /// `aud` as the token has it.
    pub(crate) original_audiences: Vec<String>,
    /// `amr`.
    pub(crate) authentication_methods: Vec<String>,
    pub(crate) email: Option<String>,
    /// Session tags by key.
    pub(crate) tags: BTreeMap<String, String>,
    /// Those of `tags` that last when the session takes further roles.
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) source_identity: Option<String>,
    /// All claims: a context provider may name any of them.
    pub(crate) claims: Map<String, Value>,
    /// The result of the identity provider's context provider for the claims; none without one.
    pub(crate) propagated: Option<Propagated>,
}
