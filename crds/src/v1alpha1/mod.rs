//! `tokenscope.io/v1alpha1`. Doc comments here are what `kubectl explain` prints.

// The descriptions are read in a terminal, not as Markdown.
#![allow(clippy::doc_link_with_quotes)]

mod aws;
mod boundary;
mod claims;
mod cluster_policy;
mod default;
mod delivery;
mod policy;
mod schema;
mod selector;
mod size;
mod status;
mod time;
mod token;

pub use aws::{AwsSpec, StsEndpointsSpec, StsSpec};
pub use boundary::{BoundarySpec, TokenScopeBoundary};
pub use claims::ClaimsSpec;
pub use cluster_policy::{ClusterPolicySpec, ClusterTokenScopePolicy};
pub use delivery::{DeliverySpec, DeliveryTypeSpec, NamedProfileSpec, ProfileDeliverySpec, RoleHopSpec};
pub use policy::{AudiencesSpec, ContainersSpec, PolicySpec, RolesSpec, SubjectSpec, TokenScopePolicy};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector};
pub use status::{MOST_NAMES, MOST_TRUST_POLICIES, PolicyStatus, RoleChainPolicyStatus, TrustPolicyStatus};
pub use time::{ActiveSchedule, OnExpirySpec};
pub use token::{AlgorithmSpec, SourceSpec, SpiffeSpec, SubjectFormatSpec, TokenSpec};

/// The API group of all kinds.
pub const GROUP: &str = "tokenscope.io";
