//! A strict stand-in for AWS STS, for tests and the demo only.
//!
//! It answers `AssumeRoleWithWebIdentity`, `AssumeRole`, `GetWebIdentityToken` and `GetCallerIdentity` over the AWS query protocol,
//! so that an unmodified SDK can use it through `AWS_ENDPOINT_URL_STS`. Tokens are verified as AWS verifies them: discovery and
//! keys are fetched from the token's issuer over TLS, every bound and error text follows AWS, and where AWS's answer is not
//! known the stricter one is taken. Signed requests are verified with the credentials that it gave, or with a user's keys. It shares
//! no code with the rest of the workspace: what checks tokenscope must not repeat its mistakes.
//!
//! A chain of roles needs what it needs in AWS: the permission of the one side and the trust of the other with its external id,
//! `sts:TagSession` and `sts:SetSourceIdentity` where tags and a source identity pass on, and an hour at most. Tokens of
//! `GetWebIdentityToken` are really signed; the issuer's discovery and keys are served at the same address, for the issuer's host.
//!
//! A session's principal tags, source identity and propagated context can be read back from [`Server::session`], and
//! identity policies evaluated for it ([`AssumedSession::decide`]): `${aws:PrincipalTag/team}`, and the statement that
//! revokes sessions by `aws:TokenIssueTime`.
//!
//! # Not yet seen by AWS
//!
//! Each rule names its page of AWS's documentation or its service model. What AWS says nowhere and no test of ours has
//! shown against AWS is marked so beside the rule. In short: trusted identity propagation by a `ContextProvider` as a whole, and
//! that it doesn't pass on to further roles; `GetWebIdentityToken` as a whole, most of all its claims and the limit of its payload;
//! the code and words of refused tags and source identities, and that a missing `sts:TagSession` or `sts:SetSourceIdentity` is
//! named; that inherited tags and an inherited source identity are keys of the next request; the size of session tokens, the
//! percentage of `PackedPolicySize` and its limit; the maximum age of 24 h; claims with repeated names; unknown claims under
//! `https://aws.amazon.com/`; wildcards in the values of policy variables.
//!
//! Not there: other actions, presigned URLs, SigV4A, opaque access tokens (`ProviderId`), multi-factor authentication,
//! `ProvidedContexts`, service control policies, permissions boundaries, propagation of sessions between stand-ins.

mod account;
mod answers;
mod assume_role;
mod aws_error;
mod caller;
mod condition;
mod config;
mod config_error;
mod context_provider;
mod identity;
mod issuer;
mod judge;
mod lock;
mod names;
mod outbound;
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
mod tags;
mod token;
mod trust;
mod web_identity;
mod web_identity_token;
mod xml;

pub use account::{OutboundFederation, Permissions, User};
pub use config::{Provider, Role, StsConfig};
pub use config_error::StsConfigError;
pub use judge::judge;
pub use permissions::{AssumedSession, PolicyDecision, PolicyDecisionError};
pub use server::{Server, StartError, StsCertificate};
pub use state::{TimeSource, system_clock};
