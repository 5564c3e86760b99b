//! Keeps tokens fresh in files where AWS SDKs look for them: SPIFFE JWT-SVIDs, or tokens of tokenscope's issuer. Serves credentials
//! inside a pod, made of such a token or of the pod's own.
//!
//! Decided without I/O, with the time as an argument:
//! - [`config`]: flags and environment, read once and checked;
//! - [`token`]: what a token says of itself; [`refresh`]: when to ask for the next one; [`retry`]: how long to wait after a
//!   failure; [`fetch_error`]: why there is no token, in words for a person;
//! - [`selection`]: which of several identities is wanted; [`bundle`] and [`x509`]: what else can be written.
//!
//! At the edges:
//! - [`workload_api`]: asks the SPIFFE agent; `exchange`, of the feature `issuer`: asks tokenscope's issuer;
//! - `endpoint`, of the feature `endpoint`: asks AWS STS, and serves the credentials on the loopback addresses;
//! - [`directory`]: replaces files whole; [`clock`]: waits, and notices when the clock is set;
//! - [`health`]: what is known of each file; [`ready`]: the probe; [`write`]: files from arguments, once; [`observe`]: the same over HTTP; [`log`].
//!
//! [`run`] puts them together.

pub mod bundle;
pub mod clock;
pub mod config;
pub mod directory;
#[cfg(feature = "endpoint")]
pub mod endpoint;
#[cfg(feature = "issuer")]
pub mod exchange;
pub mod fetch_error;
pub mod health;
pub mod log;
#[cfg(feature = "observe")]
pub mod observe;
#[cfg(feature = "issuer")]
mod one_request;
mod random;
pub mod ready;
pub mod refresh;
pub mod retry;
pub mod run;
pub mod selection;
pub mod token;
#[cfg(feature = "issuer")]
mod words;
pub mod workload_api;
pub mod write;
pub mod x509;
