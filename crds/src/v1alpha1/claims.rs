//! The claims about the pod in a token of tokenscope's issuer.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use crate::messages;

/// Claims of a token that tokenscope's issuer signs. Values are templates over ${namespace},
/// ${namespace.labels['key']}, ${serviceAccount}, ${pod.name}, ${pod.uid} and ${pod.labels['key']}.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.transitiveTagKeys) || self.transitiveTagKeys.all(key, has(self.principalTags) && key in self.principalTags)")
    .message(messages::TRANSITIVE_KEY)
    .field_path(".transitiveTagKeys"))]
pub struct ClaimsSpec {
    /// Session tags by key, such as Team: "${pod.labels['team']}". At most 50 with 896 characters together. The role's trust policy must allow
    /// sts:TagSession.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::principal_tags")]
    pub principal_tags: BTreeMap<String, String>,

    /// Keys of principalTags that stay when the session assumes a further role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tag_keys")]
    pub transitive_tag_keys: Vec<String>,

    /// The session's source identity, such as "${namespace}.${serviceAccount}": 2 to 64 letters, digits and _+=,.@- once
    /// the variables are filled in. The role's trust policy must allow sts:SetSourceIdentity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::source_identity")]
    pub source_identity: Option<String>,

    /// Context of the session by key, such as team: "${pod.labels['team']}", for the ContextProvider of an IAM OIDC provider.
    /// Each is the claim tokenscope_<key>, with at most 128 characters once the variables are filled in. At most 10 with 768
    /// characters together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::context")]
    pub context: BTreeMap<String, String>,
}
