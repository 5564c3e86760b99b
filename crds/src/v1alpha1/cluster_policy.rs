//! The cluster's kind of policy.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::default::is_default;
use super::policy::PolicySpec;
use super::selector::LabelSelector;
use super::status::PolicyStatus;

/// Which workloads of which namespaces may take which AWS roles, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tokenscope.io",
    version = "v1alpha1",
    kind = "ClusterTokenScopePolicy",
    plural = "clustertokenscopepolicies",
    singular = "clustertokenscopepolicy",
    shortname = "ctsp",
    category = "tokenscope",
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "ClusterTokenScopePolicy says which workloads may take which AWS IAM role by web identity, in all namespaces or in those that its namespaceSelector selects. Where a TokenScopePolicy of the pod's own namespace grants the same, that one counts."
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPolicySpec {
    /// What both kinds of policy say.
    #[serde(flatten)]
    pub policy: PolicySpec,

    /// Which namespaces the policy is about, by their labels. Left out or empty: every namespace. The label
    /// kubernetes.io/metadata.name has the namespace's name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace_selector: LabelSelector,
}
