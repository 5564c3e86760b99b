//! The issuer of the cluster's ServiceAccount tokens.

/// The issuer, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// This one.
    Known(String),
    /// The API server was asked and has not answered (yet).
    Unknown,
}
