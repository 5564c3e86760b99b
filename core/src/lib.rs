//! The rule: which roles a pod may have, under which names, and for how long.
//!
//! The rule that the webhook, the operator and every later caller share: [`decide`] looks at the facts of a pod
//! ([`Request`]), the policies ([`PolicySet`]) and the installation's [`Settings`], and answers with a [`Decision`]
//! that carries its reasons. Everything here is pure: no clock, no network, no Kubernetes client. Time is an argument.

mod annotation_request;
pub mod annotations;
mod arn;
mod audience;
mod boundary;
pub mod bounds;
pub mod claims;
pub mod config_file;
mod conflicts;
mod context_keys;
mod decide;
pub mod delivery;
mod fingerprint;
mod grant;
mod issuer_subject;
pub mod known_keys;
mod labels;
pub mod lock;
mod pattern;
pub mod pod;
mod policy;
mod policy_set;
mod public_url;
mod refusal;
mod region;
mod request;
mod role_chain;
mod schedule;
mod session_name;
mod settings;
pub mod sidecar;
mod spiffe;
mod subject;
mod template;
pub mod text;
mod token_claims;
pub mod trial_review;
mod trust_policy;
mod unusable;

pub use arn::{InvalidRoleArn, RoleArn};
pub use audience::{
    Audience, Audiences, InvalidAudience, InvalidTokenExpiration, NO_DEFAULT_AUDIENCE, TokenExpiration,
};
pub use boundary::{Boundary, OutsideBoundary};
pub use claims::{Claims, ClaimsError, FilledClaims, WorkloadFacts};
pub use conflicts::{Conflicts, DefaultConflicts};
pub use context_keys::{ContextKeys, NoContextRoom};
pub use decide::{Decision, Granted, LeftAlone, Untouched, decide};
pub use fingerprint::{Fingerprint, OtherVersion, hash_of_texts};
pub use grant::{ContainerGrant, Grant, GrantRecord, RecordedGrant, SessionName};
pub use issuer_subject::{ClusterName, InvalidClusterName, MOST_SUBJECT, issuer_subject};
pub use labels::{Pairs, Requirement, Selector, SelectorOperator};
pub use pattern::{Glob, InvalidRolePattern, RolePattern};
pub use policy::{
    Algorithm, AwsSettings, ContainerFilter, InvalidPolicy, OnExpiry, Policy, PolicyName, Roles, Standing,
    SubjectFormat, TokenSettings, TokenSource,
};
pub use policy_set::PolicySet;
pub use public_url::is_public_url;
pub use refusal::{Denied, Refusal};
pub use region::{InvalidRegion, Region, partition_of_region};
pub use request::{ContainerFacts, HeldToken, OwnConfiguration, OwnRole, PodFacts, Request, TokenVolume, asks_itself};
pub use role_chain::{ChainDocument, ChainedRole, chained_roles};
pub use schedule::{InvalidSchedule, Schedule};
pub use session_name::{MOST_SESSION_NAME, least_session_name};
pub use settings::{Enforcement, InstanceMetadata, InvalidSettings, Settings};
pub use spiffe::{Hint, InvalidSpiffe, Spiffe, SpiffeId, TrustDomain};
pub use subject::Subject;
pub use template::{InvalidTemplate, Template, Unrendered, Variable, Variables};
pub use token_claims::TokenClaims;
pub use trust_policy::{
    MOST_TRUSTED_NAMESPACES, NAMESPACE_NAME_LABEL, TrustContext, TrustPolicy, named_namespaces,
    names_selected_namespaces, never_grants, trust_policy,
};
pub use unusable::{PolicyScope, UnusablePolicy};
