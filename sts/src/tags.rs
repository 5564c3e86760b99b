//! Session tags: the rules that all requests with tags have in common.
//!
//! IAM User Guide, "Pass session tags in AWS STS" ("Things to know about session tags"); bounds and patterns from the STS
//! service model (`tagListType`, `tagKeyType`, `tagValueType`, `tagKeyListType`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// `tagListType` and `tagKeyListType`.
pub(crate) const MAX_TAGS: usize = 50;
/// `tagKeyType`, characters.
pub(crate) const MAX_KEY: usize = 128;
/// `tagValueType`, characters.
pub(crate) const MAX_VALUE: usize = 256;

/// Tags by key, or the rule that they break.
pub(crate) fn checked(pairs: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
    if pairs.len() > MAX_TAGS {
        return Err("more than 50 tags".to_owned());
    }
    let mut tags = BTreeMap::new();
    let mut keys = Vec::new();
    for (key, value) in pairs {
        if !(1..=MAX_KEY).contains(&key.chars().count()) || !is_tag_text(key) {
            return Err(format!(
                r"the key `{key}` must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{1,128}}"
            ));
        }
        if value.chars().count() > MAX_VALUE || !is_tag_text(value) {
            return Err(format!(
                r"the value of {key} must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{0,256}}"
            ));
        }
        if [key, value].iter().any(|text| text.to_lowercase().starts_with("aws:")) {
            return Err(format!("{key}: keys and values must not begin with aws:"));
        }
        let folded = key.to_lowercase();
        if keys.contains(&folded) {
            return Err("Duplicate tag keys found. Please note that Tag keys are case insensitive.".to_owned());
        }
        keys.push(folded);
        tags.insert((*key).to_owned(), (*value).to_owned());
    }
    Ok(tags)
}

/// Checks that each of `keys` is one of the tags, and none stands twice.
pub(crate) fn check_transitive(keys: &[String], tags: &BTreeMap<String, String>) -> Result<(), String> {
    let mut seen = Vec::new();
    for key in keys {
        let folded = key.to_lowercase();
        if !has_key(tags, key) {
            return Err(format!("the transitive tag key {key} is not among the tags"));
        }
        if seen.contains(&folded) {
            return Err(format!("the transitive tag key {key} stands twice"));
        }
        seen.push(folded);
    }
    Ok(())
}

/// True if there is a tag of this key, whatever its case.
pub(crate) fn has_key(tags: &BTreeMap<String, String>, key: &str) -> bool {
    let folded = key.to_lowercase();
    tags.keys().any(|tag| tag.to_lowercase() == folded)
}

/// The pattern of `tagKeyType` and `tagValueType`, word for word.
pub(crate) fn is_tag_text(text: &str) -> bool {
    #[expect(clippy::expect_used, reason = "the pattern is a constant that a test compiles")]
    static TAG_TEXT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\A[\p{L}\p{Z}\p{N}_.:/=+\-@]*\z").expect("a valid pattern"));
    TAG_TEXT.is_match(text)
}
