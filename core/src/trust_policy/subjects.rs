//! The subjects that a trust policy names.

use super::{TrustContext, conditions::Comparand};
use crate::{
    Glob, Policy, PolicyName, SubjectFormat, TokenSource,
    issuer_subject::{issuer_subject, subject_pattern},
};
use std::collections::BTreeSet;

/// The most namespaces that a document names: more than fit into what IAM takes at most (IAM quotas, "Role trust policy length").
pub const MOST_TRUSTED_NAMESPACES: usize = 100;

/// The subjects of a policy's tokens; none where they can't be told from others'.
pub(super) fn of(policy: &Policy, context: &TrustContext<'_>, notes: &mut Vec<String>) -> Option<Vec<Comparand>> {
    let subjects: BTreeSet<Comparand> = match policy.token.source {
        TokenSource::Spiffe => {
            let id = policy.token.spiffe.id.as_ref()?;
            notes.push(
                "which workloads get this SPIFFE ID is said by the SPIFFE provider's entries and not by subjects"
                    .into(),
            );
            [Comparand::exact(&id.to_string())].into()
        }
        TokenSource::ServiceAccount => of_cluster(policy, notes),
        TokenSource::Issuer => of_issuer(policy, context, notes)?,
    };
    Some(subjects.into_iter().collect())
}

/// `system:serviceaccount:<namespace>:<name>` (Kubernetes, service account tokens), with globs where the policy has them.
fn of_cluster(policy: &Policy, notes: &mut Vec<String>) -> BTreeSet<Comparand> {
    let namespace = match &policy.name {
        PolicyName::Namespaced { namespace, .. } => namespace,
        PolicyName::Cluster { .. } => {
            if !policy.namespace_selector.0.is_empty() {
                notes.push("a trust policy can't express namespaceSelector, so every namespace is trusted: name the namespaces by hand where that is too much".into());
            }
            "*"
        }
    };
    note_pod_selector(policy, notes);
    service_accounts(policy)
        .map(|name| Comparand::pattern(&format!("system:serviceaccount:{namespace}:{name}")))
        .collect()
}

/// As [`issuer_subject`] makes them. A subject that names the policy is signed only where the policy grants, so `*` may stand for any
/// namespace and service account there. One that doesn't is signed for other policies too: it names each namespace that is
/// selected.
fn of_issuer(policy: &Policy, context: &TrustContext<'_>, notes: &mut Vec<String>) -> Option<BTreeSet<Comparand>> {
    let format = policy.token.subject_format;
    let namespaces = match &policy.name {
        PolicyName::Namespaced { namespace, .. } => vec![&**namespace],
        PolicyName::Cluster { .. } if !names_selected_namespaces(policy) => vec!["*"],
        PolicyName::Cluster { .. } => {
            if !(1..=MOST_TRUSTED_NAMESPACES).contains(&context.namespaces.len()) {
                return None;
            }
            notes.push("the namespaces are those that namespaceSelector selects now: use the document again after a change, or set spec.token.subjectFormat: Policy".into());
            context.namespaces.clone()
        }
    };
    if format == SubjectFormat::ServiceAccount {
        note_pod_selector(policy, notes);
        notes.push("these subjects name no policy, so tokens that other policies with source Issuer give the same service accounts are trusted too: spec.token.subjectFormat: Policy prevents that".into());
    }
    let mut subjects = BTreeSet::new();
    for namespace in namespaces {
        for name in service_accounts(policy) {
            subjects.insert(if [namespace, name].iter().any(|field| field.contains('*')) {
                Comparand::pattern(&subject_pattern(format, &policy.name, namespace, name, context.cluster))
            } else {
                Comparand::exact(&issuer_subject(format, &policy.name, namespace, name, context.cluster))
            });
        }
    }
    Some(subjects)
}

/// True if a trust policy has to name the namespaces that a cluster policy selects: its subjects are those of tokenscope's
/// own issuer and name no policy.
pub fn names_selected_namespaces(policy: &Policy) -> bool {
    policy.token.source == TokenSource::Issuer
        && policy.token.subject_format == SubjectFormat::ServiceAccount
        && policy.name.is_cluster()
        && !policy.namespace_selector.0.is_empty()
}

fn note_pod_selector(policy: &Policy, notes: &mut Vec<String>) {
    if policy.subjects.iter().any(|subject| subject.pod_selector.is_some()) {
        notes
            .push("a trust policy can't express podSelector, so every pod of these service accounts is trusted".into());
    }
}

/// Names or globs.
fn service_accounts(policy: &Policy) -> impl Iterator<Item = &str> {
    policy
        .subjects
        .iter()
        .flat_map(|subject| match subject.service_accounts.as_slice() {
            [] => vec!["*"],
            names => names.iter().map(Glob::as_str).collect(),
        })
}
