//! The subject of a token that tokenscope's issuer signs.

/// What the subject of an issuer's token names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SubjectFormat {
    /// Namespace and service account, as in the cluster's own tokens.
    #[default]
    ServiceAccount,
    /// The policy too, so that AWS can demand a certain one.
    Policy,
}
