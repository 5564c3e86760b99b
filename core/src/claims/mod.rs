//! The claims of a token of tokenscope's issuer beyond its subject, and AWS's rules for it.

mod fill;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(crate) use fill::CONTEXT_PREFIX;
pub use fill::{ClaimsError, FilledClaims, WorkloadFacts};
use regex::Regex;

use crate::Template;

/// The most session tags of a token (IAM user guide, "Passing session tags in AWS STS").
pub const MOST_TAGS: usize = 50;
/// The most characters of a tag's key (IAM API reference, Tag).
pub const MOST_TAG_KEY: usize = 128;
/// The most characters of a tag's value (IAM API reference, Tag).
pub const MOST_TAG_VALUE: usize = 256;
/// The most keys of the context that an IAM OIDC provider passes on (IAM API reference, ContextProvider).
pub const MOST_CONTEXT_KEYS: usize = 10;
/// The most characters of a context key. With `tokenscope_` before it, IAM takes 128.
pub const MOST_CONTEXT_KEY: usize = 64;
/// The most characters of a context value.
pub const MOST_CONTEXT_VALUE: usize = 128;

/// The claims of a token beyond its subject. Values are templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Session tags by key.
    pub principal_tags: BTreeMap<Box<str>, Template>,
    /// Keys of tags that persist through role chaining.
    pub transitive_tag_keys: Vec<Box<str>>,
    /// The source identity.
    pub source_identity: Option<Template>,
    /// The context by key; the key `team` is the claim `tokenscope_team`.
    pub context: BTreeMap<Box<str>, Template>,
}

impl Claims {
    /// True if it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// True if a tag's key or value may have these characters (IAM API reference, Tag, whose pattern stands here word for word).
///
/// Combining marks are no letters to AWS, though `char::is_alphabetic` says so of many.
pub fn is_tag_text(text: &str) -> bool {
    // A pattern that can't be compiled lets nothing pass.
    static TAG_TEXT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A[\p{L}\p{Z}\p{N}_.:/=+\-@]*\z").ok());
    TAG_TEXT.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// True if a tag's key or value begins with `aws:`, which AWS keeps to itself (IAM user guide, "Rules for tagging").
pub fn is_reserved_tag(text: &str) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

/// A tag's key without its case: two keys that are one to AWS give the same text (IAM user guide, "Rules for tagging": keys are not
/// case-sensitive). Lower case alone would leave letters apart that have one upper case, such as `s` and `ſ`, or `σ` and `ς`.
pub fn folded_tag_key(key: &str) -> String {
    key.to_lowercase().to_uppercase().to_lowercase()
}

/// True if `text` can be a key of the context: 1 to 64 letters, digits and `_`.
pub fn is_context_key(text: &str) -> bool {
    (1..=MOST_CONTEXT_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// True if a context value may have this character: printable ASCII without quotation marks and backslashes.
pub fn is_context_character(c: char) -> bool {
    (' '..='~').contains(&c) && c != '"' && c != '\\'
}

/// True if a session's name or source identity may have this character, `[\w+=,.@-]` (AWS STS API reference,
/// AssumeRoleWithWebIdentity).
pub fn is_session_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

/// True if AWS STS takes it as a session's name or source identity, in characters (AssumeRoleWithWebIdentity).
pub fn fits_session_name(text: &str) -> bool {
    (2..=64).contains(&text.len()) && text.chars().all(is_session_name_character)
}
