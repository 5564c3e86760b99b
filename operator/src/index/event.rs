//! The events that the index is told.

use crate::{drift::KeptPod, issuer::Issuer, spiffe_ids::SpiffeIdEvent};
use k8s_openapi::api::{
    core::v1::{Namespace, ServiceAccount},
    storage::v1::CSIDriver,
};
use kube::{
    core::{DynamicObject, PartialObjectMeta},
    runtime::watcher::Event,
};
use tokenscope_index::PodObject;

/// An event of a watch, or a fact about the cluster.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[expect(clippy::large_enum_variant, reason = "nearly all events are of pods")]
pub(crate) enum IndexEvent {
    /// Of a pod.
    Pod(Event<PodObject<KeptPod>>),
    /// Of a namespace.
    Namespace(Event<PartialObjectMeta<Namespace>>),
    /// Of a service account.
    ServiceAccount(Event<PartialObjectMeta<ServiceAccount>>),
    /// Of a policy of a namespace.
    Policy(Event<DynamicObject>),
    /// Of a policy of the cluster.
    ClusterPolicy(Event<DynamicObject>),
    /// Of a boundary.
    Boundary(Event<DynamicObject>),
    /// Of a CSI driver.
    CsiDriver(Event<CSIDriver>),
    /// The cluster's issuer.
    Issuer(Issuer),
    /// Of a ClusterSPIFFEID.
    SpiffeId(SpiffeIdEvent),
}
