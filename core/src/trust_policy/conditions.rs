//! The conditions of IAM policies.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{Policy, Template, Variable, Variables};

/// The Condition block of a statement: by operator, then by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Conditions(BTreeMap<&'static str, BTreeMap<String, Texts>>);

/// One text or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    pub(super) fn of(mut texts: Vec<String>) -> Self {
        match texts.len() {
            1 => Self::One(texts.remove(0)),
            _ => Self::Many(texts),
        }
    }
}

/// A text that a condition compares with, in which `*` may stand for any characters. What IAM reads in a special way is
/// escaped in it (IAM user guide, "IAM policy elements: Variables and tags", special characters).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Comparand {
    pattern: String,
    exact: String,
    has_stars: bool,
}

impl Comparand {
    pub(super) fn exact(text: &str) -> Self {
        let mut comparand = Self::default();
        comparand.push(text);
        comparand
    }

    /// A text of ours in which every `*` stands for any characters.
    pub(super) fn pattern(text: &str) -> Self {
        Self::default().then_pattern(text)
    }

    /// This one, and then a text in which every `*` stands for any characters.
    pub(super) fn then_pattern(mut self, text: &str) -> Self {
        for (index, piece) in text.split('*').enumerate() {
            if index > 0 {
                self.push_star();
            }
            self.push(piece);
        }
        self
    }

    /// The known part of a template's values in the tokens that `policy` grants.
    fn template(template: &Template, policy: &Policy) -> Self {
        let mut comparand = Self::default();
        for piece in template.pieces(&OfPolicy(policy)) {
            match piece {
                Some(text) => comparand.push(&text),
                None => comparand.push_star(),
            }
        }
        comparand
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '$' => self.exact.push_str("${$}"),
                _ => self.exact.push(c),
            }
            match c {
                '$' | '*' | '?' => self.pattern.extend(["${", c.encode_utf8(&mut [0; 4]), "}"]),
                _ => self.pattern.push(c),
            }
        }
    }

    fn push_star(&mut self) {
        self.has_stars = true;
        // Two stars say the same as one. A star that is escaped ends with a brace.
        if !self.pattern.ends_with('*') {
            self.pattern.push('*');
        }
    }
}

impl Conditions {
    /// True if nothing is required.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key's value must be one of the texts.
    pub(crate) fn equals<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str>) {
        self.add(key, texts.map(Comparand::exact).collect());
    }

    /// None of the key's values may be another text; there may be none.
    pub(crate) fn only<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str>) {
        let texts: Vec<String> = texts.map(|text| Comparand::exact(text).exact).collect();
        if !texts.is_empty() {
            self.put("ForAllValues:StringEquals", key, texts);
        }
    }

    /// The key's value must be a number of at most this.
    pub(crate) fn at_most(&mut self, key: &str, most: u32) {
        self.put("NumericLessThanEquals", key, vec![most.to_string()]);
    }

    /// One of the comparands must be like the key's value.
    pub(super) fn add(&mut self, key: &str, mut comparands: Vec<Comparand>) {
        let mut kept = Vec::with_capacity(comparands.len());
        let like = comparands.iter().any(|comparand| comparand.has_stars);
        for comparand in comparands.drain(..) {
            kept.push(if like { comparand.pattern } else { comparand.exact });
        }
        let operator = if like { "StringLike" } else { "StringEquals" };
        self.put(operator, key, kept);
    }

    /// That it is not yet this time.
    pub(crate) fn before(&mut self, time: Timestamp) {
        self.put("DateLessThan", "aws:CurrentTime", vec![time.to_string()]);
    }

    /// The request must not have this key (IAM user guide, "Condition operator to check existence of condition keys": `true` holds
    /// where the key is missing or its value is null).
    fn absent(&mut self, key: &str) {
        self.put("Null", key, vec!["true".to_owned()]);
    }

    /// That the token has the tags and the source identity which `policy` gives it, no other tags, and that no others persist through
    /// role chaining. Without tags the document does not allow `sts:TagSession`, so AWS refuses every token that has some.
    pub(super) fn add_claims(&mut self, policy: &Policy) {
        let claims = &policy.claims;
        for (key, template) in &claims.principal_tags {
            self.add(
                &format!("aws:RequestTag/{key}"),
                vec![Comparand::template(template, policy)],
            );
        }
        self.only("aws:TagKeys", claims.principal_tags.keys().map(|key| &**key));
        let transitive = claims.transitive_tag_keys.iter().map(|key| &**key);
        self.only("sts:TransitiveTagKeys", transitive);
        if claims.transitive_tag_keys.is_empty() && !claims.principal_tags.is_empty() {
            self.absent("sts:TransitiveTagKeys");
        }
        if let Some(template) = &claims.source_identity {
            self.add("sts:SourceIdentity", vec![Comparand::template(template, policy)]);
        }
    }

    fn put(&mut self, operator: &'static str, key: &str, texts: Vec<String>) {
        let keys = self.0.entry(operator).or_default();
        keys.insert(key.to_owned(), Texts::of(texts));
    }
}

/// The values that are the same in every token that a policy grants.
struct OfPolicy<'a>(&'a Policy);

impl Variables for OfPolicy<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::Namespace => self.0.name.namespace().map(Cow::Borrowed),
            Variable::ServiceAccount => self.only_service_account().map(Cow::Borrowed),
            Variable::NamespaceLabel(_) | Variable::PodName | Variable::PodUid | Variable::PodLabel(_) => None,
        }
    }
}

impl OfPolicy<'_> {
    fn only_service_account(&self) -> Option<&str> {
        let (first, others) = self.0.subjects.split_first()?;
        let [only] = first.service_accounts.as_slice() else {
            return None;
        };
        let is_same = others
            .iter()
            .all(|subject| subject.service_accounts == first.service_accounts);
        (is_same && !only.as_str().contains('*')).then(|| only.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iam_reads_in_a_special_way_is_escaped() {
        let exact = Comparand::exact("a*b?${c}");
        assert_eq!(exact.exact, "a*b?${$}{c}");
        assert_eq!(exact.pattern, "a${*}b${?}${$}{c}");
        assert!(!exact.has_stars);

        let pattern = Comparand::pattern("a**b*");
        assert_eq!((pattern.pattern.as_str(), pattern.has_stars), ("a*b*", true));
    }
}
