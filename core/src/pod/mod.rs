//! A pod's JSON, as far as anything here needs it.
//!
//! One decode serves the webhook, which borrows from the review's bytes (`Pod<Text<'_>>`), and the operator, which keeps
//! pods (`Pod<Box<str>>`). Whatever is not named here is skipped and never built, so it can't get lost either. It takes time
//! and memory in proportion to the bytes, whatever their shape: of every list no more is kept than [`crate::bounds`] says.

mod added;
mod added_names;
mod container;
mod facts;
mod list;
mod owner;
#[cfg(test)]
mod tests;
mod text;
mod token_volumes;
mod volume;
mod windows;

pub use added::AddedVariables;
pub use added_names::{
    AUTHORIZATION_VOLUME, CONFIG_VOLUME, CONFIG_WRITER, EKS_TOKEN_VOLUME, OUTBOUND_VOLUME, SIDECAR, SOCKET_VOLUME,
    SOURCE_TOKEN_VOLUME, SUBJECT_TOKEN_VOLUME, TOKEN_VOLUME, is_added_container, is_authorization_volume,
    is_config_volume, is_outbound_volume, is_sidecar_volume, is_token_volume, outbound_volume,
};
pub use container::{
    Container, ContainerEnvironment, EnvVar, FieldRef, IsSet, PassedOverContainer, VARIABLES, ValueFrom, VolumeMount,
};
pub use list::{BoundedList, PassedOver, PodAnnotations, PodLabels};
pub use owner::{Owner, OwnerReference};
use serde::Deserialize;
pub use text::Text;
pub use volume::{Csi, EmptyDir, HostPath, IsThere, Projected, ServiceAccountToken, Sources, Volume};
use windows::{Affinity, NodeLabels, SecurityContext};

use crate::bounds::{MOST_CONTAINERS, MOST_VOLUMES};
pub use crate::windows_path::path_on_windows;
use crate::{GrantRecord, annotations};

/// A list of containers. It tells of one that was passed over and has the name of a container that the webhook adds.
pub type Containers<S> = BoundedList<Container<S>, MOST_CONTAINERS, PassedOverContainer>;

/// A list of volumes.
pub type Volumes<S> = BoundedList<Volume<S>, MOST_VOLUMES>;

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Pod<S> {
    /// Its metadata.
    #[serde(default)]
    pub metadata: Metadata<S>,
    /// Its specification.
    pub spec: Spec<S>,
}

/// A pod's metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Metadata<S> {
    /// Its name; absent where the API server is to generate one.
    #[serde(default)]
    pub name: Option<S>,
    /// The beginning of the generated name.
    #[serde(default)]
    pub generate_name: Option<S>,
    /// Labels.
    #[serde(default)]
    pub labels: PodLabels<S>,
    /// Annotations; `None` where the pod has no such member at all.
    #[serde(default)]
    pub annotations: Option<PodAnnotations<S>>,
    /// The object that made it.
    #[serde(default, rename = "ownerReferences")]
    pub owner: Owner<S>,
}

impl<S> Default for Metadata<S> {
    fn default() -> Self {
        Self {
            name: None,
            generate_name: None,
            labels: PodLabels::default(),
            annotations: None,
            owner: Owner::default(),
        }
    }
}

/// A pod's specification.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Spec<S> {
    /// Its service account; the API server fills it in before any webhook sees the pod.
    #[serde(default)]
    pub service_account_name: Option<S>,
    /// The operating system that it says it needs.
    #[serde(default)]
    pub os: Option<Os<S>>,
    /// The labels that it demands of its node.
    #[serde(default, rename = "nodeSelector")]
    node_labels: NodeLabels,
    /// Further rules about nodes.
    #[serde(default)]
    affinity: Option<Affinity>,
    /// The security context of all containers that have none of their own.
    #[serde(default)]
    security_context: Option<SecurityContext>,
    /// Containers.
    #[serde(default)]
    pub containers: Option<Containers<S>>,
    /// Init containers, native sidecars among them.
    #[serde(default)]
    pub init_containers: Option<Containers<S>>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Option<Volumes<S>>,
}

impl<S> Default for Spec<S> {
    fn default() -> Self {
        Self {
            service_account_name: None,
            os: None,
            node_labels: NodeLabels::default(),
            affinity: None,
            security_context: None,
            containers: None,
            init_containers: None,
            volumes: None,
        }
    }
}

/// `spec.os`.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Os<S> {
    /// `linux` or `windows`.
    #[serde(default = "Option::default")]
    pub name: Option<S>,
}

impl<S: AsRef<str>> Pod<S> {
    /// Init containers, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container<S>> {
        let init_containers = self.spec.init_containers.iter().flatten();
        init_containers.chain(self.spec.containers.iter().flatten())
    }

    /// Init containers, then containers, without init containers of the names that the webhook adds, which are its business and
    /// nobody's workload: each with its list's name in `spec` and its index there. These are the containers of [`Self::facts`],
    /// in the same order.
    pub fn users_containers(&self) -> impl Iterator<Item = (&'static str, usize, &Container<S>)> {
        let init = self.spec.init_containers.iter().flatten().enumerate();
        let init = init.filter(|(_, container)| !is_added_container(container.name.as_ref()));
        let containers = self.spec.containers.iter().flatten().enumerate();
        let init = init.map(|(index, container)| ("initContainers", index, container));
        init.chain(containers.map(|(index, container)| ("containers", index, container)))
    }

    /// The value of an annotation that decisions read. One that is too long is cut.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.pairs().value(key)
    }

    /// The record of an earlier review of ours, as far as the pod has one.
    pub fn grant_record(&self) -> Option<GrantRecord<'_>> {
        GrantRecord::read(self.annotation(annotations::GRANT)?)
    }

    /// True if it can only run on Windows nodes: by `spec.os`, node selector, required node affinity, or as HostProcess.
    pub fn needs_windows(&self) -> bool {
        if let Some(name) = self.spec.os.as_ref().and_then(|os| os.name.as_ref()) {
            return name.as_ref() == "windows";
        }
        let of_containers = self.all_containers().filter_map(|container| container.security_context);
        let mut contexts = self.spec.security_context.into_iter().chain(of_containers);
        self.spec.node_labels.0
            || self.spec.affinity.as_ref().is_some_and(Affinity::needs_windows)
            || contexts.any(SecurityContext::needs_windows)
    }
}
