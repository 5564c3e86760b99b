//! What is signed: the part of a decision that becomes a token.

use tokenscope_core::{Algorithm, Audience, PolicyName};

/// What a policy grants one pod for one audience. All templates are filled.
///
/// The texts are as the policy and the pod have them. [`crate::claims`] checks them; nothing here has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// Whom the token is for.
    pub audience: Audience,
    /// The `sub` claim.
    pub subject: Box<str>,
    /// The longest lifetime that the policy allows, in seconds.
    pub lifetime: u32,
    /// What the token is signed with.
    pub algorithm: Algorithm,
    /// Session tags by key.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// The keys of tags that persist through role chaining.
    pub transitive_tag_keys: Vec<Box<str>>,
    /// The source identity of the session.
    pub source_identity: Option<Box<str>>,
    /// Values for IAM's ContextProvider by key, without the prefix of the claims.
    pub context: Vec<(Box<str>, Box<str>)>,
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
