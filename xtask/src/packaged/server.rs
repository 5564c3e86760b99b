//! The servers that come as packages, and the versions that `tools/` pins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::root;

/// A server that comes as a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packaged {
    /// An identity provider.
    Keycloak,
    /// A store with an S3, STS and IAM server: radosgw.
    Ceph,
}

impl Packaged {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Keycloak, Self::Ceph];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keycloak => "keycloak",
            Self::Ceph => "ceph",
        }
    }

    /// The environment variable that names the folder to take: for Keycloak the unpacked one, after
    /// `bin/kc.sh build --db=dev-mem --cache=local --features=client-auth-federated`; for Ceph the one that `usr/bin` is in,
    /// which is `/` for an installed one.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Keycloak => "TOKENSCOPE_KEYCLOAK",
            Self::Ceph => "TOKENSCOPE_CEPH",
        }
    }

    /// The version that `tools/` pins.
    pub fn pinned_version(self) -> Result<String> {
        let (_, version) = self.pins()?.into_iter().next().context("there is a first pin")?;
        Ok(version)
    }

    /// About how long fetching takes.
    pub(super) fn usual(self) -> &'static str {
        match self {
            Self::Keycloak => "usually 1 min",
            Self::Ceph => "usually 10 s",
        }
    }

    /// The file with its pins.
    pub(super) fn file(self) -> PathBuf {
        root().join(match self {
            Self::Keycloak => "tools/keycloak/keycloak.txt",
            Self::Ceph => "tools/ceph/packages.txt",
        })
    }

    /// The text of that file.
    pub(super) fn text(self) -> Result<String> {
        let file = self.file();
        fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
    }

    /// Names and versions: the lines `name==version`.
    pub(super) fn pins(self) -> Result<Vec<(String, String)>> {
        let text = self.text()?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pins: Vec<_> = lines
            .filter_map(|line| line.split_once("=="))
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect();
        ensure!(!pins.is_empty(), "{} pins no version", self.file().display());
        Ok(pins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packaged_server_has_one_pinned_version() {
        for server in Packaged::ALL {
            let version = server.pinned_version().unwrap();
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
            for (name, other) in server.pins().unwrap() {
                assert_eq!(other, version, "{name}");
            }
        }
    }
}
