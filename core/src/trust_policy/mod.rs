//! The IAM trust policy that lets exactly a policy's subjects assume a role.

mod conditions;
mod limits;
mod subjects;
mod unserved;

use std::collections::BTreeMap;

pub(crate) use conditions::Conditions;
use conditions::Texts;
use jiff::Timestamp;
pub use limits::never_grants;
pub(crate) use limits::{Admitted, grants_nothing, limit, note_length, note_pod_selector};
use serde::Serialize;
pub use subjects::{MOST_TRUSTED_NAMESPACES, NAMESPACE_NAME_LABEL, named_namespaces, names_selected_namespaces};
pub use unserved::Unserved;

use crate::{Audience, Claims, ClusterName, Policy, RoleArn, TokenSource};

/// A trust policy document and what it can't say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy {
    /// The document, ready to paste into IAM.
    pub document: Document,
    /// The places where the document allows more than the policy does, or may not fit.
    pub notes: Vec<String>,
}

/// The context of a trust policy, beside the policy and the role.
#[derive(Clone, Debug)]
pub struct TrustContext<'a> {
    /// The issuer of the tokens, an https URL.
    pub issuer: &'a str,
    /// The audience of tokens where the policy names none.
    pub default_audience: &'a Audience,
    /// The cluster's name before the subjects of tokenscope's own issuer.
    pub cluster: Option<&'a ClusterName>,
    /// The namespaces that a cluster policy's selector selects now. They are read where [`names_selected_namespaces`] says so.
    pub namespaces: Vec<&'a str>,
    /// Those that get nothing although the policy may select them; a note names the ones whose tokens the document trusts.
    pub unserved: &'a Unserved<'a>,
    /// The present time: a policy that is over grants nothing more.
    pub now: Timestamp,
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
    action: Texts,
    condition: Conditions,
}

/// Writes the trust policy of `role` for tokens that the cluster, a SPIFFE provider or tokenscope's own issuer signs.
///
/// The conditions are on `aud` and `sub`, since AWS offers no other claim of such a token as a condition key (AWS IAM user guide,
/// "Available keys for AWS OIDC federation"), and on session tags and source identity where the policy has tokens carry them.
///
/// None where the policy never grants anything, and where no document is narrow enough: where the policy leaves to a SPIFFE
/// provider which identity its workloads have, or where the selected namespaces are none or too many to name.
pub fn trust_policy(policy: &Policy, role: &RoleArn, context: &TrustContext<'_>) -> Option<TrustPolicy> {
    if never_grants(policy, context.now).is_some() {
        return None;
    }
    let provider = context.issuer.strip_prefix("https://").unwrap_or(context.issuer);
    let mut notes = Vec::new();
    let mut condition = Conditions::default();
    let default = policy.audiences.or_default(context.default_audience)?;
    let audiences = match policy.audiences.allowed.as_slice() {
        [] => vec![default],
        allowed => allowed.iter().collect(),
    };
    condition.equals(&format!("{provider}:aud"), audiences.iter().map(|text| text.as_str()));
    condition.add(&format!("{provider}:sub"), subjects::of(policy, context, &mut notes)?);
    let mut actions = vec!["sts:AssumeRoleWithWebIdentity".to_owned()];
    if policy.token.source == TokenSource::Issuer {
        actions.extend(session_actions(&policy.claims).map(str::to_owned));
        condition.add_claims(policy);
    }
    limit(policy, &limits::TOKENS, &mut condition, &mut notes);
    limits::note_duration(policy, &mut notes);

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
            action: Texts::of(actions),
            condition,
        }],
    };
    note_length(&document, &mut notes);
    Some(TrustPolicy { document, notes })
}

/// What a role must allow beside its assumption: STS refuses tokens with tags or a source identity otherwise (IAM user guide,
/// "Passing session tags in AWS STS", "Monitor and control actions taken with assumed roles").
fn session_actions(claims: &Claims) -> impl Iterator<Item = &'static str> {
    let tags = (!claims.principal_tags.is_empty()).then_some("sts:TagSession");
    let identity = claims.source_identity.as_ref().map(|_| "sts:SetSourceIdentity");
    tags.into_iter().chain(identity)
}
