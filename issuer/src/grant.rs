//! The part of a decision that is signed as a token.

use tokenscope_core::{Algorithm, Audience, FilledClaims, PolicyName};

/// The grant of a policy to one pod for one audience, under AWS's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// The audience of the token.
    pub audience: Audience,
    /// The `sub` claim.
    pub subject: Box<str>,
    /// The longest lifetime that the policy allows, in seconds.
    pub lifetime: u32,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// Session tags, source identity and context.
    pub claims: FilledClaims,
    /// The policy.
    pub policy: GrantingPolicy,
}

/// The policy that a token comes from: name, kind and UID, so that a policy that was deleted and made again is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantingPolicy {
    /// Kind, namespace and name.
    pub name: PolicyName,
    /// The object's UID.
    pub uid: Box<str>,
}
