//! What a policy says.

#![expect(
    clippy::duplicated_attributes,
    reason = "each printed column has its own name and path"
)]
#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use super::selector::LabelSelector;
use super::status::PolicyStatus;
use super::time::{ActiveSchedule, OnExpiry};
use super::{schema, size};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    doc = "TokenScopePolicy says which workloads of its namespace may take which AWS IAM role by web identity. A pod asks for a role with the annotation tokenscope.io/role-arn, or gets the policy's default role.",
    printcolumn(
        name = "Role",
        type_ = "string",
        json_path = ".spec.roles.default",
        description = "the role of a matching pod that names none"
    ),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".spec.token.source",
        description = "who signs the token"
    ),
    printcolumn(
        name = "Matched",
        type_ = "integer",
        json_path = ".status.matchedPods",
        description = "running pods that the policy selects"
    ),
    printcolumn(
        name = "Missed",
        type_ = "integer",
        json_path = ".status.missedPods",
        description = "matched pods that run without what the policy grants"
    ),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Active\")].status",
        priority = 1,
        description = "whether the policy is in force now"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "whether there is nothing for a person to do"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.claims) || (has(self.token) && self.token.source == 'Issuer')")
    .message("should be left out unless token.source is Issuer: only tokenscope's own issuer can sign claims")
    .field_path(".claims"))]
pub struct PolicySpec {
    /// What the policy is for, in words: at most 256 characters. Nothing reads it but people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub description: String,

    /// Which pods the policy is about. A pod is meant if any item matches it; an item matches if everything in it does.
    /// Without items the policy is about no pod. At most 32 items with 8192 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = size::subjects()))]
    pub subjects: Vec<Subject>,

    /// Which IAM roles these pods may have.
    pub roles: Roles,

    /// For whom the pods' tokens may be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audiences: Audiences,

    /// What kind of token the pods get.
    #[serde(default)]
    pub token: Token,

    /// What the token says about the pod besides its subject. Only with token.source Issuer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub claims: Claims,

    /// What the AWS SDK in the containers is told.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aws: Aws,

    /// Which containers of a matching pod get credentials. Left out: all of them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub containers: Containers,

    /// Switches the policy off: it grants nothing to new pods, as if it weren't there. Pods that run with a grant of it keep
    /// their role, since the kubelet renews their tokens as long as they run: see onExpiry.
    #[serde(default)]
    pub disabled: bool,

    /// Makes the policy count only where no policy without fallback grants the pod's request.
    #[serde(default)]
    pub fallback: bool,

    /// From this moment on the policy grants nothing to new pods, RFC 3339, such as "2027-01-01T00:00:00Z". Pods that run with
    /// a grant of it keep their role, since the kubelet renews their tokens as long as they run: see onExpiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub expires_at: Option<String>,

    /// Limits the policy to times of the day, week or year: it grants only to pods that are created in an open window. Pods
    /// that run when a window closes keep their role, since the kubelet renews their tokens as long as they run: see
    /// onExpiry. Left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_schedule: Option<ActiveSchedule>,

    /// What becomes of pods that run with a grant of the policy once it has expired, is disabled or its window is closed.
    /// Keep: they keep their role until they are deleted. Evict: the operator evicts them, within their
    /// PodDisruptionBudgets, if the chart's value operator.evictExpired allows it to. No token is revoked: one that a pod
    /// read before stays valid until it expires.
    #[serde(default)]
    pub on_expiry: OnExpiry,
}

/// A group of pods. Everything in it must match; an empty one matches every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
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
        .message("should have allowed, default or both: without them the policy grants nothing"),
    // What a whole glob match in CEL would cost is beyond the API server's budget. Here . and + of a pattern with * stand
    // for any character, and a pattern with rarer characters counts as covering: the operator judges what this lets through.
    validation = Rule::new(concat!(
        "!has(self.default) || !has(self.allowed) || self.allowed.size() == 0 || self.allowed.exists(pattern, ",
        "pattern == self.default || (pattern.contains('*') && (pattern.matches(r'[^A-Za-z0-9_:/+=,.@*-]') || ",
        "self.default.matches('^' + pattern.replace('+', '.').replace('*', '.*') + '$'))))",
    ))
    .message("should be one of the roles in roles.allowed: add it there, or a pattern that covers it")
    .field_path(".default")
)]
pub struct Roles {
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
    .message("should be one of audiences.allowed: add it there")
    .field_path(".default"))]
pub struct Audiences {
    /// Audiences that a pod may ask for with the annotation tokenscope.io/audience, such as sts.amazonaws.com. Left out or
    /// empty: any. At most 32 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::audiences")]
    pub allowed: Vec<String>,

    /// The audience of a pod that asks for none. Left out: the installation's default, sts.amazonaws.com unless it was
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::audience")]
    pub default: Option<String>,
}

/// The kind of token.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.algorithm) || self.source == 'Issuer'")
        .message("should be left out unless token.source is Issuer: other sources choose their algorithm themselves")
        .field_path(".algorithm"),
    validation = Rule::new("self.source != 'SPIFFE' || self.expirationSeconds == 3600")
        .message("should be left out with token.source SPIFFE: the SPIFFE provider decides how long its tokens are valid, in SPIRE by the entry's jwtSVIDTTL or default_jwt_svid_ttl")
        .field_path(".expirationSeconds"),
    validation = Rule::new("!has(self.spiffe) || self.source == 'SPIFFE'")
        .message("should be left out unless token.source is SPIFFE")
        .field_path(".spiffe")
)]
pub struct Token {
    /// Who signs the token. ServiceAccount: the cluster, as a projected service account token. SPIFFE: a SPIFFE provider
    /// such as SPIRE, as a JWT-SVID. Issuer: tokenscope's own OIDC issuer.
    #[serde(default)]
    pub source: Source,

    /// How long the token is valid, in seconds: 600 (10 minutes) to 86400 (a day). A pod may ask for less with the
    /// annotation tokenscope.io/token-expiration. With source SPIFFE it means nothing and can't be set: the SPIFFE provider
    /// decides, in SPIRE by the entry's jwtSVIDTTL or the server's default_jwt_svid_ttl.
    #[serde(default = "hour")]
    #[schemars(range(min = 600, max = 86400))]
    pub expiration_seconds: i64,

    /// What the token is signed with. Only with source Issuer, where RS256 is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,

    /// Which of the pod's SPIFFE identities the token is of. Only with source SPIFFE. Left out: the one that the SPIFFE
    /// provider names first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spiffe: Spiffe,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            source: Source::default(),
            expiration_seconds: hour(),
            algorithm: None,
            spiffe: Spiffe::default(),
        }
    }
}

fn hour() -> i64 {
    3600
}

/// Who signs the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum Source {
    #[default]
    ServiceAccount,
    #[serde(rename = "SPIFFE")]
    Spiffe,
    Issuer,
}

/// One of a workload's SPIFFE identities, and what of it the pod gets beside the token.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.spiffeId) || !has(self.trustDomain) || self.spiffeId.startsWith('spiffe://' + self.trustDomain + '/')")
    .message("should be the trust domain of token.spiffe.spiffeId, or be left out")
    .field_path(".trustDomain"))]
pub struct Spiffe {
    /// The SPIFFE ID that the token must be of, such as spiffe://example.org/ns/shop/sa/orders. It becomes the token's
    /// subject, and with it the status has trust policies ready to paste. The SPIFFE provider must give it to the pods,
    /// or they don't start. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub spiffe_id: Option<String>,

    /// The hint of the identity, for pods that have several: in SPIRE the entry's hint. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hint")]
    pub hint: Option<String>,

    /// The trust domain of the identity, such as example.org, for pods that have identities of several. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::trust_domain")]
    pub trust_domain: Option<String>,

    /// Whether the identity's X.509-SVID is kept beside the token: svid.pem, svid_key.pem (readable only for the user that
    /// the sidecar runs as) and svid_bundle.pem.
    #[serde(default)]
    pub x509_svid: bool,

    /// Whether the keys of all trust domains that the pod may know are kept beside the token: jwt_bundle.json, an object
    /// from trust domain ID to JWKS, by which it can check the JWT-SVIDs of others.
    #[serde(default)]
    pub jwt_bundle: bool,
}

/// What the token is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum Algorithm {
    RS256,
    ES256,
    ES384,
}

/// Claims of a token that tokenscope's issuer signs. Values are templates over ${namespace},
/// ${namespace.labels['key']}, ${serviceAccount}, ${pod.name}, ${pod.uid} and ${pod.labels['key']}.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.transitiveTagKeys) || self.transitiveTagKeys.all(key, has(self.principalTags) && key in self.principalTags)")
    .message("should name only keys of claims.principalTags, written in the same way")
    .field_path(".transitiveTagKeys"))]
pub struct Claims {
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
}

/// What the AWS SDK is told by environment variables. A variable that a container sets itself is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// AWS_REGION and AWS_DEFAULT_REGION, such as eu-central-1. Left out: the installation's default, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::region")]
    pub region: Option<String>,

    /// Whether AWS_STS_REGIONAL_ENDPOINTS is set to regional, so that STS is asked in the pod's own region. Left out: the
    /// installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_regional_endpoints: Option<bool>,

    /// AWS_ROLE_SESSION_NAME, by which CloudTrail tells sessions apart: ${pod.name} alone, or a template without
    /// ${pod.name} and ${pod.uid}, such as "${namespace}.${serviceAccount}". Left out: the SDK makes one up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::role_session_name")]
    pub role_session_name: Option<String>,
}

/// Containers by name, init containers included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Containers {
    /// Names of containers that get credentials, in which * stands for any characters. Left out or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::containers")]
    pub include: Vec<String>,

    /// Names of containers that get none, also if include has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::containers")]
    pub exclude: Vec<String>,
}

/// For fields that are left out when they say nothing.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
