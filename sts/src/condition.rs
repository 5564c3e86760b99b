//! Conditions of policies: read and evaluated, for trust policies and for the policies of a session.
//!
//! Operators, quantifiers and `IfExists` follow the IAM User Guide, "IAM JSON policy elements: Condition operators" and
//! "Set operators for multivalued context keys". What can't be decided here (an operator or a key that this stand-in
//! doesn't evaluate, a variable without a value) is never ignored: an Allow with it doesn't hold and a Deny with it does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::policy_text::{PolicyText, matches, text};

/// The values that conditions are compared with: IAM's request context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// By key in lower case: IAM compares keys so.
    values: BTreeMap<String, Fact>,
    /// Prefixes, in lower case, of keys that this kind of request may have. A key of them without a value is absent; any
    /// other is unknown.
    families: &'static [&'static str],
}

/// The value of a context key.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    One(String),
    Many(Vec<String>),
    Time(Timestamp),
    /// A key of this kind of request that this one doesn't have.
    Absent,
}

impl Fact {
    /// An absent value for an empty list.
    pub(crate) fn many(list: &[String]) -> Self {
        if list.is_empty() {
            Self::Absent
        } else {
            Self::Many(list.to_vec())
        }
    }

    pub(crate) fn optional(value: Option<&str>) -> Self {
        value.map_or(Self::Absent, |value| Self::One(value.to_owned()))
    }
}

impl Facts {
    pub(crate) fn of_families(families: &'static [&'static str]) -> Self {
        Self {
            values: BTreeMap::new(),
            families,
        }
    }

    pub(crate) fn set(&mut self, key: &str, fact: Fact) {
        self.values.insert(key.to_lowercase(), fact);
    }

    /// `None` for a key that is not evaluated here. `key` is in lower case.
    fn look_up(&self, key: &str) -> Option<&Fact> {
        let of_family = || self.families.iter().any(|family| key.starts_with(family));
        self.values.get(key).or_else(|| of_family().then_some(&Fact::Absent))
    }

    /// The value that a policy variable takes: that of a key with one text. `key` is in lower case.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.look_up(key)? {
            Fact::One(text) => Some(text),
            Fact::Many(_) | Fact::Time(_) | Fact::Absent => None,
        }
    }
}

/// One key under one operator of a Condition block.
#[derive(Debug)]
pub(crate) struct Condition {
    /// `None` = an operator that can't be evaluated here.
    operator: Option<ConditionOperator>,
    /// In lower case: IAM compares keys so.
    key: String,
    values: Vec<String>,
    /// Policy variables are such since version 2012-10-17 of the policy language; before, nothing here decides them.
    variables: bool,
}

#[derive(Clone, Copy, Debug)]
struct ConditionOperator {
    quantifier: Option<Quantifier>,
    comparison: Comparison,
    negated: bool,
    if_exists: bool,
}

#[derive(Clone, Copy, Debug)]
enum Quantifier {
    All,
    Any,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equals,
    EqualsIgnoreCase,
    Like,
    /// An ARN whose six parts match one by one.
    Arn,
    Date(Relation),
    Number(Relation),
    Bool,
    Null,
}

/// A relation between the time or number of the request and that of the policy.
#[derive(Clone, Copy, Debug)]
enum Relation {
    Equal,
    Before,
    NotAfter,
    After,
    NotBefore,
}

/// Reads a Condition block; the error begins with the place in the document.
pub(crate) fn conditions(block: Option<&Value>, variables: bool, at: &str) -> Result<Vec<Condition>, String> {
    let Some(block) = block else { return Ok(Vec::new()) };
    let mut conditions = Vec::new();
    for (operator, keys) in block.as_object().ok_or_else(|| format!("{at}: must be an object"))? {
        for (key, values) in keys
            .as_object()
            .ok_or_else(|| format!("{at}.{operator}: must be an object"))?
        {
            conditions.push(Condition {
                operator: ConditionOperator::parse(operator),
                key: key.to_lowercase(),
                values: texts(Some(values), &format!("{at}.{operator}.{key}"))?,
                variables,
            });
        }
    }
    Ok(conditions)
}

/// Whether all of them hold; `None` when it can't be decided.
pub(crate) fn all_hold(conditions: &[Condition], facts: &Facts) -> Option<bool> {
    let results: Vec<_> = conditions.iter().map(|condition| condition.holds(facts)).collect();
    if results.contains(&Some(false)) {
        return Some(false);
    }
    (!results.contains(&None)).then_some(true)
}

impl ConditionOperator {
    fn parse(name: &str) -> Option<Self> {
        let (quantifier, name) = match name.split_once(':') {
            Some(("ForAllValues", name)) => (Some(Quantifier::All), name),
            Some(("ForAnyValue", name)) => (Some(Quantifier::Any), name),
            Some(_) => return None,
            None => (None, name),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let (comparison, negated) = match name {
            "StringEquals" => (Comparison::Equals, false),
            "StringNotEquals" => (Comparison::Equals, true),
            "StringEqualsIgnoreCase" => (Comparison::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Comparison::EqualsIgnoreCase, true),
            "StringLike" => (Comparison::Like, false),
            "StringNotLike" => (Comparison::Like, true),
            // ArnEquals and ArnLike behave the same (IAM User Guide, "Amazon Resource Name (ARN) condition operators").
            "ArnEquals" | "ArnLike" => (Comparison::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Comparison::Arn, true),
            "Bool" => (Comparison::Bool, false),
            "NumericEquals" => (Comparison::Number(Relation::Equal), false),
            "NumericNotEquals" => (Comparison::Number(Relation::Equal), true),
            "NumericLessThan" => (Comparison::Number(Relation::Before), false),
            "NumericLessThanEquals" => (Comparison::Number(Relation::NotAfter), false),
            "NumericGreaterThan" => (Comparison::Number(Relation::After), false),
            "NumericGreaterThanEquals" => (Comparison::Number(Relation::NotBefore), false),
            "DateEquals" => (Comparison::Date(Relation::Equal), false),
            "DateNotEquals" => (Comparison::Date(Relation::Equal), true),
            "DateLessThan" => (Comparison::Date(Relation::Before), false),
            "DateLessThanEquals" => (Comparison::Date(Relation::NotAfter), false),
            "DateGreaterThan" => (Comparison::Date(Relation::After), false),
            "DateGreaterThanEquals" => (Comparison::Date(Relation::NotBefore), false),
            "Null" if quantifier.is_none() && !if_exists => (Comparison::Null, false),
            _ => return None,
        };
        Some(Self {
            quantifier,
            comparison,
            negated,
            if_exists,
        })
    }
}

impl Condition {
    /// `None` when it can't be decided.
    fn holds(&self, facts: &Facts) -> Option<bool> {
        let operator = self.operator?;
        let fact = facts.look_up(&self.key)?;
        if matches!(operator.comparison, Comparison::Null) {
            let absent = matches!(fact, Fact::Absent);
            return Some(self.values.iter().any(|value| *value == absent.to_string()));
        }
        let one = |fact: &String| self.matches_text(operator, fact, facts);
        match (operator.quantifier, fact) {
            (_, Fact::Absent) if operator.if_exists => Some(true),
            (None, Fact::Absent) => Some(operator.negated),
            (Some(Quantifier::All), Fact::Absent) => Some(true),
            (Some(Quantifier::Any), Fact::Absent) => Some(false),
            (_, Fact::One(fact)) => one(fact),
            (_, Fact::Time(time)) => self.matches_time(operator, *time),
            (Some(Quantifier::All), Fact::Many(list)) => every(list.iter().map(one)),
            (Some(Quantifier::Any), Fact::Many(list)) => any(list.iter().map(one)),
            // Several values without ForAllValues or ForAnyValue: IAM doesn't define the result.
            (None, Fact::Many(_)) => None,
        }
    }

    fn matches_text(&self, operator: ConditionOperator, fact: &str, facts: &Facts) -> Option<bool> {
        let compare = |value: &String| {
            if !self.variables && value.contains("${") {
                return None;
            }
            let value_of = |key: &str| facts.text(key);
            match operator.comparison {
                Comparison::Equals => Some(text(&PolicyText::plain(value).fill(value_of)?) == fact),
                Comparison::EqualsIgnoreCase => {
                    let value = text(&PolicyText::plain(value).fill(value_of)?);
                    Some(value.to_lowercase() == fact.to_lowercase())
                }
                Comparison::Like => Some(matches(&PolicyText::pattern(value).fill(value_of)?, fact)),
                Comparison::Bool => Some(value.eq_ignore_ascii_case(fact)),
                Comparison::Number(order) => {
                    let (fact, value) = (fact.parse::<i64>().ok()?, value.parse::<i64>().ok()?);
                    Some(order.holds(&fact, &value))
                }
                Comparison::Arn => {
                    let (fact, value) = (parts(fact)?, parts(value)?);
                    let part = |(fact, value): (&&str, &&str)| {
                        Some(matches(&PolicyText::pattern(value).fill(value_of)?, fact))
                    };
                    every(fact.iter().zip(value.iter()).map(part))
                }
                Comparison::Date(_) | Comparison::Null => None,
            }
        };
        any(self.values.iter().map(compare)).map(|matched| matched != operator.negated)
    }

    fn matches_time(&self, operator: ConditionOperator, time: Timestamp) -> Option<bool> {
        let Comparison::Date(order) = operator.comparison else {
            return None;
        };
        let compare = |value: &String| {
            let other = date(value)?;
            Some(order.holds(&time, &other))
        };
        any(self.values.iter().map(compare)).map(|matched| matched != operator.negated)
    }
}

impl Relation {
    fn holds<T: Ord>(self, fact: &T, value: &T) -> bool {
        match self {
            Self::Equal => fact == value,
            Self::Before => fact < value,
            Self::NotAfter => fact <= value,
            Self::After => fact > value,
            Self::NotBefore => fact >= value,
        }
    }
}

/// The six parts of an ARN.
fn parts(arn: &str) -> Option<[&str; 6]> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    parts.try_into().ok()
}

/// `true` wins, then "can't be decided".
fn any(results: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut decided = Some(false);
    for result in results {
        match result {
            Some(true) => return Some(true),
            Some(false) => {}
            None => decided = None,
        }
    }
    decided
}

/// `false` wins, then "can't be decided".
fn every(results: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    any(results.map(|result| result.map(|holds| !holds))).map(|one_fails| !one_fails)
}

/// A date as IAM takes it: one of the W3C forms of ISO 8601, or seconds since 1970.
fn date(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.len() > 4 {
        return Timestamp::from_second(text.parse().ok()?).ok();
    }
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
    text.parse().ok().or_else(|| day().map(|day| day.timestamp()))
}

/// Refuses members that IAM doesn't know.
pub(crate) fn only_known(object: &Map<String, Value>, known: &[&str], at: &str) -> Result<(), String> {
    match object.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(format!("{at}{field}: must be one of {}", known.join(", "))),
        None => Ok(()),
    }
}

/// A text or a list of texts, at least one; `true` and `false` count as texts.
pub(crate) fn texts(value: Option<&Value>, at: &str) -> Result<Vec<String>, String> {
    let list = match value {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match list.into_iter().map(text).collect::<Option<Vec<_>>>() {
        Some(texts) if !texts.is_empty() => Ok(texts),
        _ => Err(format!("{at}: must be a string or a list of strings")),
    }
}

#[cfg(test)]
mod tests;
