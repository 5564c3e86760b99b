//! The signer of a token.

use crate::TokenSource;

/// The signer of a token, for a role or for a third party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signer {
    /// A source whose tokens roles can be taken with.
    Token(TokenSource),
    /// AWS, with the credentials of a role, for third parties alone.
    Aws,
}

impl Signer {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token(source) => source.as_str(),
            Self::Aws => "AWS",
        }
    }
}

impl From<TokenSource> for Signer {
    fn from(source: TokenSource) -> Self {
        Self::Token(source)
    }
}
