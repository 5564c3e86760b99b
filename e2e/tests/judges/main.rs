//! Real servers judge an OIDC issuer's tokens: Keycloak as a relying party, and Ceph's radosgw as STS and S3 with session
//! tags. What is accepted, and what is refused although only one thing is wrong with it.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod keycloak;
mod radosgw;

/// The subject of every good token.
const SUBJECT: &str = "system:serviceaccount:shop:orders";

/// The claim of session tags.
const TAGS: &str = "https://aws.amazon.com/tags";
