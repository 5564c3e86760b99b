//! Real servers judge our issuer's tokens: Keycloak as a relying party, and Ceph's radosgw as STS and S3 with session tags.
//! What is accepted, and what is refused although only one thing is wrong with it.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod keycloak;
mod pods;
mod radosgw;

use tokenscope_core::{Algorithm, FilledClaims, PolicyName};
use tokenscope_issuer::grant::{GrantingPolicy, TokenGrant};

/// The subject of every honest token.
const SUBJECT: &str = "system:serviceaccount:shop:orders";

/// What a policy grants without tags, source identity and context.
fn grant(audience: &str, algorithm: Algorithm) -> TokenGrant {
    TokenGrant {
        audience: audience.parse().unwrap(),
        subject: SUBJECT.into(),
        lifetime: 3600,
        algorithm,
        claims: FilledClaims::default(),
        policy: GrantingPolicy {
            name: PolicyName::namespaced("shop", "orders"),
            uid: "c0ffee00-2c9f-4f57-8d1c-63c4c2f8f8d1".into(),
        },
    }
}

/// What a policy grants with all that a token of ours can state, and this value of the tag `team`.
fn tagged_grant(audience: &str, algorithm: Algorithm, team: &str) -> TokenGrant {
    TokenGrant {
        claims: FilledClaims {
            principal_tags: [("team".into(), team.into())].into(),
            transitive_tag_keys: vec!["team".into()],
            source_identity: Some("shop.orders".into()),
            context: [("tokenscope_namespace".into(), "shop".into())].into(),
        },
        ..grant(audience, algorithm)
    }
}
