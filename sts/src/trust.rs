//! Trust policies: which token may take a role.
//!
//! What can't be decided is never ignored: an Allow with it doesn't hold and a Deny with it does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::aws_error::AwsError;
use crate::condition::{Condition, Fact, Facts, all_hold, conditions, only_known, texts};
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::policy_text::like;

mod principals;

use principals::Principals;
pub(crate) use principals::{Naming, Presenter};

const ASSUME_ROLE: &str = "sts:AssumeRoleWithWebIdentity";

/// A trust policy whose form IAM would accept.
#[derive(Debug)]
pub(crate) struct IamTrustPolicy {
    statements: Vec<IamStatement>,
}

#[derive(Debug)]
struct IamStatement {
    allow: bool,
    principals: Principals,
    actions: Vec<String>,
    conditions: Vec<Condition>,
}

/// Keys that a request with a web identity may have or lack.
const FAMILIES: &[&str] = &[
    "aws:requesttag/",
    "aws:originidentity/",
    "aws:transactioncontext/identityprovider/",
];

impl Facts {
    /// The keys that IAM knows when a role is to be taken (IAM User Guide, "IAM and AWS STS condition context keys": OIDC
    /// federation and AWS STS; "AWS global condition context keys": aws:CurrentTime, aws:RequestTag, aws:TagKeys). That a trust policy sees
    /// the keys of a context provider is not yet seen by AWS.
    pub(crate) fn new(issuer: &str, identity: &WebIdentity, session_name: &str, now: Timestamp) -> Self {
        let mut facts = Self::of_families(FAMILIES);
        facts.set_identity(issuer, identity);
        facts.set("aws:CurrentTime", Fact::Time(now));
        facts.set_request_tags(&identity.tags);
        facts.set("sts:TransitiveTagKeys", Fact::many(&identity.transitive_tag_keys));
        facts.set("sts:RoleSessionName", Fact::One(session_name.to_owned()));
        facts.set(
            "sts:SourceIdentity",
            Fact::optional(identity.source_identity.as_deref()),
        );
        facts
    }

    /// Tags that are passed with a request.
    pub(crate) fn set_request_tags(&mut self, tags: &BTreeMap<String, String>) {
        let keys: Vec<_> = tags.keys().cloned().collect();
        self.set("aws:TagKeys", Fact::many(&keys));
        for (key, value) in tags {
            self.set(&format!("aws:RequestTag/{key}"), Fact::One(value.clone()));
        }
    }

    /// The claims of the token: in the trust policy's request, and in those of the session.
    pub(crate) fn set_identity(&mut self, issuer: &str, identity: &WebIdentity) {
        let issuer = issuer.strip_prefix("https://").unwrap_or(issuer);
        let original = match identity.original_audiences.as_slice() {
            [only] => Fact::One(only.clone()),
            list => Fact::many(list),
        };
        self.set(&format!("{issuer}:aud"), Fact::One(identity.audience.clone()));
        self.set(&format!("{issuer}:sub"), Fact::One(identity.subject.clone()));
        self.set(&format!("{issuer}:oaud"), original);
        self.set(&format!("{issuer}:amr"), Fact::many(&identity.authentication_methods));
        self.set(&format!("{issuer}:email"), Fact::optional(identity.email.as_deref()));
        for (key, value) in identity.propagated.iter().flat_map(Propagated::context_keys) {
            self.set(&key, Fact::One(value.to_owned()));
        }
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
    let refused = [Some(ASSUME_ROLE), tags, source]
        .into_iter()
        .flatten()
        .find(|action| !policy.allows(action, provider_arn, facts));
    match refused {
        Some(action) => Err(not_authorized(action)),
        None => Ok(()),
    }
}

/// The answer for a role that refuses, and for one that doesn't exist: the caller can't tell them apart.
pub(crate) fn access_denied() -> AwsError {
    not_authorized(ASSUME_ROLE)
}

/// STS's words for a web identity that may not take the role. That they name `sts:TagSession` and
/// `sts:SetSourceIdentity` where these are what is missing is not yet seen by AWS; that the request fails is documented
/// (IAM User Guide, "Pass session tags in AWS STS"; "Monitor and control actions taken with assumed roles").
fn not_authorized(action: &str) -> AwsError {
    AwsError::new(403, "AccessDenied", format!("Not authorized to perform {action}"))
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
        let variables = policy.get("Version").and_then(Value::as_str) == Some("2012-10-17");
        let statements = match policy.get("Statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err("Statement: must be a statement or a list of them".to_owned()),
        };
        let statements = statements.into_iter().enumerate();
        let statements =
            statements.map(|(index, value)| IamStatement::parse(value, variables, &format!("Statement[{index}]")));
        Ok(Self {
            statements: statements.collect::<Result<_, _>>()?,
        })
    }

    fn allows(&self, action: &str, provider_arn: &str, facts: &Facts) -> bool {
        self.grants(action, Presenter::Federated(provider_arn), facts).is_some()
    }

    /// The way in which the policy names `presenter` where it allows the action; `None` when it doesn't allow it or denies it.
    pub(crate) fn grants(&self, action: &str, presenter: Presenter<'_>, facts: &Facts) -> Option<Naming> {
        let named = self.statements.iter().filter(|statement| statement.is_about(action));
        let named: Vec<_> = named
            .filter_map(|statement| Some((statement, statement.principals.naming(presenter)?)))
            .collect();
        let denied =
            |(statement, _): &(&IamStatement, Naming)| !statement.allow && statement.holds(facts) != Some(false);
        if named.iter().any(denied) {
            return None;
        }
        let allowing = named
            .iter()
            .filter(|(statement, _)| statement.allow && statement.holds(facts) == Some(true));
        allowing.map(|(_, naming)| *naming).max()
    }
}

impl IamStatement {
    fn parse(value: &Value, variables: bool, at: &str) -> Result<Self, String> {
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
            principals: Principals::parse(statement.get("Principal"), &format!("{at}.Principal"))?,
            actions,
            conditions: conditions(statement.get("Condition"), variables, &format!("{at}.Condition"))?,
        })
    }

    fn is_about(&self, action: &str) -> bool {
        let action = action.to_lowercase();
        let mut actions = self.actions.iter();
        actions.any(|pattern| like(&pattern.to_lowercase(), &action))
    }

    /// `None` when it can't be decided.
    fn holds(&self, facts: &Facts) -> Option<bool> {
        all_hold(&self.conditions, facts)
    }
}

#[cfg(test)]
mod tests;
