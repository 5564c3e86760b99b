//! Events of namespaces, of pods and service accounts in them, and of what else pods depend on.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokenscope_core::{Pairs, TokenSource, annotations};
use tokenscope_index::{KeptAnnotations, LabelPairs, NamespaceLabels, PodObject, Store, Update};

use super::Index;
use crate::drift::{ChangedKeys, KeptPod};
use crate::history::{Ages, FirstSeen, Keys, Removed};
use crate::spiffe_ids::SpiffeIdEvent;

/// A service account with an annotation that can change a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnotatedAccount {
    pub(super) annotations: KeptAnnotations,
    /// The ages of these annotations, and of those that it had once.
    pub(super) ages: Ages,
}

impl AnnotatedAccount {
    /// True if pods that say nothing of it themselves get nothing: any value but `"true"` opts out or is an error.
    pub(super) fn opts_out(&self) -> bool {
        let pairs = self.annotations.pairs();
        pairs.value(annotations::INJECT).is_some_and(|value| value != "true")
    }
}

/// The part of a namespace that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownNamespace {
    pub(super) labels: LabelPairs,
    /// True if there are more than are kept.
    pub(super) too_many: bool,
    pub(super) ages: Ages,
}

impl Index {
    pub(super) fn apply_pod(&mut self, event: Event<PodObject<KeptPod>>, now: Timestamp) {
        let changed_keys = self.changed_keys(&event);
        // The webhook is not asked about our own pods.
        let own = &*self.installation.own_namespace;
        let updates = self.pods.apply(event, |found| {
            let is_own = found.namespace() == own;
            let mut pod = found.kept;
            pod.changed_keys = changed_keys;
            (pod.running && !is_own).then(|| {
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
            self.check_share(&namespace, now);
            match self.pods.value(&namespace, &name) {
                None => self.forget_pod(&namespace, &name),
                Some(pod) if before.as_ref().is_some_and(|before| before.is_same(pod)) => {}
                Some(_) => {
                    self.dirty.pods.insert((namespace, name));
                }
            }
        }
    }

    /// The keys of a pod that have changed since it was created. A pod of which nothing was known is seen as it was made, unless a list
    /// shows it, or it may have been left out before.
    fn changed_keys(&self, event: &Event<PodObject<KeptPod>>) -> ChangedKeys {
        let (Event::Apply(found) | Event::InitApply(found)) = event else {
            return ChangedKeys::Unknown;
        };
        let (namespace, pod) = (found.namespace(), &found.kept);
        match self.pods.value(namespace, &pod.name) {
            Some(before) if before.uid == pod.uid => pod.changes_since(before),
            _ if matches!(event, Event::Apply(_)) && !self.over_share.contains(namespace) => ChangedKeys::none(),
            _ => ChangedKeys::Unknown,
        }
    }

    pub(super) fn apply_namespace(&mut self, event: Event<PartialObjectMeta<Namespace>>, now: Timestamp) {
        let before = known(&self.namespaces, &event, |event| &event.metadata);
        let first_seen = match event {
            _ if !self.namespaces.is_synced() => FirstSeen::InFirstList,
            // None was left out, so that it is new.
            Event::Apply(_) if self.namespaces.exceeded("").is_none() => FirstSeen::AtCreation,
            _ => FirstSeen::Later,
        };
        let time = self.past.time(now);
        let updates = self.namespaces.apply(event, |found| {
            let labels = NamespaceLabels::of(&found.metadata);
            let bytes = labels.bytes();
            let known = known_namespace(labels, &found.metadata, before.as_ref(), first_seen, time);
            let bytes = bytes + known.ages.bytes();
            Some((known, bytes))
        });
        for Update { name, before, .. } in updates {
            if !self.namespaces.contains("", &name) {
                self.past.forget_namespace(&name);
            }
            if self.namespaces.value("", &name) != before.as_ref() {
                self.check_share(&name, now);
                // Other boundaries may select it.
                self.enqueue_statuses_of(&name);
                self.enqueue_trust_policies_of_namespaces(&name);
                self.note_labels(&name);
                self.dirty.namespaces.insert(name);
            }
        }
    }

    pub(super) fn apply_service_account(&mut self, event: Event<PartialObjectMeta<ServiceAccount>>, now: Timestamp) {
        let before = known(&self.service_accounts, &event, |event| &event.metadata);
        // One may have been there without annotations, so that its creation is not seen.
        let first_seen = if self.service_accounts.is_synced() {
            FirstSeen::Later
        } else {
            FirstSeen::InFirstList
        };
        let time = self.past.time(now);
        let updates = self.service_accounts.apply(event, |found| {
            let annotated = annotated(&found.metadata, before.as_ref(), first_seen, time)?;
            let bytes = annotated.annotations.bytes() + annotated.ages.bytes();
            Some((annotated, bytes))
        });
        for Update {
            namespace,
            name,
            before,
        } in updates
        {
            self.check_share(&namespace, now);
            let known = self.service_accounts.value(&namespace, &name);
            if known.is_none() && before.is_some() {
                let account = Removed::Account(name.clone());
                self.past.note_removed(Some(&namespace), account, time);
            }
            if known != before.as_ref() {
                let opts_out = |account: &AnnotatedAccount| account.opts_out();
                if known.is_some_and(opts_out) != before.as_ref().is_some_and(opts_out) {
                    self.enqueue_trust_policies_of_accounts(&namespace);
                }
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

/// The known facts about the object that an event puts in place.
fn known<K, V: Clone>(store: &Store<V>, event: &Event<K>, metadata: impl Fn(&K) -> &ObjectMeta) -> Option<V> {
    let (Event::Apply(object) | Event::InitApply(object)) = event else {
        return None;
    };
    let metadata = metadata(object);
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    store.value(namespace, metadata.name.as_deref()?).cloned()
}

fn known_namespace(
    NamespaceLabels { labels, too_many }: NamespaceLabels,
    metadata: &ObjectMeta,
    before: Option<&KnownNamespace>,
    first_seen: FirstSeen,
    now: Timestamp,
) -> KnownNamespace {
    let ages = match before {
        Some(before) => changed(
            metadata,
            &before.ages,
            &before.labels.borrowed(),
            &labels.borrowed(),
            now,
        ),
        None => Ages::of(
            metadata,
            Keys::Labels,
            |key| labels.value(key).is_some(),
            first_seen,
            now,
        ),
    };
    KnownNamespace { labels, too_many, ages }
}

/// What matters of a service account, if anything does or did.
fn annotated(
    metadata: &ObjectMeta,
    before: Option<&AnnotatedAccount>,
    first_seen: FirstSeen,
    now: Timestamp,
) -> Option<AnnotatedAccount> {
    let annotations = KeptAnnotations::of(metadata);
    if annotations.is_empty() && before.is_none() {
        return None;
    }
    let ages = match before {
        Some(before) => changed(
            metadata,
            &before.ages,
            &before.annotations.pairs().borrowed(),
            &annotations.pairs().borrowed(),
            now,
        ),
        None => Ages::of(metadata, Keys::Annotations, annotations::is_relevant, first_seen, now),
    };
    Some(AnnotatedAccount { annotations, ages })
}

fn changed(metadata: &ObjectMeta, known: &Ages, before: &Pairs<&str>, after: &Pairs<&str>, now: Timestamp) -> Ages {
    let had: BTreeSet<&str> = before.iter().map(|(key, _)| key).collect();
    let has: BTreeSet<&str> = after.iter().map(|(key, _)| key).collect();
    Ages::after(
        metadata,
        known,
        has.iter().copied(),
        had.difference(&has).copied(),
        |key| before.value(key) != after.value(key),
        now,
    )
}
