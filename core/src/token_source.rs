//! The signer of a token.

/// The signer of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// The cluster: a projected service account token.
    ServiceAccount,
    /// SPIRE or another SPIFFE provider: a JWT-SVID.
    Spiffe,
    /// tokenscope's own OIDC issuer.
    Issuer,
}

impl TokenSource {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Spiffe => "SPIFFE",
            Self::Issuer => "Issuer",
        }
    }
}
