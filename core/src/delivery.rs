//! The way in which credentials reach the SDK in a container, as a policy says it.

use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;
pub use crate::session_policy::{
    InvalidSession, MOST_POLICY_ARNS, MOST_POLICY_BYTES, PolicyArn, PolicyDocument, SessionDuration, SessionPolicy,
};
use crate::{Region, RoleArn, Template};

/// The most roles that are taken after the first one, in a policy or in one of its profiles.
pub const MOST_HOPS: usize = 4;
/// The most profiles that a policy gives beside the default one.
pub const MOST_PROFILES: usize = 8;

/// The most regions of STS that a policy names.
pub const MOST_STS_REGIONS: usize = 4;

/// The message about a policy whose profiles have no region.
pub const NO_REGION: &str = "delivery.type Profile needs a region, which every profile of the file has: set spec.aws.region, or the chart's value defaults.region";
/// The message about a policy whose sidecar would have no region of STS to ask.
pub const NO_STS_REGION: &str = "delivery.type Endpoint needs a region, whose STS the sidecar asks: set spec.aws.region or spec.aws.sts.regions, or the chart's value defaults.region";

/// The way in which credentials reach the SDK in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// By a token's file, and the web identity variables.
    #[default]
    File,
    /// By an AWS config file, with these profiles beside the default one.
    Profile(Vec<NamedProfile>),
    /// By a sidecar that takes the roles, and serves the credentials.
    Endpoint(EndpointDelivery),
}

impl Delivery {
    /// The value of `delivery.type`.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Profile(_) => "Profile",
            Self::Endpoint(_) => "Endpoint",
        }
    }

    /// True if the sessions that containers get have a policy of their own, which whoever holds a token can leave out.
    pub(crate) fn narrows_sessions(&self) -> bool {
        matches!(self, Self::Endpoint(endpoint) if !endpoint.policy.is_empty())
    }
}

/// What a policy says about the sessions that a sidecar takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointDelivery {
    /// The regions of STS in the order in which they are asked; none = the policy's own region.
    pub regions: Vec<Region>,
    /// The length of a session; `None`: an hour.
    pub duration: Option<SessionDuration>,
    /// The policies that narrow the session of the last role.
    pub policy: SessionPolicy,
    /// True if the sidecar gives the containers' tokens too, by audience, as Aporeto's enforcer did.
    pub gives_tokens: bool,
}

/// A profile of the config file beside the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProfile {
    /// The value of `AWS_PROFILE` that chooses it.
    pub name: ProfileName,
    /// Its region.
    pub region: Region,
    /// The role that it takes with the pod's token; `None`: the one that the container was granted.
    pub role: Option<RoleArn>,
    /// The roles that it takes after that one.
    pub chain: Vec<RoleHop>,
}

/// A role that is taken by AssumeRole, with the credentials of the role before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleHop {
    /// The role.
    pub role: RoleArn,
    /// The external id that its trust policy asks for.
    pub external_id: Option<ExternalId>,
    /// The session's name; `None`: that of the policy.
    pub session_name: Option<Template>,
}

/// True if every SDK reads the text as it is where it stands as a value of a config file: letters, digits and `_+=,.@:/-`.
///
/// A role's path may also have quotation marks, brackets, `#`, `;` and `$`, on which SDKs and the kubelet do not agree.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
}

/// The name of a profile: 1 to 64 letters, digits, `-` and `_`, neither `default` nor one that begins with `tokenscope-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(Box<str>);

impl ProfileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = InvalidDelivery;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let is_ours = text == "default" || text.starts_with(SOURCE_PREFIX);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_allowed) || is_ours {
            return Err(InvalidDelivery::Name(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The beginning of the names of profiles that are only there as sources of others.
pub(crate) const SOURCE_PREFIX: &str = "tokenscope-";

/// An external id: 2 to 1224 letters, digits and `_+=,.@:/-` (AWS STS API reference, AssumeRole).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(Box<str>);

impl ExternalId {
    /// The external id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ExternalId {
    type Err = InvalidDelivery;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !(2..=1224).contains(&text.len()) || !is_plain(text) {
            return Err(InvalidDelivery::ExternalId(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

/// The reason why a text can't stand in a config file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDelivery {
    /// It is no profile's name.
    #[error(
        "{0:?} should have 1 to 64 letters, digits, - and _, and be neither default nor begin with tokenscope-, which are tokenscope's own"
    )]
    Name(Box<str>),
    /// It is no external id.
    #[error("{0:?} should have 2 to 1224 letters, digits and _+=,.@:/-, as AWS STS demands of an external id")]
    ExternalId(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_no_other_line_of_the_file() {
        for name in ["a", "reports", "Reports_2-b", &"n".repeat(64)] {
            assert!(name.parse::<ProfileName>().is_ok(), "{name}");
        }
        for name in [
            "",
            "default",
            "tokenscope-1",
            "a b",
            "a]",
            "[a",
            "a#",
            "a;",
            "a\n",
            "ä",
            "a=b",
            &"n".repeat(65),
        ] {
            assert!(name.parse::<ProfileName>().is_err(), "{name}");
        }
    }

    #[test]
    fn an_external_id_is_what_sts_takes() {
        for id in ["ab", "7f:3e/a=@b,c.d+e-_", &"x".repeat(1224)] {
            assert!(id.parse::<ExternalId>().is_ok(), "{id}");
        }
        for id in ["", "a", "a b", "a\nb", "a;b", "a#b", "a$(b)", "ä2", &"x".repeat(1225)] {
            assert!(id.parse::<ExternalId>().is_err(), "{id}");
        }
    }
}
