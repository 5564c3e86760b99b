//! An OIDC issuer: exchanges a pod's projected token for one that says what its policy grants.
//!
//! The pure part: [`exchange_request`] and [`subject_token`] read what comes in, [`claims`] and [`keys`] make what goes out,
//! [`rotation`] says which key signs, [`discovery`] what relying parties read. None of it reads a clock or the network.

pub mod claims;
pub mod discovery;
pub mod exchange_request;
pub mod grant;
pub mod keys;
pub mod oauth;
pub mod rotation;
pub mod subject_token;
