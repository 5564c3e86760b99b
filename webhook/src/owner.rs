//! The objects that create pods: where one can be asked for.

use kube::core::{ApiResource, GroupVersionKind};
use tokenscope_core::kubernetes_names::is_subdomain;
use tokenscope_core::pod::OwnerReference;

/// Kubernetes' own controllers of pods. The chart lets the webhook read these and no others.
const CONTROLLERS: [Controller; 7] = [
    Controller::new("apps", "v1", "ReplicaSet", "replicasets"),
    Controller::new("apps", "v1", "StatefulSet", "statefulsets"),
    Controller::new("apps", "v1", "DaemonSet", "daemonsets"),
    Controller::new("apps", "v1", "Deployment", "deployments"),
    Controller::new("batch", "v1", "Job", "jobs"),
    Controller::new("batch", "v1", "CronJob", "cronjobs"),
    Controller::new("", "v1", "ReplicationController", "replicationcontrollers"),
];
/// The longest UID that is compared. Kubernetes' own have 36 characters.
const MOST_UID_BYTES: usize = 128;

struct Controller {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

impl Controller {
    const fn new(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
        }
    }

    fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

/// The path where an owner can be asked for; `None` if it is of another kind, or can have no such name or UID.
pub(crate) fn resource(owner: &OwnerReference<Box<str>>) -> Option<ApiResource> {
    let possible = is_subdomain(&owner.name) && owner.uid.len() <= MOST_UID_BYTES;
    let controller = CONTROLLERS.iter().find(|controller| *controller.kind == *owner.kind)?;
    let resource = controller.resource();
    (possible && resource.api_version == *owner.api_version).then_some(resource)
}
