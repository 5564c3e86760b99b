//! The status of a policy, which the operator writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most trust policies that a status holds.
pub const MOST_TRUST_POLICIES: usize = 20;

/// The most names of pods, and of CSI drivers, that a status holds.
pub const MOST_NAMES: usize = 5;

/// What the operator found out about the policy. Only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The metadata.generation that this status is about. While it differs from the policy's own, the status is of an
    /// older version of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When the operator first saw this generation (UTC). Pods that are older are counted as outdated rather than missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_observed_at: Option<Time>,

    /// Accepted: the policy makes sense. Active: it is in force now. Ready: there is nothing for a person to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,

    /// The role that a matching pod gets if it names none; or else the first that a pod may ask for, and how many more there
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub roles: Option<String>,

    /// Running pods that the policy gives a role, or would give one if they were created now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub matched_pods: Option<i64>,

    /// Matched pods that run with a grant of this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub injected_pods: Option<i64>,

    /// Matched pods that were certainly created while the policy granted them a role, and run without it: the webhook was not
    /// asked, or was down. Create them anew to repair them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub missed_pods: Option<i64>,

    /// Matched pods that were created before the policy said what it says now, or may have been: a restart would change what they
    /// have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub outdated_pods: Option<i64>,

    /// Running pods of the policy's namespace that hold a service account token of a locked audience which no policy grants
    /// them: they were created before the lock, or the policy that granted it is no longer in force. Not in a cluster policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ungranted_token_pods: Option<i64>,

    /// The names of the first 5 of these pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMES), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ungranted_token_pod_names: Vec<String>,

    /// The first 5 CSI drivers that get service account tokens of a locked audience for every pod that mounts a volume of
    /// them, by spec.tokenRequests of their CSIDriver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_NAMES), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub locked_token_csi_drivers: Vec<String>,

    /// For each role that the policy names exactly, the IAM trust policy that lets these workloads assume it, ready to
    /// paste into IAM. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_TRUST_POLICIES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleArn"])
    )]
    pub trust_policies: Vec<TrustPolicyStatus>,

    /// For each role of the policy's role chains, what IAM must say about it, ready to paste: both sides of each step need it. At
    /// most 20. Not yet seen by AWS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_TRUST_POLICIES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleArn"])
    )]
    pub role_chain_policies: Vec<RoleChainPolicyStatus>,

    /// For each role that the policy names exactly, the permission that it needs to have AWS sign the policy's tokens for third parties
    /// (outboundTokens with source AWS), ready to paste. At most 20. Not yet seen by AWS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_TRUST_POLICIES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleArn"])
    )]
    pub outbound_token_policies: Vec<OutboundTokenPolicyStatus>,
}

/// The permission of a role that AWS signs tokens for third parties for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundTokenPolicyStatus {
    /// The role that the document belongs to: the last one that is taken.
    #[schemars(length(max = 2048))]
    pub role_arn: String,

    /// The permission policy that it needs, JSON: audience, algorithm and lifetime are conditions.
    #[schemars(length(max = 65536))]
    pub permission_policy: String,

    /// What the document doesn't say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub notes: Vec<String>,
}

/// The IAM policies of one role of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleChainPolicyStatus {
    /// The role that the documents belong to.
    #[schemars(length(max = 2048))]
    pub role_arn: String,

    /// The permission policy that the role needs to take the next ones, JSON. Absent where it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub permission_policy: Option<String>,

    /// The trust policy that lets the roles before take the role, JSON. Absent where none does that the policy names exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub trust_policy: Option<String>,

    /// What the documents don't say, and what will not work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 4096)))]
    pub notes: Vec<String>,
}

/// The trust policy of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustPolicyStatus {
    /// The role that the document belongs to.
    #[schemars(length(max = 2048))]
    pub role_arn: String,

    /// The trust policy document, JSON.
    #[schemars(length(max = 65536))]
    pub document: String,

    /// Where the document allows more than the policy does, or may not fit IAM's limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub notes: Vec<String>,
}
