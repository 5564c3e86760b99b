//! Workloads that a policy selects and that get nothing from tokenscope. AWS accepts the cluster's tokens of these workloads all the same.

use std::collections::BTreeSet;

use crate::text::{bounded, some_of};
use crate::{Policy, annotations};

/// The most bytes of a note: the schema of the status takes no more.
const MOST_NOTE_BYTES: usize = 1024;

/// Namespaces and service accounts that opt out, or that are left alone for another reason.
#[derive(Clone, Debug, Default)]
pub struct Unserved<'a> {
    /// Namespaces of which no pod gets anything.
    pub namespaces: BTreeSet<&'a str>,
    /// The namespaces and names of service accounts that opt out by their annotation.
    pub service_accounts: Vec<(&'a str, &'a str)>,
    /// The namespaces and names of service accounts whose role an association of EKS Pod Identity decides, and no policy.
    pub associated: Vec<(&'a str, &'a str)>,
    /// True if there are more service accounts with annotations than were looked at.
    pub is_incomplete: bool,
}

impl Unserved<'_> {
    /// Names those among the subjects of a document that trusts these namespaces. Only tokens that the API server signs matter: our
    /// own issuer signs none for them.
    pub(super) fn note(&self, policy: &Policy, trusted: &[&str], notes: &mut Vec<String>) {
        let key = annotations::INJECT;
        let alone = |namespace: &str| self.namespaces.contains(namespace);
        let namespaces: Vec<&str> = trusted.iter().copied().filter(|namespace| alone(namespace)).collect();
        if !namespaces.is_empty() {
            let text = format!(
                "no pod of these namespaces gets anything from tokenscope, since they have the label {key}: \"false\" or too many labels, or are tokenscope's own; yet the document trusts their tokens: {}",
                some_of(&namespaces)
            );
            notes.push(bounded(text, MOST_NOTE_BYTES));
        }
        let trusted: BTreeSet<&str> = trusted.iter().copied().filter(|namespace| !alone(namespace)).collect();
        let named = |accounts: &[(&str, &str)]| {
            let accounts = accounts.iter();
            let accounts = accounts.filter(|(namespace, name)| trusted.contains(namespace) && names(policy, name));
            let accounts: Vec<String> = accounts
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect();
            (!accounts.is_empty()).then(|| some_of(&accounts))
        };
        if let Some(accounts) = named(&self.service_accounts) {
            let text = format!(
                "the document trusts the tokens of service accounts that opt out by their annotation {key}; take it off them, or have spec.subjects not name them: {accounts}"
            );
            notes.push(bounded(text, MOST_NOTE_BYTES));
        }
        if let Some(accounts) = named(&self.associated) {
            let text = format!(
                "the document trusts the tokens of service accounts whose role an association of EKS Pod Identity decides, so no pod of theirs gets this one from tokenscope; take them out of eksPodIdentity.config, or have spec.subjects not name them: {accounts}"
            );
            notes.push(bounded(text, MOST_NOTE_BYTES));
        }
        if self.is_incomplete {
            notes.push(format!(
                "these namespaces have more service accounts with annotations than were looked at; if others of them opt out by {key}, the document trusts their tokens too"
            ));
        }
    }
}

/// True if a subject of the policy names this service account.
fn names(policy: &Policy, service_account: &str) -> bool {
    let mut subjects = policy.subjects.iter();
    subjects.any(|subject| subject.matches_service_account(service_account))
}
