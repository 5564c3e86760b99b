//! Events of namespaces, of pods and service accounts in them, and of what else pods depend on.

use super::Index;
use crate::{drift::KeptPod, spiffe_ids::SpiffeIdEvent};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, ServiceAccount},
        storage::v1::CSIDriver,
    },
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time},
};
use kube::{
    core::{ObjectMeta, PartialObjectMeta},
    runtime::watcher::Event,
};
use tokenscope_core::{TokenSource, annotations};
use tokenscope_index::{KeptAnnotations, NamespaceLabels, PodObject, Update};

/// A service account with an annotation that can change a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnotatedAccount {
    pub(super) annotations: KeptAnnotations,
    /// The time since which it has them, at the latest.
    pub(super) since: Timestamp,
}

impl Index {
    pub(super) fn apply_pod(&mut self, event: Event<PodObject<KeptPod>>) {
        let own = &*self.installation.own_namespace;
        let updates = self.pods.apply(event, |found| {
            let is_left_alone = is_left_alone(found.namespace(), own);
            let pod = found.kept;
            (pod.running && !is_left_alone).then(|| {
                let bytes = pod.bytes();
                (pod, bytes)
            })
        });
        for Update {
            namespace,
            name,
            before,
        } in updates
        {
            self.check_share(&namespace);
            match self.pods.value(&namespace, &name) {
                None => self.forget_pod(&namespace, &name),
                Some(pod) if before.as_ref().is_some_and(|before| before.is_same(pod)) => {}
                Some(_) => {
                    self.dirty.pods.insert((namespace, name));
                }
            }
        }
    }

    pub(super) fn apply_namespace(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        let updates = self.namespaces.apply(event, |found| {
            let labels = NamespaceLabels::of(&found.metadata);
            let bytes = labels.bytes();
            Some((labels, bytes))
        });
        for Update { name, before, .. } in updates {
            if self.namespaces.value("", &name) != before.as_ref() {
                self.check_share(&name);
                // Other boundaries may select it.
                self.enqueue_statuses_of(&name);
                self.enqueue_trust_policies_of_namespaces();
                self.dirty.namespaces.insert(name);
            }
        }
    }

    pub(super) fn apply_service_account(&mut self, event: Event<PartialObjectMeta<ServiceAccount>>) {
        let updates = self.service_accounts.apply(event, |found| {
            let annotated = annotated(&found.metadata)?;
            let bytes = annotated.annotations.bytes();
            Some((annotated, bytes))
        });
        for Update {
            namespace,
            name,
            before,
        } in updates
        {
            self.check_share(&namespace);
            if self.service_accounts.value(&namespace, &name) != before.as_ref() {
                self.dirty.namespaces.insert(namespace);
            }
        }
    }

    pub(super) fn apply_csi_driver(&mut self, event: Event<CSIDriver>) {
        if self.csi_drivers.apply(event) {
            self.dirty.everywhere = true;
            self.enqueue_all_statuses();
        }
    }

    pub(super) fn apply_spiffe_id(&mut self, event: SpiffeIdEvent) {
        let mut policies = self.policies.set().iter();
        let matters = policies.any(|policy| policy.token.source == TokenSource::Spiffe);
        self.dirty.everywhere |= self.spiffe_ids.apply(event) && matters;
    }
}

/// True if the operator looks at no pod of a namespace: the control plane's and our own.
fn is_left_alone(namespace: &str, own_namespace: &str) -> bool {
    namespace == "kube-system" || namespace == own_namespace
}

/// What matters of a service account, if anything does.
fn annotated(metadata: &ObjectMeta) -> Option<AnnotatedAccount> {
    let written = metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| owns_relevant_annotation(entry));
    let since = written
        .filter_map(|entry| entry.time.as_ref())
        .map(|Time(at)| *at)
        .max();
    let annotations = KeptAnnotations::of(metadata);
    (!annotations.is_empty()).then(|| AnnotatedAccount {
        annotations,
        since: since.unwrap_or_else(|| created(metadata)),
    })
}

/// True if whoever the entry is about wrote an annotation that can change a decision (metav1.FieldsV1).
fn owns_relevant_annotation(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry
        .fields_v1
        .as_ref()
        .and_then(|fields| fields.0.get("f:metadata")?.get("f:annotations")?.as_object());
    let keys = fields
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("f:"));
    keys.into_iter().any(annotations::is_relevant)
}

/// The time when an object was created.
pub(super) fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |Time(at)| *at)
}
