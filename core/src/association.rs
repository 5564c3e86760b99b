//! The credentials of a container whose role an association of EKS Pod Identity decides.

use std::sync::Arc;

use crate::{Audience, PolicyName, Region, RoleArn, TokenExpiration, TokenSource};

/// What the containers of a pod get to reach the agent on their node, beside its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The audience of the token.
    pub audience: Audience,
    /// The longest lifetime of the token.
    pub expiration: TokenExpiration,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    pub region: Option<Region>,
    /// True if `AWS_STS_REGIONAL_ENDPOINTS` is `regional`.
    pub sts_regional_endpoints: bool,
    /// True if `AWS_EC2_METADATA_DISABLED` is `true`.
    pub disables_instance_metadata: bool,
    /// The policy that allows the token; `None` where none is required and none selects the pod.
    pub policy: Option<PolicyName>,
}

/// A container that gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerAssociation {
    /// The container's index in the request.
    pub container: usize,
    /// The association that decides its role.
    pub association: Arc<Association>,
    /// The reason, in one sentence.
    pub reason: Arc<str>,
}

/// A pod of a service account of EKS Pod Identity may not have the agent's token. `Display` is the sentence that users read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssociationRefusal {
    /// It asks for a role, and would run with another one.
    #[error(
        "the pod asks for {role} by {place}, but its service account {service_account} stands in the configuration of EKS Pod Identity, so it would get the role of the association: remove the annotation, or take the service account out of eksPodIdentity.config"
    )]
    AsksForRole {
        /// The role.
        role: RoleArn,
        /// Where it is named.
        place: Box<str>,
        /// The pod's service account.
        service_account: Box<str>,
    },
    /// No policy is about the pod, and one is required, or one that is not in force selects it.
    #[error(
        "service account {service_account} stands in the configuration of EKS Pod Identity, but no policy in namespace {namespace} and no ClusterTokenScopePolicy is about this pod: add one whose audiences.allowed has {audience}"
    )]
    NoPolicy {
        /// The pod's namespace.
        namespace: Box<str>,
        /// The pod's service account.
        service_account: Box<str>,
        /// The audience of the agent's token.
        audience: Audience,
    },
    /// A policy takes its tokens from elsewhere.
    #[error(
        "{policy} has token.source {}, and the agent of EKS Pod Identity takes only the ServiceAccount's own tokens: add a policy with token.source ServiceAccount whose audiences.allowed has {audience}",
        .source_of_token.as_str()
    )]
    Source {
        /// The policy.
        policy: PolicyName,
        /// Its source.
        source_of_token: TokenSource,
        /// The audience of the agent's token.
        audience: Audience,
    },
    /// A boundary of the namespace stands against it.
    #[error("no policy selects the pod, and {why}")]
    Boundary {
        /// The sentence about the boundary.
        why: Box<str>,
    },
}
