//! Tokens for third parties that AWS signs for a role (STS service model of November 2026, `GetWebIdentityToken`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;

/// The longest lifetime of such a token, in seconds (`DurationSeconds`).
pub const LONGEST_AWS_TOKEN: u32 = 3600;
/// The most characters of its scopes (`Scope`).
pub const MOST_AWS_SCOPE: usize = 256;

/// The parts of a request to AWS beside the audience and the lifetime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AwsToken {
    /// The algorithm of the signature.
    pub algorithm: AwsAlgorithm,
    /// The identity that is named in `sub`.
    pub subject: AwsSubject,
}

/// The algorithm that AWS signs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AwsAlgorithm {
    /// RSA with SHA-256, which every party knows.
    #[default]
    RS256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
}

/// The identity that is named in the token's `sub` (`SubjectMode`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AwsSubject {
    /// The role's ARN (`AWSIdentity`).
    #[default]
    Role,
    /// The subject that the role's identity provider took from the pod's token (`OriginIdentity`).
    Origin {
        /// The token's scopes, which only such a token has.
        scope: Option<AwsScope>,
    },
}

impl AwsAlgorithm {
    /// The word of the API, ours and AWS's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES384 => "ES384",
        }
    }
}

impl AwsSubject {
    /// The word of the API, ours and AWS's.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Role => "AWSIdentity",
            Self::Origin { .. } => "OriginIdentity",
        }
    }

    /// The token's scopes, if it has any.
    pub fn scope(&self) -> Option<&AwsScope> {
        match self {
            Self::Role => None,
            Self::Origin { scope } => scope.as_ref(),
        }
    }
}

/// OAuth scopes: 1 to 256 printable ASCII characters without `"`, `,` and `\`, words between single spaces, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsScope(Box<str>);

impl AwsScope {
    /// The scopes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AwsScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AwsScope {
    type Err = InvalidAwsToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |b: u8| (b' '..=b'~').contains(&b) && !b"\",\\".contains(&b);
        let mut seen = BTreeSet::new();
        let fits = text.len() <= MOST_AWS_SCOPE
            && text.bytes().all(is_allowed)
            && text.split(' ').all(|word| !word.is_empty() && seen.insert(word));
        fits.then(|| Self(text.into()))
            .ok_or_else(|| InvalidAwsToken::Scope(shortened(text)))
    }
}

impl FromStr for AwsAlgorithm {
    type Err = InvalidAwsToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "RS256" => Ok(Self::RS256),
            "ES384" => Ok(Self::ES384),
            other => Err(InvalidAwsToken::Algorithm(shortened(other))),
        }
    }
}

impl fmt::Display for AwsAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason why AWS can't be asked for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAwsToken {
    /// They are no scopes.
    #[error(
        "{0:?} should have 1 to 256 printable ASCII characters without quotation marks, commas and backslashes: scopes between single spaces, none twice"
    )]
    Scope(Box<str>),
    /// It is no algorithm of AWS.
    #[error("{0:?} should be RS256 or ES384")]
    Algorithm(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words_between_single_spaces_and_none_is_there_twice() {
        for scope in ["read", "read write", "https://x.example/a:b", &"s".repeat(256)] {
            assert!(scope.parse::<AwsScope>().is_ok(), "{scope}");
        }
        for scope in [
            "",
            " ",
            "a  b",
            " a",
            "a ",
            "a a",
            "a,b",
            "a\"",
            "a\\",
            "ä",
            "a\tb",
            &"s".repeat(257),
        ] {
            assert!(scope.parse::<AwsScope>().is_err(), "{scope:?}");
        }
    }
}
