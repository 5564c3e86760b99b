//! A pod as a watch delivers it: what identifies it, and what a process keeps of it.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

/// A pod of which only `kept` is kept.
#[derive(Clone, Debug)]
pub struct PodObject<T> {
    /// Name, namespace and version only.
    metadata: ObjectMeta,
    /// The part that is kept.
    pub kept: T,
}

/// The part of a pod that a process keeps.
pub trait FromPodJson: Sized {
    /// The pod's JSON, as far as it is read.
    type Json: DeserializeOwned;

    /// Keeps what matters, and lets go of the rest.
    fn keep(json: Self::Json) -> PodObject<Self>;
}

impl<T> PodObject<T> {
    /// A pod with this identity ([`pod_identity`]).
    pub fn new(metadata: ObjectMeta, kept: T) -> Self {
        Self { metadata, kept }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// The part of a pod that a watch needs.
pub fn pod_identity(name: &str, namespace: &str, resource_version: Option<String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        resource_version,
        ..ObjectMeta::default()
    }
}

impl<'de, T: FromPodJson> Deserialize<'de> for PodObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::Json::deserialize(deserializer).map(T::keep)
    }
}

impl<T> Resource for PodObject<T> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
