//! Role session names.

/// The most bytes of a role session name (AssumeRoleWithWebIdentity).
pub const MOST_SESSION_NAME: usize = 64;

/// A role session name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionName {
    /// The pod's name, which nobody knows before the API server generated it: the downward API fills it in.
    PodName,
    /// This text, which fits STS's `[\w+=,.@-]{2,64}`.
    Text(Box<str>),
}
