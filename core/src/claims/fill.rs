//! Putting a workload's facts into the claims of a token, under AWS's rules.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Claims, MOST_CONTEXT_KEYS, MOST_CONTEXT_VALUE, MOST_TAG_KEY, MOST_TAG_VALUE, MOST_TAGS, fits_session_name,
    folded_tag_key, is_context_character, is_context_key, is_reserved_tag, is_tag_text,
};
use crate::arn::shortened;
use crate::{Pairs, Template, Variable, Variables};

/// The most bytes of a variable's value. The longest that Kubernetes allows is a name of 253 (RFC 1123 subdomain).
const MOST_VALUE_BYTES: usize = 256;
/// The most bytes of all keys and values: in base64 they are 16 KiB, and AWS STS takes tokens of at most 20,000 characters.
const MOST_BYTES: usize = 12 * 1024;
/// The prefix of a context key in the claim's name.
pub(crate) const CONTEXT_PREFIX: &str = "tokenscope_";

/// The claims of one token, as it has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilledClaims {
    /// Session tags by key.
    pub principal_tags: BTreeMap<Box<str>, Box<str>>,
    /// Keys of tags that persist through role chaining.
    pub transitive_tag_keys: Vec<Box<str>>,
    /// The source identity.
    pub source_identity: Option<Box<str>>,
    /// Flat claims by their whole name, `tokenscope_<key>`.
    pub context: BTreeMap<Box<str>, Box<str>>,
}

/// The reason why a workload gets no token. `Display` names the field of the policy, the value and the variables that it
/// comes from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// A variable has no value.
    #[error("{field} needs ${{{variable}}}, which {whose} does not have: set it, or change the policy")]
    NoValue {
        /// The field of the policy.
        field: Box<str>,
        /// The variable, such as `pod.labels['team']`.
        variable: Box<str>,
        /// The object that should have it.
        whose: &'static str,
    },
    /// A variable's value is longer than any that Kubernetes allows.
    #[error("{field} needs ${{{variable}}}, whose value has more than {MOST_VALUE_BYTES} bytes: shorten it")]
    ValueTooLong {
        /// The field of the policy.
        field: Box<str>,
        /// The variable.
        variable: Box<str>,
    },
    /// A value breaks a rule of AWS.
    #[error("{field} would be {value:?}{from}: it {rule}")]
    Value {
        /// The field of the policy.
        field: Box<str>,
        /// The value, shortened.
        value: Box<str>,
        /// The variables that it comes from, as ` by ${…} and ${…}`, or nothing.
        from: Box<str>,
        /// The right value.
        rule: &'static str,
    },
    /// A key breaks a rule of AWS.
    #[error("{field} has the key {key:?}: it {rule}")]
    Key {
        /// The field of the policy.
        field: &'static str,
        /// The key, shortened.
        key: Box<str>,
        /// The right value.
        rule: &'static str,
    },
    /// There are too many keys.
    #[error("{field} has {count} keys, and AWS takes at most {most}: remove some")]
    TooMany {
        /// The field of the policy.
        field: &'static str,
        /// The number of them.
        count: usize,
        /// The most that AWS takes.
        most: usize,
    },
    /// All together are too long for a token.
    #[error(
        "spec.claims would have more than {MOST_BYTES} bytes, which is too much for a token: use fewer or shorter ones"
    )]
    TooLong,
}

impl Claims {
    /// The claims for a workload. A rule that a value breaks is an error: nothing is cut and nothing left out.
    pub fn fill(&self, facts: &impl Variables) -> Result<FilledClaims, ClaimsError> {
        let filled = FilledClaims {
            principal_tags: self.fill_tags(facts)?,
            transitive_tag_keys: self.transitive_keys()?,
            source_identity: self.fill_source_identity(facts)?,
            context: self.fill_context(facts)?,
        };
        let pairs = filled.principal_tags.iter().chain(&filled.context);
        let keys = filled.transitive_tag_keys.iter().map(|key| key.len());
        let bytes = pairs
            .map(|(key, value)| key.len() + value.len())
            .chain(keys)
            .sum::<usize>();
        if bytes > MOST_BYTES {
            return Err(ClaimsError::TooLong);
        }
        Ok(filled)
    }

    fn fill_tags(&self, facts: &impl Variables) -> Result<BTreeMap<Box<str>, Box<str>>, ClaimsError> {
        const FIELD: &str = "spec.claims.principalTags";
        at_most(FIELD, self.principal_tags.len(), MOST_TAGS)?;
        let mut keys = BTreeSet::new();
        let mut filled = BTreeMap::new();
        for (key, template) in &self.principal_tags {
            let wrong = |rule| wrong_key(FIELD, key, rule);
            if key.is_empty() || key.chars().count() > MOST_TAG_KEY || !is_tag_text(key) {
                return Err(wrong("should have 1 to 128 letters, digits, spaces and _.:/=+-@"));
            }
            if is_reserved_tag(key) {
                return Err(wrong("should not start with aws:, which AWS keeps to itself"));
            }
            if !keys.insert(folded_tag_key(key)) {
                return Err(wrong("should differ from the others by more than upper and lower case"));
            }
            let field = format!("{FIELD}[{key}]");
            let value = render(template, facts, &field)?;
            let wrong = |rule| wrong_value(&field, &value, template, rule);
            if value.chars().count() > MOST_TAG_VALUE {
                return Err(wrong("should have at most 256 characters"));
            }
            if !is_tag_text(&value) {
                return Err(wrong("should have only letters, digits, spaces and _.:/=+-@"));
            }
            if is_reserved_tag(&value) {
                return Err(wrong("should not start with aws:, which AWS keeps to itself"));
            }
            filled.insert(key.clone(), value.into());
        }
        Ok(filled)
    }

    fn transitive_keys(&self) -> Result<Vec<Box<str>>, ClaimsError> {
        const FIELD: &str = "spec.claims.transitiveTagKeys";
        at_most(FIELD, self.transitive_tag_keys.len(), MOST_TAGS)?;
        let mut keys = BTreeSet::new();
        for key in &self.transitive_tag_keys {
            if !self.principal_tags.contains_key(key) {
                return Err(wrong_key(FIELD, key, "should be a key of spec.claims.principalTags"));
            }
            if !keys.insert(key) {
                return Err(wrong_key(FIELD, key, "should be there once"));
            }
        }
        Ok(self.transitive_tag_keys.clone())
    }

    fn fill_source_identity(&self, facts: &impl Variables) -> Result<Option<Box<str>>, ClaimsError> {
        const FIELD: &str = "spec.claims.sourceIdentity";
        let Some(template) = &self.source_identity else {
            return Ok(None);
        };
        let value = render(template, facts, FIELD)?;
        if !fits_session_name(&value) {
            let rule = "should have 2 to 64 letters, digits and _+=,.@-";
            return Err(wrong_value(FIELD, &value, template, rule));
        }
        Ok(Some(value.into()))
    }

    fn fill_context(&self, facts: &impl Variables) -> Result<BTreeMap<Box<str>, Box<str>>, ClaimsError> {
        const FIELD: &str = "spec.claims.context";
        at_most(FIELD, self.context.len(), MOST_CONTEXT_KEYS)?;
        let mut filled = BTreeMap::new();
        for (key, template) in &self.context {
            if !is_context_key(key) {
                return Err(wrong_key(FIELD, key, "should have 1 to 64 letters, digits and _"));
            }
            let field = format!("{FIELD}[{key}]");
            let value = render(template, facts, &field)?;
            if value.is_empty() || value.chars().count() > MOST_CONTEXT_VALUE {
                return Err(wrong_value(&field, &value, template, "should have 1 to 128 characters"));
            }
            if !value.chars().all(is_context_character) {
                let rule = "should have only printable ASCII characters without quotation marks and backslashes";
                return Err(wrong_value(&field, &value, template, rule));
            }
            filled.insert(format!("{CONTEXT_PREFIX}{key}").into(), value.into());
        }
        Ok(filled)
    }
}

/// Puts the values in. Each is looked at first, so that a long one that a template names often costs nothing.
fn render(template: &Template, facts: &impl Variables, field: &str) -> Result<String, ClaimsError> {
    for variable in template.variables() {
        match facts.value(variable) {
            None => return Err(no_value(field, variable)),
            Some(value) if value.len() > MOST_VALUE_BYTES => {
                return Err(ClaimsError::ValueTooLong {
                    field: shortened(field),
                    variable: variable.to_string().into(),
                });
            }
            Some(_) => {}
        }
    }
    let rendered = template.render(facts);
    rendered.map_err(|missing| no_value(field, &missing.variable))
}

fn no_value(field: &str, variable: &Variable) -> ClaimsError {
    ClaimsError::NoValue {
        field: shortened(field),
        variable: variable.to_string().into(),
        whose: match variable {
            Variable::NamespaceLabel(_) => "the namespace of this pod",
            _ => "this pod",
        },
    }
}

fn at_most(field: &'static str, count: usize, most: usize) -> Result<(), ClaimsError> {
    if count > most {
        return Err(ClaimsError::TooMany { field, count, most });
    }
    Ok(())
}

fn wrong_key(field: &'static str, key: &str, rule: &'static str) -> ClaimsError {
    ClaimsError::Key {
        field,
        key: shortened(key),
        rule,
    }
}

fn wrong_value(field: &str, value: &str, template: &Template, rule: &'static str) -> ClaimsError {
    let variables: BTreeSet<&Variable> = template.variables().collect();
    let names: Vec<String> = variables
        .into_iter()
        .map(|variable| format!("${{{variable}}}"))
        .collect();
    let from = if names.is_empty() {
        String::new()
    } else {
        format!(" by {}", names.join(" and "))
    };
    ClaimsError::Value {
        field: shortened(field),
        value: shortened(value),
        from: from.into(),
        rule,
    }
}

/// A workload's facts, as the record of its admission has them: what a running pod says of itself belongs to whoever may
/// patch it.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadFacts<'a, N, P> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// That namespace's labels.
    pub namespace_labels: &'a Pairs<N>,
    /// The pod's service account.
    pub service_account: &'a str,
    /// The pod's name.
    pub pod_name: &'a str,
    /// The pod's UID.
    pub pod_uid: &'a str,
    /// The pod's labels at admission.
    pub pod_labels: &'a Pairs<P>,
}

impl<N: AsRef<str>, P: AsRef<str>> Variables for WorkloadFacts<'_, N, P> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = match variable {
            Variable::Namespace => Some(self.namespace),
            Variable::NamespaceLabel(key) => self.namespace_labels.value(key),
            Variable::ServiceAccount => Some(self.service_account),
            Variable::PodName => Some(self.pod_name),
            Variable::PodUid => Some(self.pod_uid),
            Variable::PodLabel(key) => self.pod_labels.value(key),
        };
        value.map(Cow::Borrowed)
    }
}
