//! The payload of a token, exactly as AWS STS requires it.
//!
//! Rules: STS API reference, AssumeRoleWithWebIdentity; IAM User Guide, "Pass session tags in AWS STS" and "Monitor and control
//! actions taken with assumed roles". A value that breaks a rule refuses the token and names its key. Nothing is cut.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use tokenscope_core::text::up_to;

use crate::discovery::IssuerUrl;
use crate::grant::TokenGrant;

/// The claim of session tags.
pub const TAGS: &str = "https://aws.amazon.com/tags";
/// The claim of the source identity.
pub const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";
/// The claim that names the policy.
pub const POLICY: &str = "tokenscope.io/policy";
/// What the claims begin with that IAM's ContextProvider reads.
pub const CONTEXT_PREFIX: &str = "tokenscope_";

/// The claims that a token may have, for the discovery document.
pub const SUPPORTED: [&str; 10] = [
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

/// The most session tags.
const MOST_TAGS: usize = 50;
const MOST_TAG_KEY_CHARS: usize = 128;
const MOST_TAG_VALUE_CHARS: usize = 256;
/// The most keys of a ContextProvider (IAM API reference, ContextProvider, KeyDefinitionList).
const MOST_CONTEXT_KEYS: usize = 10;
/// The longest key of a ContextProvider, with the prefix.
const MOST_CONTEXT_KEY_CHARS: usize = 128;
/// The longest value (STS API reference, TransactionContext).
const MOST_CONTEXT_VALUE_CHARS: usize = 128;

/// The shortest token that is worth signing, in seconds: an SDK must be able to use it.
pub const LEAST_LIFETIME: i64 = 60;

/// When a token is issued and which one it is.
#[derive(Clone, Copy, Debug)]
pub struct Issuance<'a> {
    /// The issuer.
    pub issuer: &'a IssuerUrl,
    /// The `jti` claim: no other token has it.
    pub id: &'a str,
    /// The `iat` and `nbf` claims, in seconds since the Unix epoch.
    pub issued_at: i64,
    /// How long the token is valid, in seconds.
    pub lifetime: i64,
}

/// Why a token can't say what is granted. `Display` is the sentence that the caller reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaims {
    /// The subject's length or characters.
    #[error("the subject has {0} bytes: AWS takes 6 to 255 printable ASCII characters")]
    Subject(usize),
    /// Too many tags.
    #[error("the policy gives {0} session tags: AWS takes {MOST_TAGS}")]
    TooManyTags(usize),
    /// A tag's key.
    #[error(
        "the session tag key {0:?} should have 1 to 128 letters, digits, spaces or characters out of _.:/=+-@ and not begin with aws:"
    )]
    TagKey(String),
    /// A tag's value.
    #[error(
        "the value of session tag {0:?} should have at most 256 letters, digits, spaces or characters out of _.:/=+-@ and not begin with aws:"
    )]
    TagValue(String),
    /// Two keys that AWS takes for one.
    #[error("the session tag key {0:?} is there twice: upper and lower case are the same to AWS")]
    SameTagKey(String),
    /// A key that is no tag's.
    #[error("the transitive tag key {0:?} is not among the session tags")]
    TransitiveTagKey(String),
    /// The source identity.
    #[error("the source identity {0:?} should have 2 to 64 characters out of A-Z a-z 0-9 _ + = , . @ -")]
    SourceIdentity(String),
    /// Too many context keys.
    #[error("the policy gives {0} context keys: AWS takes {MOST_CONTEXT_KEYS}")]
    TooManyContextKeys(usize),
    /// A context key.
    #[error(
        "the context key {0:?} should have 1 to 117 characters out of A-Z a-z 0-9 _ . : / = + - @ # and be there once"
    )]
    ContextKey(String),
    /// A context value.
    #[error("the value of context key {0:?} should have at most 128 printable characters")]
    ContextValue(String),
    /// The subject token ends too soon.
    #[error(
        "the subject token ends in {0} s, and no token is signed for less than {LEAST_LIFETIME} s: read the projected token again"
    )]
    SubjectEnds(i64),
    /// The requested lifetime is too short.
    #[error("expires_in is {0} s, and no token is signed for less than {LEAST_LIFETIME} s")]
    Lifetime(u32),
}

/// How long a token is valid, in seconds: what is granted and asked for, at most `most`, and never beyond the subject token,
/// which ends in `subject_left` seconds.
pub fn lifetime(granted: u32, requested: Option<u32>, most: u32, subject_left: i64) -> Result<i64, InvalidClaims> {
    if subject_left < LEAST_LIFETIME {
        return Err(InvalidClaims::SubjectEnds(subject_left));
    }
    if let Some(requested) = requested.filter(|requested| i64::from(*requested) < LEAST_LIFETIME) {
        return Err(InvalidClaims::Lifetime(requested));
    }
    let lifetime = granted.min(most).min(requested.unwrap_or(u32::MAX));
    Ok(i64::from(lifetime).min(subject_left))
}

/// The payload as JSON text.
pub fn payload(grant: &TokenGrant, issuance: Issuance<'_>) -> Result<String, InvalidClaims> {
    check(grant)?;
    // Texts, integers and maps of texts always serialise.
    Ok(serde_json::to_string(&Payload { grant, issuance }).unwrap_or_default())
}

/// Whether AWS takes every value of a grant.
pub fn check(grant: &TokenGrant) -> Result<(), InvalidClaims> {
    let subject = &grant.subject;
    if !(6..=255).contains(&subject.len()) || !subject.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(InvalidClaims::Subject(subject.len()));
    }
    check_tags(grant)?;
    if let Some(source_identity) = &grant.source_identity
        && !((2..=64).contains(&source_identity.len()) && source_identity.chars().all(is_name_character))
    {
        return Err(InvalidClaims::SourceIdentity(shown(source_identity)));
    }
    check_context(grant)
}

fn check_tags(grant: &TokenGrant) -> Result<(), InvalidClaims> {
    if grant.tags.len() > MOST_TAGS {
        return Err(InvalidClaims::TooManyTags(grant.tags.len()));
    }
    let mut keys: Vec<String> = Vec::with_capacity(grant.tags.len());
    for (key, value) in &grant.tags {
        if key.is_empty() || !is_tag_text(key, MOST_TAG_KEY_CHARS) {
            return Err(InvalidClaims::TagKey(shown(key)));
        }
        if !is_tag_text(value, MOST_TAG_VALUE_CHARS) {
            return Err(InvalidClaims::TagValue(shown(key)));
        }
        let lower = key.to_lowercase();
        if keys.contains(&lower) {
            return Err(InvalidClaims::SameTagKey(shown(key)));
        }
        keys.push(lower);
    }
    let unknown = grant
        .transitive_tag_keys
        .iter()
        .find(|key| !grant.tags.iter().any(|(tag, _)| tag == *key));
    unknown.map_or(Ok(()), |key| Err(InvalidClaims::TransitiveTagKey(shown(key))))
}

fn check_context(grant: &TokenGrant) -> Result<(), InvalidClaims> {
    if grant.context.len() > MOST_CONTEXT_KEYS {
        return Err(InvalidClaims::TooManyContextKeys(grant.context.len()));
    }
    for (index, (key, value)) in grant.context.iter().enumerate() {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:/=+-@#".contains(&b);
        let is_first = !grant.context.iter().take(index).any(|(other, _)| other == key);
        let fits = CONTEXT_PREFIX.len() + key.len() <= MOST_CONTEXT_KEY_CHARS;
        if key.is_empty() || !fits || !is_first || !key.bytes().all(allowed) {
            return Err(InvalidClaims::ContextKey(shown(key)));
        }
        if value.chars().count() > MOST_CONTEXT_VALUE_CHARS || value.chars().any(char::is_control) {
            return Err(InvalidClaims::ContextValue(shown(key)));
        }
    }
    Ok(())
}

/// Keys and values are users' texts of any length.
fn shown(text: &str) -> String {
    up_to(text, 64).to_owned()
}

fn is_tag_text(text: &str, most: usize) -> bool {
    // Four bytes a character, so that a long text is not counted to its end.
    text.len() <= 4 * most
        && text.chars().count() <= most
        && text.chars().all(is_tag_character)
        && !text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`. The standard library's letters have a few combining marks more; AWS refuses those itself.
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

/// `[\w+=,.@-]`.
fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

struct Payload<'a> {
    grant: &'a TokenGrant,
    issuance: Issuance<'a>,
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { grant, issuance } = self;
        let mut claims = serializer.serialize_map(None)?;
        claims.serialize_entry("iss", issuance.issuer.as_str())?;
        claims.serialize_entry("sub", &grant.subject)?;
        // One audience as a text: with a list of several AWS wants an authorized party.
        claims.serialize_entry("aud", grant.audience.as_str())?;
        claims.serialize_entry("iat", &issuance.issued_at)?;
        claims.serialize_entry("nbf", &issuance.issued_at)?;
        claims.serialize_entry("exp", &(issuance.issued_at + issuance.lifetime))?;
        claims.serialize_entry("jti", issuance.id)?;
        if !grant.tags.is_empty() {
            let tags = Tags {
                principal_tags: PrincipalTags(&grant.tags),
                transitive_tag_keys: &grant.transitive_tag_keys,
            };
            claims.serialize_entry(TAGS, &tags)?;
        }
        if let Some(source_identity) = &grant.source_identity {
            claims.serialize_entry(SOURCE_IDENTITY, source_identity)?;
        }
        for (key, value) in &grant.context {
            claims.serialize_entry(&format!("{CONTEXT_PREFIX}{key}"), value)?;
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
struct PrincipalTags<'a>(&'a [(Box<str>, Box<str>)]);

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
