//! A strict stand-in for AWS STS, for tests and the demo only.
//!
//! It answers `AssumeRoleWithWebIdentity` and `GetCallerIdentity` over the AWS query protocol, so that an unmodified
//! SDK can use it through `AWS_ENDPOINT_URL_STS`. Tokens are verified as AWS verifies them: discovery and keys are
//! fetched from the token's issuer over TLS, every bound and error text follows AWS, and where AWS's answer is not
//! known the stricter one is taken. It shares no code with the rest of the workspace: what checks tokenscope must not
//! repeat its mistakes.
//!
//! A session's principal tags, source identity and propagated context can be read back from [`Server::session`], and
//! identity policies evaluated for it ([`AssumedSession::decide`]): `${aws:PrincipalTag/team}`, and the statement that
//! revokes sessions by `aws:TokenIssueTime`.
//!
//! # Not yet seen by AWS
//!
//! Each rule names its page of AWS's documentation or its service model. What AWS says nowhere and no test of ours has
//! shown against AWS is marked so beside the rule. In short: trusted identity propagation by a `ContextProvider` as a whole;
//! the code and words of refused tags and source identities, and that a missing `sts:TagSession` or
//! `sts:SetSourceIdentity` is named; the percentage of `PackedPolicySize` and its limit; the maximum age of 24 h; claims
//! with repeated names; unknown claims under `https://aws.amazon.com/`; wildcards in the values of policy variables.
//!
//! Not there: other actions, presigned URLs, SigV4A, chaining of roles, opaque access tokens (`ProviderId`), regions.

mod condition;
mod config;
mod context_provider;
mod identity;
mod issuer;
mod judge;
mod names;
mod packed_size;
mod permissions;
mod policy_text;
mod principal;
mod request;
mod server;
mod session;
mod sigv4;
mod state;
mod strict_json;
mod token;
mod trust;
mod xml;

pub use config::{Provider, Role, StsConfig, StsConfigError};
pub use judge::judge;
pub use permissions::{AssumedSession, PolicyDecision, PolicyDecisionError};
pub use server::{Server, StartError, StsCertificate};
pub use state::{TimeSource, system_clock};
