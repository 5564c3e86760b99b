//! Volumes, and the tokens that are projected into them.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::list::BoundedList;
use crate::bounds::MOST_SOURCES;

/// A volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Volume<S> {
    /// Its name.
    pub name: S,
    /// Its sources, where it is a projected one.
    #[serde(default = "Option::default")]
    pub projected: Option<Projected<S>>,
    /// The kind of folder, where it is an empty one.
    #[serde(default = "Option::default")]
    pub empty_dir: Option<EmptyDir<S>>,
    /// Its driver, where it is one of a CSI driver.
    #[serde(default = "Option::default")]
    pub csi: Option<Csi<S>>,
    /// The node's folder, where it is one.
    #[serde(default = "Option::default")]
    pub host_path: Option<HostPath<S>>,
    /// Set if it has the files of a Secret.
    #[serde(default)]
    pub secret: IsThere,
    /// Set if it has the files of a ConfigMap.
    #[serde(default)]
    pub config_map: IsThere,
    /// Set if it has files about the pod itself.
    #[serde(rename = "downwardAPI", default)]
    pub downward_api: IsThere,
}

impl<S> Volume<S> {
    /// The tokens that are projected into it.
    pub fn tokens(&self) -> &[ServiceAccountToken<S>] {
        let sources = self.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        sources.map_or(&[], |sources| &sources.tokens)
    }

    /// True if tokens are projected into it and nothing else is.
    pub fn has_only_tokens(&self) -> bool {
        let sources = self.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        sources.is_some_and(|sources| sources.count > 0 && sources.count == sources.tokens.len())
    }

    /// True if no mount of it can be written: kubelets mount these kinds so, whatever the mount says.
    pub fn is_read_only(&self) -> bool {
        let of_files = [self.secret, self.config_map, self.downward_api];
        let by_driver = self.csi.as_ref().and_then(|csi| csi.read_only);
        self.projected.is_some() || by_driver == Some(true) || of_files.into_iter().any(IsThere::is_there)
    }

    /// True if it has more sources than a review looks at.
    pub fn is_beyond(&self) -> bool {
        let sources = self.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        sources.is_some_and(|sources| sources.count > MOST_SOURCES)
    }
}

/// True if a member is there and not null. What it says is not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct IsThere(bool);

impl IsThere {
    /// True if it is there.
    pub fn is_there(self) -> bool {
        self.0
    }
}

impl<'de> Deserialize<'de> for IsThere {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(found.is_some()))
    }
}

/// An empty folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct EmptyDir<S> {
    /// `Memory` for a tmpfs.
    #[serde(default = "Option::default")]
    pub medium: Option<S>,
}

/// A volume of a CSI driver that lives as long as its pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Csi<S> {
    /// The driver's name.
    pub driver: S,
    /// True if it can't be written.
    #[serde(default)]
    pub read_only: Option<bool>,
}

/// A folder or file of the node.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct HostPath<S> {
    /// Its path there.
    pub path: S,
}

/// A projected volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Projected<S> {
    /// Its sources.
    #[serde(default = "Option::default")]
    pub sources: Option<Sources<S>>,
}

/// The sources of a projected volume: the tokens among the first [`MOST_SOURCES`]. The others are only counted.
#[derive(Clone, Debug)]
pub struct Sources<S> {
    tokens: Vec<ServiceAccountToken<S>>,
    count: usize,
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Sources<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sources = BoundedList::<ProjectedSource<S>, MOST_SOURCES>::deserialize(deserializer)?;
        let count = sources.count();
        let tokens = sources.into_items().filter_map(|source| source.service_account_token);
        Ok(Self {
            tokens: tokens.collect(),
            count,
        })
    }
}

/// A source of a projected volume.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
struct ProjectedSource<S> {
    /// `None` where the source is something else.
    #[serde(default = "Option::default")]
    service_account_token: Option<ServiceAccountToken<S>>,
}

/// A projected service account token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct ServiceAccountToken<S> {
    /// Its audience; the API server's own where there is none.
    #[serde(default = "Option::default")]
    pub audience: Option<S>,
    /// Its lifetime in seconds.
    #[serde(default)]
    pub expiration_seconds: Option<i64>,
    /// Its file.
    pub path: S,
}
