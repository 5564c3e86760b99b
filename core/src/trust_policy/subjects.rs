//! The subjects that a trust policy names.

use std::collections::BTreeSet;

use super::TrustContext;
use super::conditions::Comparand;
use super::limits::{TOKENS, note_pod_selector};
use crate::issuer_subject::{MOST_SUBJECT, issuer_subject, room_in, subject_pattern};
use crate::{Glob, Policy, PolicyName, SelectorOperator, SubjectFormat, TokenSource};

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
    note_pod_selector(policy, &TOKENS, notes);
    context.unserved.note(policy, &namespaces, notes);
    let accounts: Vec<&str> = service_accounts(policy).collect();
    let subjects = namespaces.iter().flat_map(|namespace| {
        let of_namespace = Comparand::exact(&format!("system:serviceaccount:{namespace}:"));
        accounts.iter().map(move |name| of_namespace.clone().then_pattern(name))
    });
    Some(subjects.collect())
}

/// As [`issuer_subject`] makes them. A subject that names the policy is signed only where the policy grants, so `*` may stand for any
/// namespace and service account there. One that doesn't is signed for other policies too: it names each namespace that is
/// selected.
fn of_issuer(policy: &Policy, context: &TrustContext<'_>, notes: &mut Vec<String>) -> Option<BTreeSet<Comparand>> {
    let format = policy.token.subject_format;
    let accounts: Vec<&str> = service_accounts(policy).collect();
    let namespaces = match (format, &policy.name) {
        (SubjectFormat::Policy, PolicyName::Cluster { .. }) => beside_policy(policy, accounts.len(), notes)?,
        _ => namespaces(policy, context, ", or set spec.token.subjectFormat: Policy", notes)?,
    };
    if format == SubjectFormat::ServiceAccount {
        note_pod_selector(policy, &TOKENS, notes);
        notes.push("these subjects name no policy, so tokens that other policies with source Issuer give the same service accounts are trusted too: spec.token.subjectFormat: Policy prevents that".into());
    }
    let mut subjects = BTreeSet::new();
    let mut hashed = BTreeSet::new();
    for namespace in namespaces {
        for &name in &accounts {
            subjects.insert(if [namespace, name].iter().any(|field| field.contains('*')) {
                let pattern = subject_pattern(format, &policy.name, namespace, name, context.cluster);
                hashed.extend(Hashed::beside(&pattern, namespace, name));
                Comparand::pattern(&pattern)
            } else {
                Comparand::exact(&issuer_subject(format, &policy.name, namespace, name, context.cluster))
            });
        }
    }
    Hashed::note(&hashed, notes);
    Some(subjects)
}

/// The most subjects with the names of namespaces where `*` would do: some twenty fit into what IAM takes by default.
const MOST_WITHOUT_NEED: usize = 20;

/// The namespaces of a cluster policy's subjects that name the policy: those that its selector names, where they are few, or else `*`. None
/// where the selector names none, so that none is ever selected.
fn beside_policy<'a>(policy: &'a Policy, accounts: usize, notes: &mut Vec<String>) -> Option<Vec<&'a str>> {
    let named = named_namespaces(policy);
    if named.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let few = named.filter(|named| named.len().saturating_mul(accounts) <= MOST_WITHOUT_NEED);
    Some(few.unwrap_or_else(|| {
        notes.push("the subjects have * for the namespace: tokenscope's issuer signs tokens that name this policy only in namespaces that it selects".into());
        vec!["*"]
    }))
}

/// The longest name of a namespace (RFC 1123 label).
const MOST_NAMESPACE: usize = 63;
/// The longest name of a service account (RFC 1123 subdomain).
const MOST_SERVICE_ACCOUNT: usize = 253;

/// Names that make a subject too long to be written out, so that it is a hash, which no pattern matches. The kind that has the least
/// room comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hashed<'a> {
    /// Those of service accounts of a namespace, beyond so many characters.
    ServiceAccounts(usize, &'a str),
    /// Those of namespaces.
    Namespaces(usize),
    /// Those of namespaces and service accounts together.
    Together(usize),
}

impl<'a> Hashed<'a> {
    /// Those that a pattern with this namespace and this service account does not match, if Kubernetes allows such long ones.
    fn beside(pattern: &str, namespace: &'a str, service_account: &str) -> Option<Self> {
        let (of_namespace, of_account) = (namespace.contains('*'), service_account.contains('*'));
        let starred = |is_starred: bool, field: &str| if is_starred { field.len() } else { 0 };
        let starred = starred(of_namespace, namespace) + starred(of_account, service_account);
        let room = room_in(pattern, starred);
        let (hashed, longest) = match (of_namespace, of_account) {
            (false, _) => (Self::ServiceAccounts(room, namespace), MOST_SERVICE_ACCOUNT),
            (true, false) => (Self::Namespaces(room), MOST_NAMESPACE),
            (true, true) => (Self::Together(room), MOST_NAMESPACE + MOST_SERVICE_ACCOUNT),
        };
        (room < longest).then_some(hashed)
    }

    /// One note for each kind, by the pattern that has the least room.
    fn note(hashed: &BTreeSet<Self>, notes: &mut Vec<String>) {
        let mut last = None;
        for one in hashed {
            let kind = std::mem::discriminant(one);
            if last.replace(kind) == Some(kind) {
                continue;
            }
            let (whose, remedy) = match one {
                Self::ServiceAccounts(room, namespace) => (
                    format!("service accounts of namespace {namespace} whose names have more than {room} characters"),
                    "name these service accounts in spec.subjects without *",
                ),
                Self::Namespaces(room) => (
                    format!("namespaces whose names have more than {room} characters"),
                    "give the policy a shorter name, or name the namespaces in namespaceSelector and set spec.token.subjectFormat: ServiceAccount",
                ),
                Self::Together(room) => (
                    format!(
                        "pods whose namespace and service account have names of more than {room} characters together"
                    ),
                    "use shorter names there",
                ),
            };
            notes.push(format!(
                "a subject of more than {MOST_SUBJECT} characters is signed as a hash, which no pattern with * matches, so AWS refuses the tokens of {whose}: {remedy}"
            ));
        }
    }
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

/// Names or globs, of the subjects that can mean a pod.
fn service_accounts(policy: &Policy) -> impl Iterator<Item = &str> {
    let subjects = policy.subjects.iter().filter(|subject| !subject.means_no_pod());
    subjects.flat_map(|subject| match subject.service_accounts.as_slice() {
        [] => vec!["*"],
        names => names.iter().map(Glob::as_str).collect(),
    })
}
