//! Trust policies: which token may take a role.
//!
//! What can't be decided here (an operator or a key that this stand-in doesn't evaluate, a policy variable) is never
//! ignored: an Allow with it doesn't hold and a Deny with it does.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::identity::WebIdentity;
use crate::xml::AwsError;

const ASSUME_ROLE: &str = "sts:AssumeRoleWithWebIdentity";

/// A trust policy whose form IAM would accept.
#[derive(Debug)]
pub(crate) struct IamTrustPolicy {
    statements: Vec<IamStatement>,
}

#[derive(Debug)]
struct IamStatement {
    allow: bool,
    /// Federated principals; `None` = everybody.
    federated: Option<Vec<String>>,
    actions: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    /// `None` = an operator that can't be evaluated here.
    operator: Option<ConditionOperator>,
    /// In lower case: IAM compares keys so.
    key: String,
    values: Vec<String>,
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
    Null,
}

/// The values that conditions are compared with.
pub(crate) struct Facts {
    values: BTreeMap<String, Fact>,
}

enum Fact {
    One(String),
    Many(Vec<String>),
    /// A key of this kind of request that this one doesn't have.
    Absent,
}

impl Facts {
    pub(crate) fn new(issuer: &str, identity: &WebIdentity, session_name: &str) -> Self {
        let issuer = issuer.strip_prefix("https://").unwrap_or(issuer).to_lowercase();
        let many = |list: Vec<String>| {
            if list.is_empty() {
                Fact::Absent
            } else {
                Fact::Many(list)
            }
        };
        let original = match identity.original_audiences.as_slice() {
            [only] => Fact::One(only.clone()),
            list => many(list.to_vec()),
        };
        let mut values = BTreeMap::from([
            (format!("{issuer}:aud"), Fact::One(identity.audience.clone())),
            (format!("{issuer}:sub"), Fact::One(identity.subject.clone())),
            (format!("{issuer}:oaud"), original),
            ("aws:tagkeys".to_owned(), many(identity.tags.keys().cloned().collect())),
            (
                "sts:transitivetagkeys".to_owned(),
                many(identity.transitive_tag_keys.clone()),
            ),
            ("sts:rolesessionname".to_owned(), Fact::One(session_name.to_owned())),
            (
                "sts:sourceidentity".to_owned(),
                identity.source_identity.clone().map_or(Fact::Absent, Fact::One),
            ),
        ]);
        for (key, value) in &identity.tags {
            values.insert(
                format!("aws:requesttag/{}", key.to_lowercase()),
                Fact::One(value.clone()),
            );
        }
        Self { values }
    }

    /// `None` for a key that is not evaluated here.
    fn look_up(&self, key: &str) -> Option<&Fact> {
        self.values
            .get(key)
            .or_else(|| key.starts_with("aws:requesttag/").then_some(&Fact::Absent))
    }
}

/// Whether the role's policy lets this token of this provider in, with its tags and source identity if it has them.
pub(crate) fn authorize(
    policy: &IamTrustPolicy,
    provider_arn: &str,
    identity: &WebIdentity,
    facts: &Facts,
) -> Result<(), AwsError> {
    let tags = (!identity.tags.is_empty()).then_some("sts:TagSession");
    let source = identity.source_identity.is_some().then_some("sts:SetSourceIdentity");
    let allowed = [Some(ASSUME_ROLE), tags, source]
        .into_iter()
        .flatten()
        .all(|action| policy.allows(action, provider_arn, facts));
    if allowed { Ok(()) } else { Err(access_denied()) }
}

/// The answer for a role that refuses, and for one that doesn't exist: the caller can't tell them apart.
pub(crate) fn access_denied() -> AwsError {
    AwsError::new(403, "AccessDenied", format!("Not authorized to perform {ASSUME_ROLE}"))
}

impl IamTrustPolicy {
    /// Checks the form as IAM does when a role is created. The error begins with the place in the document.
    pub(crate) fn parse(document: &Value) -> Result<Self, String> {
        let policy = document.as_object().ok_or("must be an object")?;
        only_known(policy, &["Version", "Id", "Statement"], "")?;
        if !matches!(
            policy.get("Version").map(Value::as_str),
            None | Some(Some("2012-10-17" | "2008-10-17"))
        ) {
            return Err("Version: must be 2012-10-17 or 2008-10-17".to_owned());
        }
        let statements = match policy.get("Statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err("Statement: must be a statement or a list of them".to_owned()),
        };
        let statements = statements.into_iter().enumerate();
        let statements = statements.map(|(index, value)| IamStatement::parse(value, &format!("Statement[{index}]")));
        Ok(Self {
            statements: statements.collect::<Result<_, _>>()?,
        })
    }

    fn allows(&self, action: &str, provider_arn: &str, facts: &Facts) -> bool {
        let of_action = || {
            self.statements
                .iter()
                .filter(|statement| statement.covers(action, provider_arn))
        };
        let denied = of_action().any(|statement| !statement.allow && statement.holds(facts) != Some(false));
        !denied && of_action().any(|statement| statement.allow && statement.holds(facts) == Some(true))
    }
}

impl IamStatement {
    fn parse(value: &Value, at: &str) -> Result<Self, String> {
        let statement = value.as_object().ok_or_else(|| format!("{at}: must be an object"))?;
        if let Some(field) = ["Resource", "NotResource"]
            .iter()
            .find(|field| statement.contains_key(**field))
        {
            return Err(format!("{at}.{field}: Has prohibited field {field}"));
        }
        only_known(
            statement,
            &["Sid", "Effect", "Principal", "Action", "Condition"],
            &format!("{at}."),
        )?;
        let allow = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(format!("{at}.Effect: must be Allow or Deny")),
        };
        let actions = texts(statement.get("Action"), &format!("{at}.Action"))?;
        if let Some(action) = actions
            .iter()
            .find(|action| *action != "*" && !action.to_lowercase().starts_with("sts:"))
        {
            return Err(format!(
                "{at}.Action: {action}: AssumeRole policy may only specify STS AssumeRole actions."
            ));
        }
        Ok(Self {
            allow,
            federated: federated(statement.get("Principal"), &format!("{at}.Principal"))?,
            actions,
            conditions: conditions(statement.get("Condition"), &format!("{at}.Condition"))?,
        })
    }

    fn covers(&self, action: &str, provider_arn: &str) -> bool {
        let action = action.to_lowercase();
        self.actions
            .iter()
            .any(|pattern| like(&pattern.to_lowercase(), &action))
            && self
                .federated
                .as_ref()
                .is_none_or(|list| list.iter().any(|arn| arn == provider_arn))
    }

    /// `None` when it can't be decided.
    fn holds(&self, facts: &Facts) -> Option<bool> {
        let results: Vec<_> = self.conditions.iter().map(|condition| condition.holds(facts)).collect();
        if results.contains(&Some(false)) {
            return Some(false);
        }
        (!results.contains(&None)).then_some(true)
    }
}

/// The federated principals of a statement; those of other kinds (AWS, Service) never present a web identity.
fn federated(principal: Option<&Value>, at: &str) -> Result<Option<Vec<String>>, String> {
    let kinds = match principal {
        Some(Value::String(text)) if text == "*" => return Ok(None),
        Some(Value::Object(kinds)) if !kinds.is_empty() => kinds,
        _ => {
            return Err(format!(
                "{at}: must be an object such as {{\"Federated\": \"arn:…:oidc-provider/…\"}}"
            ));
        }
    };
    only_known(
        kinds,
        &["Federated", "AWS", "Service", "CanonicalUser"],
        &format!("{at}."),
    )?;
    let mut federated = Vec::new();
    for (kind, value) in kinds {
        let names = texts(Some(value), &format!("{at}.{kind}"))?;
        match kind.as_str() {
            // IAM: {"AWS": "*"} means the same as "*".
            "AWS" if names.iter().any(|name| name == "*") => return Ok(None),
            "Federated" => match names.iter().find(|name| name.contains('*')) {
                Some(name) => return Err(format!("{at}.Federated: {name}: wildcards are not allowed")),
                None => federated = names,
            },
            _ => {}
        }
    }
    Ok(Some(federated))
}

fn conditions(block: Option<&Value>, at: &str) -> Result<Vec<Condition>, String> {
    let Some(block) = block else { return Ok(Vec::new()) };
    let mut conditions = Vec::new();
    for (operator, keys) in block.as_object().ok_or_else(|| format!("{at}: must be an object"))? {
        for (key, values) in keys
            .as_object()
            .ok_or_else(|| format!("{at}.{operator}: must be an object"))?
        {
            let values = texts(Some(values), &format!("{at}.{operator}.{key}"))?;
            conditions.push(Condition {
                operator: ConditionOperator::parse(operator),
                key: key.to_lowercase(),
                values,
            });
        }
    }
    Ok(conditions)
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
        // Policy variables are not evaluated here.
        if self.values.iter().any(|value| value.contains("${")) {
            return None;
        }
        if matches!(operator.comparison, Comparison::Null) {
            let absent = matches!(fact, Fact::Absent);
            return Some(self.values.iter().any(|value| *value == absent.to_string()));
        }
        let one = |fact: &String| {
            let matches = self.values.iter().any(|value| match operator.comparison {
                Comparison::EqualsIgnoreCase => value.to_lowercase() == fact.to_lowercase(),
                Comparison::Like => like(value, fact),
                Comparison::Equals | Comparison::Null => value == fact,
            });
            matches != operator.negated
        };
        match (operator.quantifier, fact) {
            (_, Fact::Absent) if operator.if_exists => Some(true),
            (None, Fact::Absent) => Some(operator.negated),
            (Some(Quantifier::All), Fact::Absent) => Some(true),
            (Some(Quantifier::Any), Fact::Absent) => Some(false),
            (_, Fact::One(value)) => Some(one(value)),
            (Some(Quantifier::All), Fact::Many(values)) => Some(values.iter().all(one)),
            (Some(Quantifier::Any), Fact::Many(values)) => Some(values.iter().any(one)),
            // Several values without ForAllValues or ForAnyValue: IAM doesn't define the result.
            (None, Fact::Many(_)) => None,
        }
    }
}

fn only_known(object: &Map<String, Value>, known: &[&str], at: &str) -> Result<(), String> {
    match object.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(format!("{at}{field}: must be one of {}", known.join(", "))),
        None => Ok(()),
    }
}

/// A text or a list of texts, at least one; `true` and `false` count as texts.
fn texts(value: Option<&Value>, at: &str) -> Result<Vec<String>, String> {
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

/// `*` stands for any characters, `?` for exactly one.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star: the pattern behind it, and the text it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((behind, swallowed)) = star else { return false };
                star = Some((behind, swallowed + 1));
                (p, t) = (behind, swallowed + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests;
