//! Session policies, as both ways to take a role have them.
//!
//! STS API reference, AssumeRole: one inline policy and up to ten managed ones, which "must exist in the same account as the
//! role"; the plain text of both together has at most 2,048 characters.

use serde_json::Value;

use crate::aws_error::AwsError;
use crate::names::{AssumableRole, is_policy_arn_of};

/// The plain text of an inline session policy and the ARNs of managed ones together, in characters.
const MAX_SESSION_POLICY: usize = 2048;

/// The policies that narrow a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionPolicies {
    pub(crate) inline: Option<Value>,
    /// ARNs of managed ones.
    pub(crate) managed: Vec<String>,
    /// The documents of those managed ones that the stand-in knows.
    pub(crate) managed_documents: Vec<Value>,
    /// Characters of the plain text.
    pub(crate) size: usize,
}

impl SessionPolicies {
    /// Checks what a request for `role` gives.
    pub(crate) fn check(policy: Option<&str>, arns: &[&str], role: &AssumableRole) -> Result<Self, AwsError> {
        if let Some(arn) = arns.iter().find(|arn| !is_policy_arn_of(arn, role)) {
            let message = format!("{arn} is not a managed policy of the role's account or of AWS");
            return Err(AwsError::validation(message));
        }
        let inline = policy.map(check_session_policy).transpose()?;
        let size = arns
            .iter()
            .copied()
            .chain(policy)
            .map(|text| text.chars().count())
            .sum();
        let policies = Self {
            inline,
            managed: arns.iter().map(|arn| (*arn).to_owned()).collect(),
            managed_documents: Vec::new(),
            size,
        };
        match policies.packed() {
            Some(percent) if percent > 100 => {
                let message =
                    format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
                Err(AwsError::new(400, "PackedPolicyTooLarge", message))
            }
            _ => Ok(policies),
        }
    }

    /// All documents, which together allow what any of them allows; `None` when one is not known here.
    pub(crate) fn documents(&self) -> Option<Vec<Value>> {
        let known = self.managed.len() == self.managed_documents.len();
        known.then(|| self.inline.iter().chain(&self.managed_documents).cloned().collect())
    }

    /// What there is, for the log: `none`, or the inline policy as JSON and the ARNs of managed ones.
    pub(crate) fn described(&self) -> String {
        let inline = self.inline.as_ref().map(ToString::to_string);
        let all: Vec<String> = inline.into_iter().chain(self.managed.clone()).collect();
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(" ")
        }
    }

    /// The percent of the space for session policies that is used, if there are any.
    pub(crate) fn packed(&self) -> Option<usize> {
        (self.size > 0).then(|| (self.size * 100).div_ceil(MAX_SESSION_POLICY))
    }
}

fn check_session_policy(policy: &str) -> Result<Value, AwsError> {
    let Ok(document) = serde_json::from_str::<Value>(policy) else {
        return Err(AwsError::malformed_policy("This policy contains invalid Json"));
    };
    let statements = match &document["Statement"] {
        Value::Array(list) if !list.is_empty() => list.iter().collect(),
        one @ Value::Object(_) => vec![one],
        _ => return Err(AwsError::malformed_policy("Syntax errors in policy.")),
    };
    if statements
        .iter()
        .any(|statement| !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")))
    {
        return Err(AwsError::malformed_policy("Syntax errors in policy."));
    }
    if statements.iter().any(|statement| {
        statement
            .get("Principal")
            .or_else(|| statement.get("NotPrincipal"))
            .is_some()
    }) {
        return Err(AwsError::malformed_policy(
            "Policy document should not specify a principal.",
        ));
    }
    Ok(document)
}
