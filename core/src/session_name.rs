//! The length of role session names, as far as it is known before any pod.

use crate::{Policy, Variable, Variables};
use std::borrow::Cow;

/// The most bytes of a role session name (AssumeRoleWithWebIdentity).
pub const MOST_SESSION_NAME: usize = 64;

/// The fewest characters that a policy's session name has in any pod; none where it has no such name.
pub fn least_session_name(policy: &Policy) -> Option<usize> {
    let template = policy.aws.role_session_name.as_ref()?;
    let known = Known(policy);
    let pieces = template.pieces(&known);
    Some(pieces.flatten().map(|piece| piece.chars().count()).sum())
}

/// What is the same in every pod of a policy.
struct Known<'a>(&'a Policy);

impl Variables for Known<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::Namespace => self.0.name.namespace().map(Cow::Borrowed),
            _ => None,
        }
    }
}
