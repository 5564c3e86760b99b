//! The IAM trust policy that lets exactly a policy's subjects assume a role.

use crate::{Audience, Glob, Policy, PolicyName, RoleArn, TokenSource};
use serde::Serialize;
use std::collections::BTreeMap;

/// A trust policy document and what it can't say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy {
    /// The document, ready to paste into IAM.
    pub document: Document,
    /// Where the document allows more than the policy does, or may not fit.
    pub notes: Vec<String>,
}

/// An IAM policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    effect: &'static str,
    principal: BTreeMap<&'static str, String>,
    action: &'static str,
    condition: BTreeMap<&'static str, BTreeMap<String, ConditionValues>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum ConditionValues {
    One(String),
    Many(Vec<String>),
}

/// The most bytes of a trust policy that IAM takes by default (IAM quotas, "Role trust policy length").
const MOST_BYTES: usize = 2048;

/// Writes the trust policy of `role` for tokens that the cluster or a SPIFFE provider signs.
///
/// `issuer` is the issuer of these tokens, an https URL. The conditions are on `aud` and `sub`, since AWS offers no other
/// claim of such a token as a condition key (AWS IAM user guide, "Available keys for AWS OIDC federation").
///
/// None where the policy leaves to a SPIFFE provider which identity its workloads have: a document that trusts all of a
/// trust domain would let each of its workloads take the role.
pub fn trust_policy(policy: &Policy, role: &RoleArn, issuer: &str, default_audience: &Audience) -> Option<TrustPolicy> {
    let provider = issuer.strip_prefix("https://").unwrap_or(issuer);
    let mut notes = Vec::new();
    let subjects = match policy.token.source {
        TokenSource::Spiffe => {
            let id = policy.token.spiffe.id.as_ref()?;
            notes.push(
                "which workloads get this SPIFFE ID is said by the SPIFFE provider's entries and not by subjects"
                    .into(),
            );
            vec![id.to_string()]
        }
        TokenSource::ServiceAccount | TokenSource::Issuer => subjects(policy, &mut notes),
    };
    let audiences = match (&policy.audiences.default, policy.audiences.allowed.as_slice()) {
        (default, []) => vec![default.as_ref().unwrap_or(default_audience).to_string()],
        (_, allowed) => allowed.iter().map(Audience::to_string).collect(),
    };

    let mut condition: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    condition
        .entry("StringEquals")
        .or_default()
        .insert(format!("{provider}:aud"), values(audiences));
    let operator = if subjects.iter().any(|subject| subject.contains('*')) {
        "StringLike"
    } else {
        "StringEquals"
    };
    condition
        .entry(operator)
        .or_default()
        .insert(format!("{provider}:sub"), values(subjects));

    let document = Document {
        version: "2012-10-17",
        statement: vec![Statement {
            effect: "Allow",
            principal: BTreeMap::from([(
                "Federated",
                format!(
                    "arn:{}:iam::{}:oidc-provider/{provider}",
                    role.partition(),
                    role.account()
                ),
            )]),
            action: "sts:AssumeRoleWithWebIdentity",
            condition,
        }],
    };
    let bytes = serde_json::to_string(&document).map_or(0, |text| text.len());
    if bytes > MOST_BYTES {
        notes.push(format!(
            "the document has {bytes} bytes; IAM takes {MOST_BYTES} unless the account's quota was raised"
        ));
    }
    Some(TrustPolicy { document, notes })
}

/// `system:serviceaccount:<namespace>:<name>` (Kubernetes, service account tokens), with globs where the policy has them.
fn subjects(policy: &Policy, notes: &mut Vec<String>) -> Vec<String> {
    let namespace = match &policy.name {
        PolicyName::Namespaced { namespace, .. } => namespace,
        PolicyName::Cluster { .. } => {
            if !policy.namespace_selector.0.is_empty() {
                notes.push("a trust policy can't express namespaceSelector, so every namespace is trusted: name the namespaces by hand where that is too much".into());
            }
            "*"
        }
    };
    if policy.subjects.iter().any(|subject| subject.pod_selector.is_some()) {
        notes
            .push("a trust policy can't express podSelector, so every pod of these service accounts is trusted".into());
    }
    let mut subjects: Vec<_> = policy
        .subjects
        .iter()
        .flat_map(|subject| match subject.service_accounts.as_slice() {
            [] => vec!["*"],
            names => names.iter().map(Glob::as_str).collect(),
        })
        .map(|name| format!("system:serviceaccount:{namespace}:{name}"))
        .collect();
    subjects.sort();
    subjects.dedup();
    subjects
}

fn values(mut values: Vec<String>) -> ConditionValues {
    match values.len() {
        1 => ConditionValues::One(values.remove(0)),
        _ => ConditionValues::Many(values),
    }
}
