//! The permission that a role needs to have AWS sign a policy's tokens for third parties.
//!
//! `sts:GetWebIdentityToken` is allowed by an identity policy of the role, and bounded there by condition keys of the request: the
//! audiences (a list, so `ForAllValues`; the parameter is required, so the list is never empty), the algorithm and the lifetime (IAM User Guide,
//! "Outbound identity federation"). Scopes need a permission of their own.

use std::collections::BTreeSet;
use std::iter::once;

use serde::Serialize;

use crate::delivery::Delivery;
use crate::outbound::{AwsSubject, AwsToken, OutboundToken};
use crate::trust_policy::{Admitted, Conditions, limit, note_pod_selector};
use crate::{Policy, RoleArn};

/// The tokens that the permission allows and the policy does not.
const SIGNATURES: Admitted = Admitted {
    document: "a permission policy",
    ends: "AWS signs no token for running pods either",
    lasts: "tokens that were signed",
    at_any_time: "tokens can be asked for at any time",
    any_container: "tokens can be asked for by every container that has a session of the role",
    any_pod: "tokens can be asked for by every pod that has a session of the role",
    unnarrowed: "sessions of the role that it doesn't narrow can ask for tokens too",
};

/// A role with whose credentials tokens for third parties are asked for, and the permission that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundPermission {
    /// The role.
    pub role: RoleArn,
    /// Its identity policy.
    pub permission_policy: PermissionDocument,
    /// The notes about what the document doesn't say.
    pub notes: Vec<String>,
}

/// An identity policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PermissionDocument {
    version: &'static str,
    statement: Vec<PermissionStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PermissionStatement {
    effect: &'static str,
    action: &'static str,
    resource: &'static str,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    condition: Conditions,
}

/// The roles that AWS signs a policy's tokens for, each with the permission that it needs, by name; none where AWS signs none.
pub fn outbound_permissions(policy: &Policy) -> Vec<OutboundPermission> {
    let tokens = policy.outbound.iter();
    let tokens: Vec<_> = tokens.filter_map(|token| Some((token, token.aws()?))).collect();
    if tokens.is_empty() {
        return Vec::new();
    }
    let mut condition = Conditions::default();
    let mut limits = Vec::new();
    limit(policy, &SIGNATURES, &mut condition, &mut limits);
    note_pod_selector(policy, &SIGNATURES, &mut limits);
    let document = PermissionDocument {
        version: "2012-10-17",
        statement: statements(&tokens, &condition),
    };
    let notes = [notes(policy, &tokens), limits].concat();
    // The credentials are those of the last role that is taken.
    let last = policy.aws.role_chain.last();
    let roles: BTreeSet<RoleArn> = match last {
        Some(hop) => [hop.role.clone()].into(),
        None => policy.roles.exact().collect(),
    };
    let permission = |role| OutboundPermission {
        role,
        permission_policy: document.clone(),
        notes: notes.clone(),
    };
    roles.into_iter().map(permission).collect()
}

/// One for each token, under this condition too.
fn statements(tokens: &[(&OutboundToken, &AwsToken)], limits: &Conditions) -> Vec<PermissionStatement> {
    let allow = |action, condition| PermissionStatement {
        effect: "Allow",
        action,
        resource: "*",
        condition,
    };
    let one = |(token, aws): &(&OutboundToken, &AwsToken)| {
        let mut condition = limits.clone();
        condition.only("sts:IdentityTokenAudience", once(token.audience.as_str()));
        condition.equals("sts:SigningAlgorithm", once(aws.algorithm.as_str()));
        condition.at_most("sts:DurationSeconds", token.expiration.seconds());
        allow("sts:GetWebIdentityToken", condition)
    };
    let has_scope = tokens.iter().any(|(_, aws)| aws.subject.scope().is_some());
    // Without the statements above it allows nothing.
    let scope = has_scope.then(|| allow("sts:SetWebIdentityTokenScope", limits.clone()));
    tokens.iter().map(one).chain(scope).collect()
}

fn notes(policy: &Policy, tokens: &[(&OutboundToken, &AwsToken)]) -> Vec<String> {
    let mut notes = vec![
        "the role's account has to have outbound federation enabled (aws iam enable-outbound-web-identity-federation)"
            .to_owned(),
        "not yet seen by AWS: only tokenscope's own stand-in for AWS has judged such tokens and this permission"
            .to_owned(),
        "every session of the role can ask for these tokens, whoever has it: also pods of other policies that have the role, and others whom the role trusts".to_owned(),
    ];
    let has_patterns = policy.roles.allowed.iter().any(|pattern| pattern.exact().is_none());
    if policy.aws.role_chain.is_empty() && has_patterns {
        notes.push("spec.roles.allowed has patterns, which no document can name: give the same permission to each role that they stand for".to_owned());
    }
    if let Delivery::Endpoint(endpoint) = &policy.delivery
        && !endpoint.policy.is_empty()
    {
        notes.push(
            "spec.aws.sessionPolicy narrows what the role may do: it has to allow sts:GetWebIdentityToken too"
                .to_owned(),
        );
    }
    if tokens.iter().any(|(_, aws)| aws.subject != AwsSubject::Role) {
        notes.push("OriginIdentity needs a session with the subject of the pod's token, which the IAM provider's context provider takes from it".to_owned());
    }
    notes
}
