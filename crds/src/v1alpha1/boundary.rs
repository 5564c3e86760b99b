//! The most that policies of a namespace may grant.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use super::claims::ClaimsSpec;
use super::default::is_default;
use super::schema;
use super::selector::LabelSelector;
use super::token::SourceSpec;
use crate::messages;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The most that the TokenScopePolicies of the selected namespaces may grant.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tokenscope.io",
    version = "v1alpha1",
    kind = "TokenScopeBoundary",
    plural = "tokenscopeboundaries",
    singular = "tokenscopeboundary",
    shortname = "tsb",
    category = "tokenscope",
    derive = "Default",
    derive = "PartialEq",
    doc = "TokenScopeBoundary says what the TokenScopePolicies of the namespaces that it selects may grant at most. A policy that is not provably inside grants nothing, and its status says why. Where several select a namespace, a policy must be inside all of them; where none does, there is no limit. ClusterTokenScopePolicies have no boundary."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.roles.size() > 0").message(messages::BOUNDARY_ROLES).field_path(".roles"))]
pub struct BoundarySpec {
    /// Which namespaces the boundary is for, by their labels. Left out or empty: every namespace. Whoever may label a
    /// namespace decides here; the label kubernetes.io/metadata.name has the namespace's name and can't be changed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace_selector: LabelSelector,

    /// The roles that policies may allow, also in role chains and profiles: ARNs, in which * stands for any characters of the role's path and name. A policy's
    /// own pattern must be inside one of them: role/shop/* is inside role/*, role/* is not inside role/shop/*. At most 32 with
    /// 2048 characters together.
    #[schemars(schema_with = "schema::role_patterns")]
    pub roles: Vec<String>,

    /// The audiences that policies may allow. Where it has any, a policy must list its audiences and name a default. Left out
    /// or empty: any. At most 32 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::audiences")]
    pub audiences: Vec<String>,

    /// The longest lifetime of tokens, in seconds: 600 to 86400. It says nothing of a SPIFFE provider's tokens: leave SPIFFE
    /// out of sources where that is too much. Left out: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 600, max = 86400))]
    pub max_expiration_seconds: Option<i64>,

    /// Who may sign tokens. Left out or empty: anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub sources: Vec<SourceSpec>,

    /// The only claims that policies may have, each with exactly this value, such as
    /// principalTags: {Team: "${namespace.labels['team']}"}. An empty object allows none. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<ClaimsSpec>,
}
