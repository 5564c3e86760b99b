//! The subjects that a trust policy names.

use super::{TrustContext, conditions::Comparand};
use crate::{
    Glob, Policy, PolicyName, SelectorOperator, SubjectFormat, TokenSource,
    issuer_subject::{issuer_subject, subject_pattern},
};
use std::collections::BTreeSet;

/// The label that has a namespace's name; the API server sets it and lets nobody change it (Kubernetes, well-known labels).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

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
        TokenSource::ServiceAccount => of_cluster(policy, context, notes)?,
        TokenSource::Issuer => of_issuer(policy, context, notes)?,
    };
    Some(subjects.into_iter().collect())
}

/// `system:serviceaccount:<namespace>:<name>` (Kubernetes, service account tokens), with globs where the policy has them.
fn of_cluster(policy: &Policy, context: &TrustContext<'_>, notes: &mut Vec<String>) -> Option<BTreeSet<Comparand>> {
    let namespaces = namespaces(policy, context, "", notes)?;
    note_pod_selector(policy, notes);
    let subjects = namespaces.iter().flat_map(|namespace| {
        let of_namespace = Comparand::exact(&format!("system:serviceaccount:{namespace}:"));
        service_accounts(policy).map(move |name| of_namespace.clone().then_pattern(name))
    });
    Some(subjects.collect())
}

/// As [`issuer_subject`] makes them. A subject that names the policy is signed only where the policy grants, so `*` may stand for any
/// namespace and service account there. One that doesn't is signed for other policies too: it names each namespace that is
/// selected.
fn of_issuer(policy: &Policy, context: &TrustContext<'_>, notes: &mut Vec<String>) -> Option<BTreeSet<Comparand>> {
    let format = policy.token.subject_format;
    let namespaces = match (format, &policy.name) {
        (SubjectFormat::Policy, PolicyName::Cluster { .. }) => vec!["*"],
        _ => namespaces(policy, context, ", or set spec.token.subjectFormat: Policy", notes)?,
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

/// The namespaces that subjects name: a policy's own, those that a selector names, or else those that it selects now. None where
/// they are none or too many: a document never trusts a namespace that is not selected.
fn namespaces<'a>(
    policy: &'a Policy,
    context: &TrustContext<'a>,
    remedy: &str,
    notes: &mut Vec<String>,
) -> Option<Vec<&'a str>> {
    let namespaces = match &policy.name {
        PolicyName::Namespaced { namespace, .. } => vec![&**namespace],
        PolicyName::Cluster { .. } => named_namespaces(policy).unwrap_or_else(|| {
            notes.push(format!("the namespaces are those that namespaceSelector selects now: use the document again after a change{remedy}"));
            context.namespaces.clone()
        }),
    };
    (1..=MOST_TRUSTED_NAMESPACES)
        .contains(&namespaces.len())
        .then_some(namespaces)
}

/// The namespaces that a selector names itself, so that no other can ever be selected; none where labels decide.
pub fn named_namespaces(policy: &Policy) -> Option<Vec<&str>> {
    let mut requirements = policy.namespace_selector.0.iter().map(|requirement| {
        let names = match &requirement.operator {
            SelectorOperator::In(names) if *requirement.key == *NAMESPACE_NAME_LABEL => Some(names),
            _ => None,
        };
        names.map(|names| names.iter().map(|name| &**name).collect::<BTreeSet<&str>>())
    });
    let first = requirements.next()??;
    let named = requirements.try_fold(first, |named, next| Some(&named & &next?))?;
    Some(named.into_iter().filter(|name| is_namespace(name)).collect())
}

/// True if a namespace may have this name, so that nothing in it has a meaning of its own.
fn is_namespace(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// True if a trust policy names the namespaces that a cluster policy's selector selects now: its subjects name no policy, and the
/// selector names no namespaces.
pub fn names_selected_namespaces(policy: &Policy) -> bool {
    let names_no_policy = match policy.token.source {
        TokenSource::ServiceAccount => true,
        TokenSource::Issuer => policy.token.subject_format == SubjectFormat::ServiceAccount,
        TokenSource::Spiffe => false,
    };
    names_no_policy && policy.name.is_cluster() && named_namespaces(policy).is_none()
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
