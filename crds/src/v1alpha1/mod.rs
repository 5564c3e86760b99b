//! `tokenscope.io/v1alpha1`. Doc comments here are what `kubectl explain` prints.

// The descriptions are read in a terminal, not as Markdown.
#![allow(clippy::doc_link_with_quotes)]

mod cluster_policy;
mod policy;
mod schema;
mod selector;
mod size;
mod status;
mod time;

pub use cluster_policy::{ClusterPolicySpec, ClusterTokenScopePolicy};
pub use policy::{
    Algorithm, Audiences, Aws, Claims, Containers, PolicySpec, Roles, Source, Spiffe, Subject, Token, TokenScopePolicy,
};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector};
pub use status::{MOST_NAMES, MOST_TRUST_POLICIES, PolicyStatus, TrustPolicy};
pub use time::{ActiveSchedule, OnExpiry};

/// The API group of both kinds.
pub const GROUP: &str = "tokenscope.io";
