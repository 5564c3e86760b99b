//! The permissions of a session: identity policies evaluated for one action on one resource.
//!
//! IAM User Guide, "Policy evaluation logic": a Deny wins, without an Allow nothing is allowed, a session policy allows
//! nothing beyond the role's policies. Elements are those of identity policies ("IAM JSON policy elements reference"); keys
//! of the request itself (tags of the resource, addresses) are not known here and decide nothing. There are no service
//! control policies, permissions boundaries and resource policies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::condition::{Condition, Facts, all_hold, conditions, only_known, texts};
use crate::policy_text::{PolicyText, like, matches};
use crate::principal::{Principal, PrincipalNames};
use crate::request::SessionPolicies;
use crate::session::Session;

/// A session that a web identity was given, without its secrets: what a test may assert.
#[derive(Clone, Debug)]
pub struct AssumedSession {
    /// `arn:<partition>:sts::<account>:assumed-role/<role>/<session>`.
    pub arn: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The time when it was issued, in whole seconds: what `aws:TokenIssueTime` is in its requests.
    pub issued: Timestamp,
    /// The time when it ends.
    pub expires: Timestamp,
    /// `aws:SourceIdentity`.
    pub source_identity: Option<String>,
    /// `aws:PrincipalTag/<key>` by key, as the token spells it.
    pub principal_tags: BTreeMap<String, String>,
    /// Keys of the tags that would last through a chain of roles.
    pub transitive_tag_keys: Vec<String>,
    /// `aws:OriginIdentity/…` and `aws:TransactionContext/IdentityProvider/…` by key.
    pub propagated_context: BTreeMap<String, String>,
    user_id: String,
    account: String,
    principal: Principal,
}

/// The outcome of an evaluation, by IAM's own names (`PolicyEvaluationDecisionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyDecision {
    /// `allowed`: a statement allows it and none denies it.
    Allowed,
    /// `explicitDeny`: a statement denies it, or may deny it and can't be decided here.
    ExplicitDeny,
    /// `implicitDeny`: no statement allows it.
    ImplicitDeny,
}

/// The reason why nothing was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyDecisionError {
    /// The credentials are no longer valid at that time.
    #[error("ExpiredToken: The security token included in the request is expired")]
    Expired,
    /// The policy is not one that IAM accepts.
    #[error("MalformedPolicyDocument: {0}")]
    MalformedPolicyDocument(String),
    /// The session was issued under managed session policies, whose text is not known here.
    #[error("the session has managed session policies, whose text is not known here")]
    ManagedSessionPolicies,
}

impl AssumedSession {
    pub(crate) fn of(session: &Session) -> Self {
        let principal = session.principal.clone();
        Self {
            arn: session.arn.clone(),
            role_arn: session.role_arn.clone(),
            issued: session.issued,
            expires: session.expires,
            source_identity: principal.source_identity.clone(),
            principal_tags: principal.tags.clone(),
            transitive_tag_keys: principal.transitive_tag_keys.clone(),
            propagated_context: principal.propagated.clone(),
            user_id: session.user_id.clone(),
            account: session.account.clone(),
            principal,
        }
    }

    /// Whether `policies`, the identity policies of the role, let the session do `action` (`s3:GetObject`) on `resource` (an
    /// ARN) at `now`. Policy variables such as `${aws:PrincipalTag/team}` take the session's values.
    pub fn decide(
        &self,
        policies: &[Value],
        action: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<PolicyDecision, PolicyDecisionError> {
        if now >= self.expires {
            return Err(PolicyDecisionError::Expired);
        }
        let facts = self.principal.facts_of_request(
            &PrincipalNames {
                arn: &self.role_arn,
                account: &self.account,
                user_id: &self.user_id,
                issued: Some(self.issued),
            },
            now,
        );
        let decisions = decide_both(policies, &self.principal.policies, action, resource, &facts)?;
        Ok(decisions.combined())
    }
}

/// The decisions of a principal's own policies and of those that narrow its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decisions {
    pub(crate) own: PolicyDecision,
    /// `None` without session policies.
    pub(crate) session: Option<PolicyDecision>,
}

impl Decisions {
    pub(crate) fn combined(self) -> PolicyDecision {
        match (self.own, self.session.unwrap_or(PolicyDecision::Allowed)) {
            (PolicyDecision::ExplicitDeny, _) | (_, PolicyDecision::ExplicitDeny) => PolicyDecision::ExplicitDeny,
            (PolicyDecision::Allowed, PolicyDecision::Allowed) => PolicyDecision::Allowed,
            _ => PolicyDecision::ImplicitDeny,
        }
    }
}

/// Evaluates the identity policies `own` and the session policies apart: what a trust policy grants to a role is still
/// narrowed by the latter (IAM User Guide, "Policy evaluation logic").
pub(crate) fn decide_both(
    own: &[Value],
    session: &SessionPolicies,
    action: &str,
    resource: &str,
    facts: &Facts,
) -> Result<Decisions, PolicyDecisionError> {
    let narrowing = session.documents().ok_or(PolicyDecisionError::ManagedSessionPolicies)?;
    let session = (!narrowing.is_empty())
        .then(|| decide(&narrowing, action, resource, facts))
        .transpose()?;
    Ok(Decisions {
        own: decide(own, action, resource, facts)?,
        session,
    })
}

/// Checks an identity policy as IAM does when it is attached. The error begins with the place in the document.
pub(crate) fn check_identity_policy(document: &Value) -> Result<(), String> {
    statements(document).map(drop)
}

fn decide(
    policies: &[Value],
    action: &str,
    resource: &str,
    facts: &Facts,
) -> Result<PolicyDecision, PolicyDecisionError> {
    let mut allowed = false;
    let mut denied = false;
    for policy in policies {
        for statement in statements(policy).map_err(PolicyDecisionError::MalformedPolicyDocument)? {
            let applies = statement.applies(action, resource, facts);
            denied |= !statement.allow && applies != Some(false);
            allowed |= statement.allow && applies == Some(true);
        }
    }
    Ok(match (denied, allowed) {
        (true, _) => PolicyDecision::ExplicitDeny,
        (false, true) => PolicyDecision::Allowed,
        (false, false) => PolicyDecision::ImplicitDeny,
    })
}

/// A statement of an identity policy.
struct IdentityStatement {
    allow: bool,
    actions: Vec<String>,
    /// `NotAction`.
    other_actions: bool,
    resources: Vec<String>,
    /// `NotResource`.
    other_resources: bool,
    conditions: Vec<Condition>,
    /// Policy variables are such since version 2012-10-17 of the policy language.
    variables: bool,
}

/// Reads an identity policy. The error begins with the place in the document.
fn statements(document: &Value) -> Result<Vec<IdentityStatement>, String> {
    let policy = document.as_object().ok_or("must be an object")?;
    only_known(policy, &["Version", "Id", "Statement"], "")?;
    let variables = match policy.get("Version").map(Value::as_str) {
        Some(Some("2012-10-17")) => true,
        None | Some(Some("2008-10-17")) => false,
        _ => return Err("Version: must be 2012-10-17 or 2008-10-17".to_owned()),
    };
    let list = match policy.get("Statement") {
        Some(Value::Array(list)) if !list.is_empty() => list.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => return Err("Statement: must be a statement or a list of them".to_owned()),
    };
    let list = list.into_iter().enumerate();
    list.map(|(index, value)| IdentityStatement::parse(value, variables, &format!("Statement[{index}]")))
        .collect()
}

impl IdentityStatement {
    fn parse(value: &Value, variables: bool, at: &str) -> Result<Self, String> {
        const KNOWN: &[&str] = &[
            "Sid",
            "Effect",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        let statement = value.as_object().ok_or_else(|| format!("{at}: must be an object"))?;
        only_known(statement, KNOWN, &format!("{at}."))?;
        let allow = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(format!("{at}.Effect: must be Allow or Deny")),
        };
        // One of the two, never both.
        let either = |name: &str| {
            let not = format!("Not{name}");
            match (statement.get(name), statement.get(&not)) {
                (Some(_), Some(_)) => Err(format!("{at}.{name}: excludes {not}")),
                (None, Some(other)) => Ok((texts(Some(other), &format!("{at}.{not}"))?, true)),
                (value, None) => Ok((texts(value, &format!("{at}.{name}"))?, false)),
            }
        };
        let (actions, other_actions) = either("Action")?;
        if let Some(action) = actions.iter().find(|action| *action != "*" && !action.contains(':')) {
            return Err(format!(
                "{at}.Action: {action}: must be * or begin with a service and a colon"
            ));
        }
        let (resources, other_resources) = either("Resource")?;
        Ok(Self {
            allow,
            actions,
            other_actions,
            resources,
            other_resources,
            conditions: conditions(statement.get("Condition"), variables, &format!("{at}.Condition"))?,
            variables,
        })
    }

    /// `None` when it can't be decided.
    fn applies(&self, action: &str, resource: &str, facts: &Facts) -> Option<bool> {
        let action = action.to_lowercase();
        let named = self
            .actions
            .iter()
            .any(|pattern| like(&pattern.to_lowercase(), &action));
        if named == self.other_actions {
            return Some(false);
        }
        let resource = self
            .names_resource(resource, facts)
            .map(|named| named != self.other_resources);
        match (resource, all_hold(&self.conditions, facts)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }
    }

    /// Whether one of the patterns stands for `resource`; `None` when none does and one has a variable without a value.
    fn names_resource(&self, resource: &str, facts: &Facts) -> Option<bool> {
        let mut decided = Some(false);
        for pattern in &self.resources {
            let known = self.variables || !pattern.contains("${");
            let filled = known
                .then(|| PolicyText::pattern(pattern).fill(|key| facts.text(key)))
                .flatten();
            match filled {
                Some(symbols) if matches(&symbols, resource) => return Some(true),
                Some(_) => {}
                None => decided = None,
            }
        }
        decided
    }
}

#[cfg(test)]
mod tests;
