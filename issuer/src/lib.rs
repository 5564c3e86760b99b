//! An OIDC issuer: exchanges a pod's projected token for one that says what its policy grants.
//!
//! The pure part: [`exchange_request`] and [`subject_token`] read what comes in, [`decision`] asks what is granted, [`claims`] and
//! [`keys`] make what goes out, [`rotation`] says which key signs, [`issuer_url`] and [`discovery`] what relying parties read.
//!
//! The rest: [`cluster_index`] and [`cluster_keys`] keep what the cluster says, [`exchange`] brings all together, and [`router`] serves
//! it within the bounds of [`bodies`], [`buckets`] and [`work`] and within its [`deadlines`], writes it into the [`audit`] log and, where a pod was refused, an Event ([`events`]).
//! [`token_review`] asks the API server about each token, where that is wanted. [`key_keeper`] rotates the keys of a [`key_source`], where that is wanted only
//! to [`public_keys`], and [`publish`] writes
//! what is published as files, which a [`document_source`] has fetched.

pub mod age;
pub mod api_clock;
pub mod args;
pub mod audit;
pub mod bodies;
pub mod buckets;
pub mod claims;
pub mod cluster_index;
pub mod cluster_keys;
pub mod commands;
pub mod deadlines;
pub mod decision;
pub mod discovery;
pub mod document_source;
pub mod events;
pub mod exchange;
pub mod exchange_error;
pub mod exchange_request;
pub mod grant;
pub mod issuer_url;
pub mod key_keeper;
pub mod key_source;
pub mod keys;
pub mod metrics;
pub mod oauth;
pub mod pods;
pub mod public_keys;
pub mod publish;
pub mod rotation;
pub mod router;
pub mod run;
pub mod signers;
pub mod subject_token;
pub mod token_review;
pub mod watches;
pub mod work;
