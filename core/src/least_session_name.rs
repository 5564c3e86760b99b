//! The length of role session names as far as it is known before any pod.

use std::borrow::Cow;

use crate::{Policy, Subject, Template, Variable, Variables, named_namespaces};

/// The fewest characters that a policy's session name has in any pod; none where it has no such name.
pub fn least_session_name(policy: &Policy) -> Option<usize> {
    let template = policy.aws.role_session_name.as_ref()?;
    Some(Shortest::of(policy).least(template))
}

/// The same of the names that the roles of its chains give their sessions: that of the longest.
pub fn least_session_name_of_chains(policy: &Policy) -> Option<usize> {
    let shortest = Shortest::of(policy);
    let names = policy.hops().filter_map(|hop| hop.session_name.as_ref());
    names.map(|name| shortest.least(name)).max()
}

/// The shortest values that any pod of a policy can have.
struct Shortest<'a> {
    namespace: Option<&'a str>,
    service_account: Option<String>,
}

impl<'a> Shortest<'a> {
    fn of(policy: &'a Policy) -> Self {
        let named = || named_namespaces(policy)?.into_iter().min_by_key(|name| name.len());
        // A subject without names is about any; `*` may stand for nothing.
        let of_subject = |subject: &Subject| {
            let names = subject.service_accounts.iter();
            let least = names.map(|name| name.as_str().replace('*', ""));
            least.min_by_key(String::len).unwrap_or_default()
        };
        Self {
            namespace: policy.name.namespace().or_else(named),
            service_account: policy.subjects.iter().map(of_subject).min_by_key(String::len),
        }
    }

    /// The fewest characters of a template.
    fn least(&self, template: &Template) -> usize {
        let pieces = template.pieces(self).flatten();
        pieces.map(|piece| piece.chars().count()).sum()
    }
}

impl Variables for Shortest<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::Namespace => self.namespace.map(Cow::Borrowed),
            Variable::ServiceAccount => self.service_account.as_deref().map(Cow::Borrowed),
            Variable::NamespaceLabel(_) | Variable::PodName | Variable::PodUid | Variable::PodLabel(_) => None,
        }
    }
}
