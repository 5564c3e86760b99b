//! The specification of a policy.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aws::AwsSpec;
use super::claims::ClaimsSpec;
use super::default::is_default;
use super::delivery::DeliverySpec;
use super::outbound::{self, OutboundTokenSpec};
use super::selector::LabelSelector;
use super::status::PolicyStatus;
use super::time::{ActiveSchedule, OnExpirySpec};
use super::token::TokenSpec;
use super::{schema, size};
use crate::messages;

/// Which workloads may take which AWS roles, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tokenscope.io",
    version = "v1alpha1",
    kind = "TokenScopePolicy",
    plural = "tokenscopepolicies",
    singular = "tokenscopepolicy",
    shortname = "tsp",
    category = "tokenscope",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "TokenScopePolicy says which workloads of its namespace may take which AWS IAM role by web identity. A pod asks for a role with the annotation tokenscope.io/role-arn, or gets the policy's default role."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.claims) || (has(self.token) && self.token.source == 'Issuer')")
    .message(messages::CLAIMS_WITHOUT_ISSUER)
    .field_path(".claims"),
    validation = Rule::new("!has(self.aws) || !has(self.aws.roleChain) || (has(self.delivery) && self.delivery.type != 'File')")
    .message(messages::CHAIN_WITHOUT_TYPE)
    .field_path(".aws.roleChain"),
    validation = Rule::new("!has(self.aws) || !has(self.aws.sessionPolicy) || (has(self.delivery) && self.delivery.type == 'Endpoint')")
    .message(messages::SESSION_POLICY_WITHOUT_ENDPOINT)
    .field_path(".aws.sessionPolicy"),
    validation = Rule::new("!has(self.aws) || !has(self.aws.sessionDurationSeconds) || (has(self.delivery) && self.delivery.type == 'Endpoint')")
    .message(messages::DURATION_WITHOUT_ENDPOINT)
    .field_path(".aws.sessionDurationSeconds"),
    validation = Rule::new("!has(self.aws) || !has(self.aws.sessionDurationSeconds) || !has(self.aws.roleChain) || self.aws.sessionDurationSeconds <= 3600")
    .message(messages::DURATION_WITH_CHAIN)
    .field_path(".aws.sessionDurationSeconds"),
    validation = Rule::new("!has(self.aws) || !has(self.aws.sts) || !has(self.aws.sts.regions) || (has(self.delivery) && self.delivery.type == 'Endpoint')")
    .message(messages::REGIONS_WITHOUT_ENDPOINT)
    .field_path(".aws.sts.regions"),
    validation = Rule::new("!has(self.token) || !has(self.token.spiffe) || !has(self.delivery) || self.delivery.type != 'Endpoint' || !(self.token.spiffe.x509Svid || self.token.spiffe.jwtBundle)")
    .message(messages::FILES_WITH_ENDPOINT)
    .field_path(".token.spiffe"),
    validation = Rule::new("!has(self.delivery) || !has(self.delivery.endpoint) || !has(self.delivery.endpoint.aporetoTokens) || !self.delivery.endpoint.aporetoTokens || (has(self.token) && self.token.source == 'Issuer')")
    .message(messages::APORETO_WITHOUT_ISSUER)
    .field_path(".delivery.endpoint.aporetoTokens"),
    validation = Rule::new("!has(self.outboundTokens) || (has(self.token) && self.token.source == 'Issuer') || !self.outboundTokens.exists(each, has(each.source) && each.source == 'Issuer')")
    .message(messages::OUTBOUND_WITHOUT_ISSUER)
    .field_path(".outboundTokens"),
    validation = Rule::new("!has(self.outboundTokens) || (has(self.delivery) && self.delivery.type == 'Endpoint') || !self.outboundTokens.exists(each, has(each.source) && each.source == 'AWS')")
    .message(messages::OUTBOUND_WITHOUT_ENDPOINT)
    .field_path(".outboundTokens"))]
pub struct PolicySpec {
    /// What the policy is for, in words: at most 256 characters. Nothing reads it but people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(schema_with = "schema::description")]
    pub description: String,

    /// Which pods the policy is about. A pod is meant if any item matches it; an item matches if everything in it does.
    /// Without items the policy is about no pod. At most 32 items with 6144 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = size::subjects()))]
    pub subjects: Vec<SubjectSpec>,

    /// Which IAM roles these pods may have.
    pub roles: RolesSpec,

    /// For whom the pods' tokens may be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audiences: AudiencesSpec,

    /// What kind of token the pods get.
    #[serde(default)]
    pub token: TokenSpec,

    /// What the token says about the pod besides its subject. Only with token.source Issuer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub claims: ClaimsSpec,

    /// What the AWS SDK in the containers is told.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aws: AwsSpec,

    /// The way in which credentials reach the AWS SDK in the containers. Left out: by a token's file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delivery: DeliverySpec,

    /// Tokens for third parties that the containers get with their role, as files, with the variables that the third party's SDK
    /// reads. At most 8 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "outbound::tokens")]
    pub outbound_tokens: Vec<OutboundTokenSpec>,

    /// Which containers of a matching pod get credentials. Left out: all of them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub containers: ContainersSpec,

    /// Switches the policy off: it grants nothing to new pods, as if it weren't there. Pods that run with a grant of it keep
    /// their role, since the kubelet renews their tokens as long as they run: see onExpiry. With source Issuer they get no
    /// further token.
    #[serde(default)]
    pub disabled: bool,

    /// Makes the policy count only where no policy without fallback grants the pod's request.
    #[serde(default)]
    pub fallback: bool,

    /// From this moment on the policy grants nothing to new pods, RFC 3339, such as "2027-01-01T00:00:00Z". The trust policies
    /// in the status have it as a condition: where IAM has them as they are, AWS gives nobody new credentials from then on,
    /// running pods included. Where IAM has others, pods that run with a grant keep their role, since the kubelet (with source
    /// SPIFFE the sidecar) renews their tokens as long as they run: see onExpiry. With source Issuer they get no further token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub expires_at: Option<String>,

    /// Limits the policy to times of the day, week or year: it grants only to pods that are created in an open window. Pods
    /// that run when a window closes keep their role, since the kubelet renews their tokens as long as they run: see
    /// onExpiry. With source Issuer they get no further token until the next one opens. Left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_schedule: Option<ActiveSchedule>,

    /// What becomes of pods that run with a grant of the policy once it has expired, is disabled or its window is closed.
    /// Keep: they keep their role until they are deleted; after expiresAt only where IAM has another trust policy than the
    /// status's, which ends then. With source Issuer they keep the token that they have until it expires. Evict: the operator
    /// evicts them, within their PodDisruptionBudgets, if the chart's value operator.evictExpired allows it to and a
    /// controller makes them anew. No token is revoked: one that a pod read before stays valid until it expires.
    #[serde(default)]
    pub on_expiry: OnExpirySpec,
}

/// A group of pods. Everything in it must match; an empty one matches every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectSpec {
    /// Names of service accounts, in which * stands for any characters, such as orders or orders-*. Left out or empty:
    /// any service account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::service_accounts")]
    pub service_accounts: Vec<String>,

    /// Labels of the pod. Left out or empty: any labels. Who may label pods decides here: an IAM trust policy can't check
    /// labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// IAM roles.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.default) || (has(self.allowed) && self.allowed.size() > 0)")
        .message(messages::ROLES_EMPTY),
    // What a whole glob match in CEL would cost is beyond the API server's budget. Here . and + of a pattern with * stand
    // for any character, and a pattern with rarer characters counts as covering: the operator judges what this lets through.
    validation = Rule::new(concat!(
        "!has(self.default) || !has(self.allowed) || self.allowed.size() == 0 || self.allowed.exists(pattern, ",
        "pattern == self.default || (pattern.contains('*') && (pattern.matches(r'[^A-Za-z0-9_:/+=,.@*-]') || ",
        "self.default.matches('^' + pattern.replace('+', '.').replace('*', '.*') + '$'))))",
    ))
    .message(messages::DEFAULT_ROLE)
    .field_path(".default")
)]
pub struct RolesSpec {
    /// ARNs of roles that a pod may ask for, such as arn:aws:iam::111122223333:role/shop/orders. A * stands for any
    /// characters, also slashes, and may stand only in the role's path and name: arn:aws:iam::111122223333:role/shop/*.
    /// Left out or empty: the default role only. At most 32 with 2048 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::role_patterns")]
    pub allowed: Vec<String>,

    /// ARN of the role that a matching pod gets if it asks for none. Left out: a pod that asks for nothing gets nothing.
    /// Two policies that give the same pod different defaults are in conflict, and the pod is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::role_arn")]
    pub default: Option<String>,
}

/// Audiences of tokens.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.default) || !has(self.allowed) || self.allowed.size() == 0 || self.default in self.allowed")
    .message(messages::DEFAULT_AUDIENCE)
    .field_path(".default"))]
pub struct AudiencesSpec {
    /// Audiences that a pod may ask for with the annotation tokenscope.io/audience, such as sts.amazonaws.com. Left out or
    /// empty: any. At most 32 with 768 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::audiences")]
    pub allowed: Vec<String>,

    /// The audience of a pod that asks for none. Left out: the installation's default, sts.amazonaws.com unless it was
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::audience")]
    pub default: Option<String>,
}

/// Containers by name, init containers included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainersSpec {
    /// Names of containers that get credentials, in which * stands for any characters. Left out or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::containers")]
    pub include: Vec<String>,

    /// Names of containers that get none, also if include has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::containers")]
    pub exclude: Vec<String>,
}
