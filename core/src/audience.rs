//! The audience of a token and those that a policy allows, and the lifetime of a token.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::arn::shortened;

/// A token's audience: 1 to 255 printable ASCII characters without spaces.
///
/// The length is that of an IAM OIDC provider's client ID (CreateOpenIDConnectProvider).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(Arc<str>);

impl Audience {
    /// `sts.amazonaws.com`, which AWS STS expects by default.
    pub fn sts() -> Self {
        Self("sts.amazonaws.com".into())
    }

    /// `pods.eks.amazonaws.com`, which the agent of EKS Pod Identity takes.
    pub fn eks_pod_identity() -> Self {
        Self("pods.eks.amazonaws.com".into())
    }

    /// The audience as it stands in the token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Audience {
    type Err = InvalidAudience;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 255 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidAudience { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The reason why a text is no audience.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an audience: it should have 1 to 255 printable ASCII characters and no spaces, such as sts.amazonaws.com"
)]
pub struct InvalidAudience {
    text: Box<str>,
}

/// The lifetime of a projected token, in seconds: 600 to 86400.
///
/// The lower bound is Kubernetes' own (TokenRequest refuses less); AWS refuses tokens that are older than a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenExpiration(u32);

impl TokenExpiration {
    /// The least: 10 minutes.
    pub const MIN_SECONDS: i64 = 600;
    /// The most: a day.
    pub const MAX_SECONDS: i64 = 86_400;
    /// An hour, where nobody says otherwise.
    pub const HOUR: Self = Self(3600);
    /// A day, the EKS webhook's default.
    pub const DAY: Self = Self(86_400);

    /// Checks the bounds.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidTokenExpiration> {
        if !(Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&seconds) {
            return Err(InvalidTokenExpiration {
                text: seconds.to_string().into(),
            });
        }
        Ok(Self(seconds as u32))
    }

    /// Seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for TokenExpiration {
    type Err = InvalidTokenExpiration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .and_then(|seconds| Self::from_seconds(seconds).ok())
            .ok_or_else(|| InvalidTokenExpiration { text: shortened(text) })
    }
}

/// The reason why a text is no token expiration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a token expiration: it should be a whole number of seconds from 600 to 86400")]
pub struct InvalidTokenExpiration {
    text: Box<str>,
}

/// Audiences that a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audiences {
    /// None = any.
    pub allowed: Vec<Audience>,
    /// The audience where the workload names none.
    pub default: Option<Audience>,
}

/// Said of a policy whose pods would get tokens of an audience that it doesn't allow.
pub const NO_DEFAULT_AUDIENCE: &str = "spec.audiences.default: is needed, since several audiences are allowed and the installation's default is none of them: name the one of pods that ask for none";

impl Audiences {
    /// The audience of a pod that asks for none, where the installation has this default: the policy's, or the only one that it
    /// allows. None where several are allowed and the installation's is not among them.
    pub fn or_default<'a>(&'a self, installation: &'a Audience) -> Option<&'a Audience> {
        let is_allowed = || self.allowed.is_empty() || self.allowed.contains(installation);
        self.own_default().or_else(|| is_allowed().then_some(installation))
    }

    /// The audience of a pod that asks for none, as far as the policy says: its default, or the only one that it allows.
    pub fn own_default(&self) -> Option<&Audience> {
        match (&self.default, self.allowed.as_slice()) {
            (Some(default), _) => Some(default),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// True if there is no such audience, so that the policy can't be accepted.
    pub fn lacks_default(&self, installation: &Audience) -> bool {
        self.or_default(installation).is_none()
    }

    /// True if a workload may ask for `audience`.
    pub fn allow(&self, audience: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed.as_str() == audience)
    }

    /// The bytes with which each audience is compared.
    pub(crate) fn compared_bytes(&self) -> usize {
        self.allowed.iter().map(|allowed| allowed.as_str().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_has_no_spaces_and_an_end() {
        assert!("sts.amazonaws.com".parse::<Audience>().is_ok());
        for bad in ["", "a b", " a", "a\n", "ä", &"a".repeat(256)] {
            assert!(bad.parse::<Audience>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_expiration_out_of_bounds_is_an_error_and_not_rounded() {
        assert_eq!("600".parse::<TokenExpiration>().unwrap().seconds(), 600);
        assert_eq!("86400".parse::<TokenExpiration>().unwrap(), TokenExpiration::DAY);
        for bad in [
            "0",
            "599",
            "86401",
            "999999999999",
            "99999999999999999999",
            "-600",
            "1h",
            "",
            " 600",
            "600.5",
        ] {
            assert!(
                bad.parse::<TokenExpiration>()
                    .unwrap_err()
                    .to_string()
                    .contains("600 to 86400"),
                "{bad:?}"
            );
        }
    }
}
