//! STS as a client sees it: where it is, how requests are written and signed, what answers say.
//!
//! Pure: no network, no clock, no file. Time is an argument, and whoever does the I/O decides about connections and deadlines. It
//! is for the sidecar that serves credentials, so it links one library of cryptography (aws-lc-rs) and no HTTP, XML or URL library. The
//! sidecar takes roles and tokens for third parties with it; [`get_caller_identity`] is used by tests alone.
//!
//! A call is: take the next region of a [`RegionChoice`], write the request for its [`StsEndpoint`]
//! ([`AssumeRoleWithWebIdentity`], [`AssumeRole`], [`GetWebIdentityToken`], [`get_caller_identity`]), send it, and read the answer
//! ([`AssumedRole::read`] and its like). A [`StsError`] says whether another region may be asked.
//!
//! Bounds, patterns and errors are those of the STS service model of November 2026 (botocore 1.44.8). Tests compare signatures
//! and endpoints with botocore's own. That `GetWebIdentityToken` works as written here is not yet seen by AWS.

mod answer;
mod credentials;
mod endpoint;
mod error;
mod form;
mod regions;
mod request;
mod signature;
mod xml;

pub use answer::{AssumedRole, CallerIdentity, WebIdentityToken};
pub use credentials::{Credentials, Secret};
pub use endpoint::{EndpointFlavor, InvalidStsEndpoint, StsEndpoint};
pub use error::{Advice, RefusalCode, StsError};
pub use regions::{RegionCall, RegionChoice, RegionOutcome};
pub use request::{
    AssumeRole, AssumeRoleWithWebIdentity, GetWebIdentityToken, NotRegional, SessionPolicyParameters, StsRequest,
    SubjectMode, get_caller_identity,
};
