//! The most that policies of a namespace may grant.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aws::{SessionPolicySpec, session_policy};
use super::claims::ClaimsSpec;
use super::default::is_default;
use super::schema;
use super::selector::LabelSelector;
use crate::messages;

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
#[x_kube(validation = Rule::new("!has(self.sessionPolicy) || has(self.sessionPolicy.inline) || (has(self.sessionPolicy.arns) && self.sessionPolicy.arns.size() > 0)").message(messages::BOUNDARY_SESSION_POLICY).field_path(".sessionPolicy"))]
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
    /// or empty: any. At most 32 with 768 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::audiences")]
    pub audiences: Vec<String>,

    /// The longest lifetime of tokens, and of sessions by aws.sessionDurationSeconds, in seconds: 600 to 86400. It says nothing of a SPIFFE provider's tokens: leave SPIFFE
    /// out of sources where that is too much. Left out: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 600, max = 86400))]
    pub max_expiration_seconds: Option<i64>,

    /// Who may sign tokens; AWS signs those for third parties alone. Left out or empty: anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub sources: Vec<SignerSpec>,

    /// The only claims that policies may have, each with exactly this value, such as
    /// principalTags: {Team: "${namespace.labels['team']}"}. An empty object allows none. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<ClaimsSpec>,

    /// The audiences that policies may give tokens for third parties (outboundTokens). An empty list allows no such token. Left out:
    /// any where audiences is left out too, otherwise none. At most 32 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::audiences")]
    pub outbound_audiences: Option<Vec<String>>,

    /// The policies that sessions must be narrowed by: policies must have delivery.type Endpoint without aporetoTokens, and an aws.sessionPolicy with no
    /// document but inline, character by character, and no ARNs but some of arns. One of these is enough, since a session may do what any of its
    /// policies allows. Left out: sessions need no policy. It says nothing of the sessions of EKS Pod Identity. At most 1536 characters together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "session_policy")]
    pub session_policy: Option<SessionPolicySpec>,
}

/// Who signs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum SignerSpec {
    ServiceAccount,
    #[serde(rename = "SPIFFE")]
    Spiffe,
    Issuer,
    #[serde(rename = "AWS")]
    Aws,
}
