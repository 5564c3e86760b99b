//! The rule: which roles a pod may have, under which names, and for how long.
//!
//! The webhook, the operator and the issuer share it: [`decide`] looks at the facts of a pod
//! ([`Request`]), the policies ([`PolicySet`]) and the installation's [`Settings`], and answers with a [`Decision`]
//! that carries its reasons. Everything here is pure: no clock, no network, no Kubernetes client. Time is an argument.

mod annotation_request;
pub mod annotations;
mod arn;
mod association;
mod audience;
mod boundary;
pub mod bounds;
pub mod claims;
pub mod config_file;
mod conflicts;
mod context_keys;
pub mod credentials_endpoint;
mod decide;
pub mod delivery;
mod fingerprint;
mod grant;
mod issuer_subject;
pub mod known_keys;
pub mod kubernetes_names;
mod labels;
mod least_session_name;
pub mod lock;
pub mod outbound;
mod outbound_audience;
mod outbound_aws;
mod outbound_permission;
mod pattern;
pub mod pod;
pub mod pod_identity;
mod policy;
mod policy_set;
mod public_url;
mod refusal;
mod region;
mod request;
mod role_chain;
mod schedule;
mod session_name;
mod session_policy;
mod settings;
pub mod sidecar;
mod signer;
mod spiffe;
mod subject;
mod template;
pub mod text;
mod text_hash;
mod token_claims;
mod token_source;
pub mod trial_review;
mod trust_policy;
mod unusable;
mod usable_here;
mod variable_name;
mod windows_path;

pub use arn::{InvalidRoleArn, RoleArn};
pub use association::{Association, AssociationRefusal, ContainerAssociation};
pub use audience::{
    Audience, Audiences, InvalidAudience, InvalidTokenExpiration, NO_DEFAULT_AUDIENCE, TokenExpiration,
};
pub use boundary::{Boundary, OutsideBoundary};
pub use claims::{Claims, ClaimsError, FilledClaims, WorkloadFacts};
pub use conflicts::{Conflicts, DefaultConflicts};
pub use context_keys::{ContextKeys, NoContextRoom};
pub use decide::{Associated, Decision, Granted, LeftAlone, Untouched, decide};
pub use fingerprint::{Fingerprint, OtherVersion};
pub use grant::{ContainerGrant, Grant, GrantRecord, GrantedEndpoint, RecordedAssociation, RecordedGrant};
pub use issuer_subject::{ClusterName, InvalidClusterName, MOST_SUBJECT, issuer_subject};
pub use labels::{Pairs, Requirement, Selector, SelectorOperator};
pub use least_session_name::{least_session_name, least_session_name_of_chains};
pub use outbound_audience::{AudienceOwner, RefusedAudience};
pub use outbound_permission::{OutboundPermission, PermissionDocument, outbound_permissions};
pub use pattern::{Glob, InvalidRolePattern, RolePattern};
pub use policy::{
    Algorithm, AwsSettings, ContainerFilter, OnExpiry, Policy, PolicyName, Roles, Standing, SubjectFormat,
    TokenSettings,
};
pub use policy_set::PolicySet;
pub use public_url::is_public_url;
pub use refusal::{Denied, Refusal};
pub use region::{InvalidRegion, Region, is_misspelt_region, partition_of_region};
pub use request::{ContainerFacts, HeldToken, OwnConfiguration, OwnRole, PodFacts, Request, TokenVolume, asks_itself};
pub use role_chain::{ChainDocument, ChainedRole, chained_roles};
pub use schedule::{InvalidSchedule, Schedule};
pub use session_name::{MOST_SESSION_NAME, SessionName};
pub use settings::{Enforcement, InstanceMetadata, InvalidSettings, Settings};
pub use signer::Signer;
pub use spiffe::{Hint, InvalidSpiffe, Spiffe, SpiffeId, TrustDomain};
pub use subject::Subject;
pub use template::{InvalidTemplate, Template, Unrendered, Variable, Variables};
pub use text_hash::hash_of_texts;
pub use token_claims::TokenClaims;
pub use token_source::TokenSource;
pub use trust_policy::{
    MOST_TRUSTED_NAMESPACES, NAMESPACE_NAME_LABEL, TrustContext, TrustPolicy, Unserved, named_namespaces,
    names_selected_namespaces, never_grants, trust_policy,
};
pub use unusable::{InvalidPolicy, PolicyScope, UnusablePolicy};
pub use variable_name::{
    FORBIDDEN_NAMES, FORBIDDEN_PREFIXES, FORBIDDEN_SUFFIXES, InvalidVariableName, MOST_VARIABLE_NAME, VariableName,
};
