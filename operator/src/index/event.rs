//! The events that the index takes in.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokenscope_index::PodObject;

use crate::drift::KeptPod;
use crate::issuer::Issuer;
use crate::spiffe_ids::SpiffeIdEvent;

/// An event of a watch, or a fact about the cluster.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of pods")]
pub(crate) enum IndexEvent {
    /// A watch has told of a pod.
    Pod(Event<PodObject<KeptPod>>),
    /// A watch has told of a namespace.
    Namespace(Event<PartialObjectMeta<Namespace>>),
    /// A watch has told of a service account.
    ServiceAccount(Event<PartialObjectMeta<ServiceAccount>>),
    /// A watch has told of a policy of a namespace.
    Policy(Event<DynamicObject>),
    /// A watch has told of a policy of the cluster.
    ClusterPolicy(Event<DynamicObject>),
    /// A watch has told of a boundary.
    Boundary(Event<DynamicObject>),
    /// A watch has told of a CSI driver.
    CsiDriver(Event<CSIDriver>),
    /// The cluster's issuer is known, or is another one.
    Issuer(Issuer),
    /// A watch has told of a ClusterSPIFFEID.
    SpiffeId(SpiffeIdEvent),
}
