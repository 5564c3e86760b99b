//! Trust policies: which token may take a role.
//!
//! What can't be decided is never ignored: an Allow with it doesn't hold and a Deny with it does.

use jiff::Timestamp;
use serde_json::Value;

use crate::condition::{Condition, Fact, Facts, all_hold, conditions, only_known, texts};
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::policy_text::like;
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
        let tag_keys: Vec<_> = identity.tags.keys().cloned().collect();
        facts.set("aws:TagKeys", Fact::many(&tag_keys));
        facts.set("sts:TransitiveTagKeys", Fact::many(&identity.transitive_tag_keys));
        facts.set("sts:RoleSessionName", Fact::One(session_name.to_owned()));
        facts.set(
            "sts:SourceIdentity",
            Fact::optional(identity.source_identity.as_deref()),
        );
        for (key, value) in &identity.tags {
            facts.set(&format!("aws:RequestTag/{key}"), Fact::One(value.clone()));
        }
        facts
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
            federated: federated(statement.get("Principal"), &format!("{at}.Principal"))?,
            actions,
            conditions: conditions(statement.get("Condition"), variables, &format!("{at}.Condition"))?,
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
        all_hold(&self.conditions, facts)
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

#[cfg(test)]
mod tests;
