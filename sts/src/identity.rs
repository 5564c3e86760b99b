//! The identity that a verified token proves.

use std::collections::BTreeMap;

/// What a verified token says of its bearer. Trust policies are decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WebIdentity {
    pub(crate) subject: String,
    /// `azp` if there is one, else the only `aud`.
    pub(crate) audience: String,
    /// `aud` as the token has it.
    pub(crate) original_audiences: Vec<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) source_identity: Option<String>,
}
