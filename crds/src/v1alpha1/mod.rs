//! `tokenscope.io/v1alpha1`. Doc comments here are what `kubectl explain` prints.

// The descriptions are read in a terminal, not as Markdown.
#![allow(clippy::doc_link_with_quotes)]

mod aws;
mod boundary;
mod claims;
mod cluster_policy;
mod default;
mod delivery;
mod outbound;
mod policy;
mod schema;
mod selector;
mod size;
mod status;
mod time;
mod token;

pub use aws::{AwsSpec, SessionPolicySpec, StsEndpointsSpec, StsSpec};
pub use boundary::{BoundarySpec, SignerSpec, TokenScopeBoundary};
pub use claims::ClaimsSpec;
pub use cluster_policy::{ClusterPolicySpec, ClusterTokenScopePolicy};
pub use delivery::{
    DeliverySpec, DeliveryTypeSpec, EndpointDeliverySpec, NamedProfileSpec, ProfileDeliverySpec, RoleHopSpec,
};
pub use outbound::{
    OutboundAlgorithmSpec, OutboundAwsSpec, OutboundPresetSpec, OutboundSourceSpec, OutboundTokenSpec,
    OutboundValueFromSpec, OutboundVariableSpec, SubjectModeSpec,
};
pub use policy::{AudiencesSpec, ContainersSpec, PolicySpec, RolesSpec, SubjectSpec, TokenScopePolicy};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector};
pub use status::{
    MOST_NAMES, MOST_TRUST_POLICIES, OutboundTokenPolicyStatus, PolicyStatus, RoleChainPolicyStatus, TrustPolicyStatus,
};
pub use time::{ActiveSchedule, OnExpirySpec};
pub use token::{AlgorithmSpec, SourceSpec, SpiffeSpec, SubjectFormatSpec, TokenSpec};

/// The API group of all kinds.
pub const GROUP: &str = "tokenscope.io";
