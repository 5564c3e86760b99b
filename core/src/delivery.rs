//! The way in which credentials reach the SDK in a container, as a policy says it.

use crate::arn::shortened;
use crate::{Policy, Region, RoleArn, Template};
use std::{fmt, str::FromStr};

/// The most roles that are taken after the first one, in a policy or in one of its profiles.
pub const MOST_HOPS: usize = 4;
/// The most profiles that a policy gives beside the default one.
pub const MOST_PROFILES: usize = 8;

/// Said of a policy whose profiles would have no region.
pub const NO_REGION: &str = "delivery.type Profile needs a region, which every profile of the file has: set spec.aws.region, or the chart's value defaults.region";

/// The way in which credentials reach the SDK in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// By a token's file, and the web identity variables.
    #[default]
    File,
    /// By an AWS config file, with these profiles beside the default one.
    Profile(Vec<NamedProfile>),
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

impl Policy {
    /// The profiles beside the default one.
    pub fn profiles(&self) -> &[NamedProfile] {
        match &self.delivery {
            Delivery::File => &[],
            Delivery::Profile(profiles) => profiles,
        }
    }

    /// The roles that are taken by AssumeRole, of the default profile and of all others.
    pub fn hops(&self) -> impl Iterator<Item = &RoleHop> {
        let of_profiles = self.profiles().iter().flat_map(|profile| &profile.chain);
        self.aws.role_chain.iter().chain(of_profiles)
    }

    /// The roles that it names beside those that pods may ask for, each with its field: those of chains and profiles.
    pub fn further_roles(&self) -> Vec<(String, &RoleArn)> {
        let mut roles = Vec::new();
        add_chain(&mut roles, "spec.aws", &self.aws.role_chain);
        for (index, profile) in self.profiles().iter().enumerate() {
            let path = format!("spec.delivery.profile.profiles[{index}]");
            roles.extend(profile.role.as_ref().map(|role| (format!("{path}.roleArn"), role)));
            add_chain(&mut roles, &path, &profile.chain);
        }
        roles
    }
}

fn add_chain<'a>(roles: &mut Vec<(String, &'a RoleArn)>, path: &str, chain: &'a [RoleHop]) {
    let hops = chain.iter().enumerate();
    roles.extend(hops.map(|(index, hop)| (format!("{path}.roleChain[{index}].roleArn"), &hop.role)));
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
