//! A strict stand-in for AWS STS, for tests and the demo only.
//!
//! It answers `AssumeRoleWithWebIdentity` and `GetCallerIdentity` over the AWS query protocol, so that an unmodified
//! SDK can use it through `AWS_ENDPOINT_URL_STS`. Tokens are verified as AWS verifies them: discovery and keys are
//! fetched from the token's issuer over TLS, every bound and error text follows AWS, and where AWS's answer is not
//! known the stricter one is taken. It shares no code with the rest of the workspace: what checks tokenscope must not
//! repeat its mistakes.
//!
//! Not there: other actions, presigned URLs, SigV4A, chaining of roles, opaque access tokens (`ProviderId`), regions.

mod config;
mod identity;
mod issuer;
mod names;
mod request;
mod server;
mod session;
mod sigv4;
mod state;
mod token;
mod trust;
mod xml;

pub use config::{Provider, Role, StsConfig, StsConfigError};
pub use server::{Server, StartError, StsCertificate};
pub use state::{TimeSource, system_clock};
