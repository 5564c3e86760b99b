//! What watches tell of namespaces and of what is in them.

use super::{World, namespace::Namespace};
use crate::drift::{Annotated, Pod, WatchedPod};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace as KubeNamespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time},
};
use kube::{
    core::{ObjectMeta, PartialObjectMeta},
    runtime::watcher::Event,
};
use std::collections::BTreeMap;
use tokenscope_core::text::up_to;
use tokenscope_core::{
    Pairs, annotations,
    bounds::{MOST_ANNOTATIONS, MOST_LIST_BYTES},
};

/// Of an annotation's value so much is kept that the longest one with a meaning, a list of containers, is whole, and a longer
/// one is too long still, also if a character is cut off.
const MOST_VALUE_BYTES: usize = MOST_LIST_BYTES + 4;

impl World {
    pub(super) fn apply_pod(&mut self, event: Event<WatchedPod>) {
        match event {
            Event::Init => self.lists.pods.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let WatchedPod { namespace, pod, .. } = found;
                self.put_pod(namespace, pod);
            }
            Event::Delete(found) => self.remove_pod(&found.namespace, &found.pod.name),
            Event::InitDone => {
                let number = self.lists.pods.end();
                let mut gone = Vec::new();
                for (namespace, around) in &self.namespaces {
                    let unlisted = around.pods.iter().filter(|(_, tracked)| tracked.list != number);
                    gone.extend(unlisted.map(|(name, _)| (namespace.clone(), name.clone())));
                }
                for (namespace, pod) in gone {
                    self.remove_pod(&namespace, &pod);
                }
            }
        }
    }

    fn put_pod(&mut self, namespace: Box<str>, pod: Pod) {
        if !pod.running || self.is_left_alone(&namespace) {
            self.remove_pod(&namespace, &pod.name);
            return;
        }
        let key = (namespace, pod.name.clone());
        let list = self.lists.pods;
        let changes = self.around(&key.0).put_pod(pod, list);
        self.look_at_share(&key.0);
        if changes {
            self.stale.pods.insert(key);
        }
    }

    fn remove_pod(&mut self, namespace: &str, pod: &str) {
        let Some(around) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if let Some(tracked) = around.remove_pod(pod) {
            self.forget_verdict(namespace, pod, &tracked.verdict);
            self.look_at_share(namespace);
        }
        self.forget_empty(namespace);
    }

    pub(super) fn apply_namespace(&mut self, event: Event<PartialObjectMeta<KubeNamespace>>) {
        match event {
            Event::Init => self.lists.namespaces.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let name: Box<str> = found.metadata.name.unwrap_or_default().into();
                let number = self.lists.namespaces.number;
                let around = self.around(&name);
                around.list = number;
                if around.put_labels(Some(pairs(found.metadata.labels, |_| true))) {
                    self.look_at_share(&name);
                    self.stale.namespaces.insert(name);
                }
            }
            Event::Delete(found) => self.remove_namespace(&found.metadata.name.unwrap_or_default()),
            Event::InitDone => {
                let number = self.lists.namespaces.end();
                let known = self.namespaces.iter().filter(|(_, around)| around.labels.is_some());
                let gone = known
                    .filter(|(_, around)| around.list != number)
                    .map(|(name, _)| name.clone());
                for name in gone.collect::<Vec<_>>() {
                    self.remove_namespace(&name);
                }
            }
        }
    }

    fn remove_namespace(&mut self, name: &str) {
        if let Some(around) = self.namespaces.get_mut(name) {
            around.put_labels(None);
            self.stale.namespaces.insert(name.into());
            self.look_at_share(name);
        }
        self.forget_empty(name);
    }

    pub(super) fn apply_service_account(&mut self, event: Event<PartialObjectMeta<ServiceAccount>>) {
        match event {
            Event::Init => self.lists.service_accounts.begin(),
            Event::InitApply(found) | Event::Apply(found) => {
                let metadata = found.metadata;
                let namespace: Box<str> = metadata.namespace.clone().unwrap_or_default().into();
                let name: Box<str> = metadata.name.clone().unwrap_or_default().into();
                match annotated(metadata) {
                    None => self.remove_service_account(&namespace, &name),
                    Some(found) => {
                        let list = self.lists.service_accounts;
                        let changes = self.around(&namespace).put_account(name, found, list);
                        self.look_at_share(&namespace);
                        if changes {
                            self.stale.namespaces.insert(namespace);
                        }
                    }
                }
            }
            Event::Delete(found) => {
                let metadata = found.metadata;
                self.remove_service_account(
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.name.as_deref().unwrap_or_default(),
                );
            }
            Event::InitDone => {
                let number = self.lists.service_accounts.end();
                let mut gone = Vec::new();
                for (namespace, around) in &self.namespaces {
                    let unlisted = around
                        .service_accounts
                        .iter()
                        .filter(|(_, account)| account.list != number);
                    gone.extend(unlisted.map(|(name, _)| (namespace.clone(), name.clone())));
                }
                for (namespace, name) in gone {
                    self.remove_service_account(&namespace, &name);
                }
            }
        }
    }

    fn remove_service_account(&mut self, namespace: &str, name: &str) {
        let Some(around) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if around.remove_account(name) {
            self.stale.namespaces.insert(namespace.into());
            self.look_at_share(namespace);
            self.forget_empty(namespace);
        }
    }

    /// What is kept of a namespace, of which nothing may be known yet.
    pub(super) fn around(&mut self, namespace: &str) -> &mut Namespace {
        let share = self.share;
        self.namespaces
            .entry(namespace.into())
            .or_insert_with(|| Namespace::with_share(share))
    }

    /// Sees whether a namespace takes more than its share now, or no longer does.
    pub(super) fn look_at_share(&mut self, namespace: &str) {
        let Some(around) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let over = around.is_over_share();
        if over != around.over_share {
            around.over_share = over;
            self.over_share = if over { self.over_share + 1 } else { self.over_share - 1 };
            self.stale.namespaces.insert(namespace.into());
            let own = self.objects.keys().filter(|name| name.namespace() == Some(namespace));
            self.concerned.extend(own.cloned());
        }
    }

    /// The namespaces that the operator looks at no pod of: the control plane's and our own.
    fn is_left_alone(&self, namespace: &str) -> bool {
        namespace == "kube-system" || *namespace == *self.own_namespace
    }

    pub(super) fn forget_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(Namespace::is_empty) {
            self.namespaces.remove(namespace);
        }
    }
}

fn pairs(map: Option<BTreeMap<String, String>>, keep: impl Fn(&str) -> bool) -> Pairs<Box<str>> {
    let kept = map.into_iter().flatten().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (key.into(), value.into())).collect()
}

/// What matters of a service account, if anything does.
fn annotated(metadata: ObjectMeta) -> Option<Annotated> {
    let created = created(&metadata);
    let written = metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| owns_relevant_annotation(entry));
    let since = written
        .filter_map(|entry| entry.time.as_ref())
        .map(|Time(at)| *at)
        .max();
    let relevant = metadata.annotations.into_iter().flatten();
    let relevant = relevant
        .filter(|(key, _)| annotations::decides(key))
        .take(MOST_ANNOTATIONS);
    let annotations: Pairs<Box<str>> = relevant.map(|(key, value)| (key.into(), bounded(value))).collect();
    (!annotations.is_empty()).then(|| Annotated {
        annotations,
        since: since.unwrap_or(created),
    })
}

fn bounded(mut value: String) -> Box<str> {
    value.truncate(up_to(&value, MOST_VALUE_BYTES).len());
    value.into()
}

/// Whether whoever the entry is about wrote an annotation that can change a decision (metav1.FieldsV1).
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

/// When an object was created.
pub(super) fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |Time(at)| *at)
}
