//! The AWS config file by which a container gets its credentials.
//!
//! Only values that every SDK reads as they are can stand in it ([`crate::delivery::is_plain`]), so nothing is escaped.

use std::fmt::Write as _;

use crate::delivery::{ExternalId, ProfileName, SOURCE_PREFIX};
use crate::{Region, RoleArn, SessionName};

/// The folder where a container's config file is mounted.
pub const CONFIG_FOLDER: &str = "/var/run/secrets/tokenscope.io/aws-config";
/// The path of a container's config file.
pub const CONFIG_FILE: &str = "/var/run/secrets/tokenscope.io/aws-config/config";
/// The most different config files of one pod.
pub const MOST_CONFIG_FILES: usize = 31;
/// The most bytes of all config files of one pod. They stand in the pod's specification.
pub const MOST_CONFIG_BYTES: usize = 32 * 1024;

/// A config file as a container gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The profiles, the default one first.
    pub profiles: Vec<FileProfile>,
}

/// A profile of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProfile {
    /// Its name; `None` for the default one.
    pub name: Option<ProfileName>,
    /// Its region.
    pub region: Region,
    /// The role that is taken with the token.
    pub first: FileHop,
    /// The roles that are taken after it, each with the credentials of the one before.
    pub chain: Vec<FileHop>,
}

/// A role that a profile takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHop {
    /// The role.
    pub role: RoleArn,
    /// The external id.
    pub external_id: Option<ExternalId>,
    /// The session's name; `None` where the SDK makes one up.
    pub session_name: Option<SessionName>,
}

impl ConfigFile {
    /// True if it has a profile of this name.
    pub fn has_profile(&self, name: &str) -> bool {
        let mut names = self.profiles.iter().map(|profile| profile.name.as_ref());
        names.any(|found| found.map_or("default", ProfileName::as_str) == name)
    }

    /// The file's text. The token is in `token_file`, and `pod_name` stands for the pod's name; without it, sessions of that name
    /// have none.
    pub fn text(&self, token_file: &str, pod_name: Option<&str>) -> String {
        let mut text = ConfigText {
            text: String::with_capacity(256 * self.profiles.len()),
            token_file,
            pod_name,
            sources: 0,
        };
        for profile in &self.profiles {
            text.add(profile);
        }
        text.text
    }
}

/// A file that is written.
struct ConfigText<'a> {
    text: String,
    token_file: &'a str,
    pod_name: Option<&'a str>,
    /// The number of profiles that are only sources of others.
    sources: usize,
}

impl ConfigText<'_> {
    /// Adds a profile, and before it those that it takes its credentials from.
    fn add(&mut self, profile: &FileProfile) {
        let last = profile.chain.len();
        for (index, hop) in std::iter::once(&profile.first).chain(&profile.chain).enumerate() {
            let source = format!("{SOURCE_PREFIX}{}", self.sources);
            match &profile.name {
                _ if index < last => {
                    self.sources += 1;
                    self.header(&format!("profile {SOURCE_PREFIX}{}", self.sources));
                }
                None => self.header("default"),
                Some(name) => self.header(&format!("profile {name}")),
            }
            self.line("role_arn", hop.role.as_str());
            if index == 0 {
                self.line("web_identity_token_file", self.token_file);
            } else {
                self.line("source_profile", &source);
            }
            if let Some(id) = &hop.external_id {
                self.line("external_id", id.as_str());
            }
            let session_name = match &hop.session_name {
                None => None,
                Some(SessionName::PodName) => self.pod_name,
                Some(SessionName::Text(name)) => Some(&**name),
            };
            if let Some(name) = session_name {
                self.line("role_session_name", name);
            }
            self.line("region", profile.region.as_str());
        }
    }

    fn header(&mut self, name: &str) {
        let _ = writeln!(self.text, "[{name}]"); // a String takes everything
    }

    fn line(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = {value}"); // a String takes everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(role: &str) -> FileHop {
        FileHop {
            role: format!("arn:aws:iam::111122223333:role/{role}").parse().unwrap(),
            external_id: None,
            session_name: None,
        }
    }

    fn profile(name: Option<&str>, chain: Vec<FileHop>) -> FileProfile {
        FileProfile {
            name: name.map(|name| name.parse().unwrap()),
            region: "eu-central-1".parse().unwrap(),
            first: hop("first"),
            chain,
        }
    }

    #[test]
    fn without_a_chain_the_default_profile_takes_its_role_with_the_token() {
        let mut only = profile(None, Vec::new());
        only.first.session_name = Some(SessionName::PodName);
        let file = ConfigFile { profiles: vec![only] };
        let text = "[default]\nrole_arn = arn:aws:iam::111122223333:role/first\nweb_identity_token_file = /token\n";
        assert_eq!(
            file.text("/token", Some("$(NAME)")),
            format!("{text}role_session_name = $(NAME)\nregion = eu-central-1\n")
        );
        assert_eq!(file.text("/token", None), format!("{text}region = eu-central-1\n"));
    }

    #[test]
    fn each_role_of_a_chain_has_the_one_before_as_its_source() {
        let last = FileHop {
            external_id: Some("e2".parse().unwrap()),
            session_name: Some(SessionName::Text("orders".into())),
            ..hop("last")
        };
        let file = ConfigFile {
            profiles: vec![
                profile(None, vec![hop("middle"), last.clone()]),
                profile(Some("reports"), vec![last]),
                profile(Some("plain"), Vec::new()),
            ],
        };
        let text = file.text("/token", None);
        let expected = "\
[profile tokenscope-1]
role_arn = arn:aws:iam::111122223333:role/first
web_identity_token_file = /token
region = eu-central-1
[profile tokenscope-2]
role_arn = arn:aws:iam::111122223333:role/middle
source_profile = tokenscope-1
region = eu-central-1
[default]
role_arn = arn:aws:iam::111122223333:role/last
source_profile = tokenscope-2
external_id = e2
role_session_name = orders
region = eu-central-1
[profile tokenscope-3]
role_arn = arn:aws:iam::111122223333:role/first
web_identity_token_file = /token
region = eu-central-1
[profile reports]
role_arn = arn:aws:iam::111122223333:role/last
source_profile = tokenscope-3
external_id = e2
role_session_name = orders
region = eu-central-1
[profile plain]
role_arn = arn:aws:iam::111122223333:role/first
web_identity_token_file = /token
region = eu-central-1
";
        assert_eq!(text, expected);
        assert!(file.has_profile("default") && file.has_profile("plain") && !file.has_profile("tokenscope-1"));
    }
}
