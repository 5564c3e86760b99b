//! Texts with `${variable}` in them, over a fixed vocabulary.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;

/// A text with variables, checked when it is parsed: `"${namespace}.${serviceAccount}"`. `$${` stands for `${`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Variable(Variable),
}

/// A value that a template may name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// `${namespace}`
    Namespace,
    /// `${namespace.labels['key']}`
    NamespaceLabel(Box<str>),
    /// `${serviceAccount}`
    ServiceAccount,
    /// `${pod.name}`
    PodName,
    /// `${pod.uid}`
    PodUid,
    /// `${pod.labels['key']}`
    PodLabel(Box<str>),
}

/// The vocabulary as a message lists it.
const KNOWN: &str = "namespace, namespace.labels['key'], serviceAccount, pod.name, pod.uid, pod.labels['key']";

/// The source of a template's values.
pub trait Variables {
    /// The value, or `None` where it has none (yet).
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>>;
}

impl Template {
    /// Puts the values in. The first variable without a value is the error.
    pub fn render(&self, variables: &impl Variables) -> Result<String, Unrendered> {
        let mut rendered = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => rendered.push_str(text),
                Part::Variable(variable) => match variables.value(variable) {
                    Some(value) => rendered.push_str(&value),
                    None => {
                        return Err(Unrendered {
                            variable: variable.clone(),
                        });
                    }
                },
            }
        }
        Ok(rendered)
    }

    /// The text in pieces; `None` stands for a variable that has no value here.
    pub fn pieces<'a>(&'a self, variables: &'a impl Variables) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        self.parts.iter().map(|part| match part {
            Part::Literal(text) => Some(Cow::Borrowed(&**text)),
            Part::Variable(variable) => variables.value(variable),
        })
    }

    /// The whole text, where it has no variables.
    pub fn literal(&self) -> Option<Cow<'_, str>> {
        match self.parts.as_slice() {
            [] => Some("".into()),
            [Part::Literal(text)] => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    /// The variable, where the template is nothing else.
    pub fn only_variable(&self) -> Option<&Variable> {
        match self.parts.as_slice() {
            [Part::Variable(variable)] => Some(variable),
            _ => None,
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Literal(_) => None,
        })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at]);
                literal.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let Some(end) = inside.find('}') else {
                return Err(InvalidTemplate::Unclosed { text: shortened(text) });
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Variable(inside[..end].parse()?));
            rest = &inside[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self {
            text: text.into(),
            parts,
        })
    }
}

impl FromStr for Variable {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |prefix: &str| {
            let quoted = text.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
            (!quoted.is_empty() && !quoted.contains('\'')).then(|| Box::from(quoted))
        };
        match text {
            "namespace" => Ok(Self::Namespace),
            "serviceAccount" => Ok(Self::ServiceAccount),
            "pod.name" => Ok(Self::PodName),
            "pod.uid" => Ok(Self::PodUid),
            _ => key("pod.labels")
                .map(Self::PodLabel)
                .or_else(|| key("namespace.labels").map(Self::NamespaceLabel))
                .ok_or_else(|| InvalidTemplate::UnknownVariable { name: shortened(text) }),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("namespace"),
            Self::NamespaceLabel(key) => write!(f, "namespace.labels['{key}']"),
            Self::ServiceAccount => f.write_str("serviceAccount"),
            Self::PodName => f.write_str("pod.name"),
            Self::PodUid => f.write_str("pod.uid"),
            Self::PodLabel(key) => write!(f, "pod.labels['{key}']"),
        }
    }
}

/// The reason why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A name that is not in the vocabulary.
    #[error("unknown variable ${{{name}}}: known are {KNOWN}")]
    UnknownVariable {
        /// The text between the braces.
        name: Box<str>,
    },
    /// `${` without `}`.
    #[error("{text:?} has a ${{ without its }}")]
    Unclosed {
        /// The whole text.
        text: Box<str>,
    },
}

/// A variable that has no value here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("${{{variable}}} has no value here")]
pub struct Unrendered {
    /// The variable.
    pub variable: Variable,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Orders;

    impl Variables for Orders {
        fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            match variable {
                Variable::Namespace => Some("shop".into()),
                Variable::ServiceAccount => Some("orders".into()),
                Variable::PodLabel(key) if &**key == "team" => Some("core".into()),
                _ => None,
            }
        }
    }

    #[test]
    fn values_are_put_in() {
        let template: Template = "${namespace}.${serviceAccount}/${pod.labels['team']}!".parse().unwrap();

        assert_eq!(template.render(&Orders).unwrap(), "shop.orders/core!");
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_lists_the_known_ones() {
        let error = "${pod.lables['team']}".parse::<Template>().unwrap_err();

        assert_eq!(
            error.to_string(),
            format!("unknown variable ${{pod.lables['team']}}: known are {KNOWN}")
        );
    }

    #[test]
    fn a_missing_value_is_an_error_and_not_an_empty_text() {
        let template: Template = "a-${pod.labels['tier']}".parse().unwrap();

        assert_eq!(
            template.render(&Orders).unwrap_err().to_string(),
            "${pod.labels['tier']} has no value here"
        );
    }

    #[test]
    fn a_doubled_dollar_stands_for_itself() {
        let template: Template = "$${namespace} costs 5$".parse().unwrap();

        assert_eq!(template.render(&Orders).unwrap(), "${namespace} costs 5$");
        assert!(template.literal().is_some());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = text.parse::<Template>();
        }

        #[test]
        fn a_text_without_a_dollar_is_itself(text in "[^$]*") {
            prop_assert_eq!(text.parse::<Template>().unwrap().render(&Orders).unwrap(), text);
        }
    }
}
