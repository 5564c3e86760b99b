//! The payload of a token, its lifetime and its length, exactly as AWS STS requires them.
//!
//! The form: STS API reference, AssumeRoleWithWebIdentity; IAM User Guide, "Pass session tags in AWS STS" and "Monitor and control
//! actions taken with assumed roles". The values keep AWS's rules already: `tokenscope_core::Claims::fill` has seen to that.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::grant::TokenGrant;
use crate::issuer_url::IssuerUrl;

/// The claim of session tags.
pub const TAGS: &str = "https://aws.amazon.com/tags";
/// The claim of the source identity.
pub const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";
/// The claim that names the policy.
pub const POLICY: &str = "tokenscope.io/policy";

/// The claims that a token may have beside those of the context, for the discovery document.
const SUPPORTED: [&str; 10] = [
    "aud",
    "exp",
    "iat",
    "iss",
    "jti",
    "nbf",
    "sub",
    TAGS,
    SOURCE_IDENTITY,
    POLICY,
];

/// The claims that a token may have, for the discovery document: `context` are those of the context, of which there are at most ten
/// (`tokenscope_core::claims::MOST_CONTEXT_KEYS`).
pub fn supported(context: &[String]) -> Vec<&str> {
    SUPPORTED
        .into_iter()
        .chain(context.iter().map(String::as_str))
        .collect()
}

/// The longest token that STS takes (STS API reference, AssumeRoleWithWebIdentity, WebIdentityToken).
pub const MOST_TOKEN_BYTES: usize = 20_000;
/// The longest lifetime of a token that an installation may set (`--longest-token`), in seconds.
pub const MOST_LIFETIME: u32 = 12 * 3600;
/// The shortest token that is worth signing, in seconds: an SDK must be able to use it.
pub const LEAST_LIFETIME: i64 = 60;

/// The time at which a token is issued, and its identifier.
#[derive(Clone, Copy, Debug)]
pub struct Issuance<'a> {
    /// The issuer.
    pub issuer: &'a IssuerUrl,
    /// The `jti` claim: no other token has it.
    pub id: &'a str,
    /// The `iat` and `nbf` claims, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// The time that the token is valid, in seconds.
    pub lifetime: i64,
}

/// The reason why no token of a lifetime can be had. `Display` is the sentence that the caller reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLifetime {
    /// The subject token ends too soon.
    #[error(
        "the subject token ends in {0} s, and no token is signed for less than {LEAST_LIFETIME} s: read the projected token again"
    )]
    SubjectEnds(i64),
    /// The requested lifetime is too short.
    #[error("expires_in is {0} s, and no token is signed for less than {LEAST_LIFETIME} s")]
    Requested(u32),
}

/// The time that a token is valid, in seconds: what is granted and asked for, at most `most`, and never beyond the subject token,
/// which ends in `subject_left` seconds.
pub fn lifetime(granted: u32, requested: Option<u32>, most: u32, subject_left: i64) -> Result<i64, InvalidLifetime> {
    if subject_left < LEAST_LIFETIME {
        return Err(InvalidLifetime::SubjectEnds(subject_left));
    }
    if let Some(requested) = requested.filter(|requested| i64::from(*requested) < LEAST_LIFETIME) {
        return Err(InvalidLifetime::Requested(requested));
    }
    let lifetime = granted.min(most).min(requested.unwrap_or(u32::MAX));
    Ok(i64::from(lifetime).min(subject_left))
}

/// The payload as JSON text.
pub fn payload(grant: &TokenGrant, issuance: Issuance<'_>) -> String {
    // Texts, integers and maps of texts always serialise.
    serde_json::to_string(&Payload { grant, issuance }).unwrap_or_default()
}

struct Payload<'a> {
    grant: &'a TokenGrant,
    issuance: Issuance<'a>,
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { grant, issuance } = self;
        let filled = &grant.claims;
        let mut claims = serializer.serialize_map(None)?;
        claims.serialize_entry("iss", issuance.issuer.as_str())?;
        claims.serialize_entry("sub", &grant.subject)?;
        // One audience as a text: with a list of several AWS wants an authorized party.
        claims.serialize_entry("aud", grant.audience.as_str())?;
        claims.serialize_entry("iat", &issuance.issued_at)?;
        claims.serialize_entry("nbf", &issuance.issued_at)?;
        claims.serialize_entry("exp", &(issuance.issued_at + issuance.lifetime))?;
        claims.serialize_entry("jti", issuance.id)?;
        if !filled.principal_tags.is_empty() {
            let tags = Tags {
                principal_tags: PrincipalTags(&filled.principal_tags),
                transitive_tag_keys: &filled.transitive_tag_keys,
            };
            claims.serialize_entry(TAGS, &tags)?;
        }
        if let Some(source_identity) = &filled.source_identity {
            claims.serialize_entry(SOURCE_IDENTITY, source_identity)?;
        }
        for (name, value) in &filled.context {
            claims.serialize_entry(name, value)?;
        }
        let policy = &grant.policy;
        let policy = PolicyClaim {
            kind: policy.name.kind(),
            namespace: policy.name.namespace(),
            name: policy.name.name(),
            uid: &policy.uid,
        };
        claims.serialize_entry(POLICY, &policy)?;
        claims.end()
    }
}

#[derive(Serialize)]
struct Tags<'a> {
    principal_tags: PrincipalTags<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    transitive_tag_keys: &'a [Box<str>],
}

/// Each value is a list of exactly one text.
struct PrincipalTags<'a>(&'a BTreeMap<Box<str>, Box<str>>);

impl Serialize for PrincipalTags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, [value])))
    }
}

#[derive(Serialize)]
struct PolicyClaim<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    uid: &'a str,
}
