//! `tokenscope.io/v1alpha1`. Doc comments here are what `kubectl explain` prints.

// The descriptions are read in a terminal, not as Markdown.
#![allow(clippy::doc_link_with_quotes)]

mod cluster_policy;
mod policy;
mod schema;
mod size;
mod status;

pub use cluster_policy::{ClusterPolicySpec, ClusterTokenScopePolicy};
pub use policy::{
    ActiveSchedule, Algorithm, Audiences, Aws, Claims, Containers, LabelOperator, LabelRequirement, LabelSelector,
    OnExpiry, PolicySpec, Roles, Source, Spiffe, Subject, Token, TokenScopePolicy,
};
pub use status::{MOST_NAMES, MOST_TRUST_POLICIES, PolicyStatus, TrustPolicy};

/// The API group of both kinds.
pub const GROUP: &str = "tokenscope.io";
