//! What the watches have told of pods, namespaces, service accounts, policies and boundaries. Exchanges only read it.
//!
//! All that is kept is bounded: each namespace has a share, and where it needs more, only its own pods suffer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Resource;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokenscope_index::{
    KeptAnnotations, MOST_LABELS, NamespaceLabels, PodObject, Policies, PolicyIndex, Room, Share, ShareExceeded,
    Shares, Store, apply_locked,
};

use crate::pods::{AdmittedPod, WatchedPod};

/// The pods with a record, of one namespace: 10,000 with two kilobytes each.
const PODS: Share = Share {
    objects: 10_000,
    bytes: 20 << 20,
};
/// Those of all namespaces: 50,000 with two kilobytes each.
const ALL_PODS: usize = 100 << 20;
/// The labels of all namespaces.
const NAMESPACES: usize = 12 << 20;
/// The annotated service accounts of one namespace.
const SERVICE_ACCOUNTS: Share = Share {
    objects: usize::MAX,
    bytes: 12 << 20,
};
/// The policies of one namespace, those of the cluster, and all boundaries.
const POLICIES: Share = Share {
    objects: 1000,
    bytes: 4 << 20,
};
/// Service accounts of all namespaces.
const ALL_SERVICE_ACCOUNTS: usize = 36 << 20;
/// Policies of all namespaces: a room of their own, so that nobody's service accounts take it.
const ALL_POLICIES: usize = 16 << 20;

/// What the watches have told so far.
#[derive(Debug)]
pub struct ClusterIndex {
    pods: RwLock<Store<Arc<AdmittedPod>>>,
    namespaces: RwLock<Store<NamespaceLabels>>,
    service_accounts: RwLock<Store<KeptAnnotations>>,
    /// Whether all pods were told of once: before, one that is not known may be there.
    pods_listed: AtomicBool,
    /// The same of service accounts.
    service_accounts_listed: AtomicBool,
    policies: ArcSwapOption<Policies>,
    /// The policies while they change; readers see them once they are whole.
    changing: Mutex<PolicyIndex>,
}

impl Default for ClusterIndex {
    fn default() -> Self {
        let own_room = |share: Share| Shares::new(share, Room::new(share.bytes));
        let namespaces = Share {
            objects: usize::MAX,
            bytes: NAMESPACES,
        };
        let index = PolicyIndex::new(
            Shares::new(POLICIES, Room::new(ALL_POLICIES)),
            own_room(POLICIES),
            own_room(POLICIES),
        );
        Self {
            pods: RwLock::new(Store::new("pods", Shares::new(PODS, Room::new(ALL_PODS)))),
            namespaces: RwLock::new(Store::new("namespaces", own_room(namespaces))),
            service_accounts: RwLock::new(Store::new(
                "service accounts",
                Shares::new(SERVICE_ACCOUNTS, Room::new(ALL_SERVICE_ACCOUNTS)),
            )),
            pods_listed: AtomicBool::new(false),
            service_accounts_listed: AtomicBool::new(false),
            policies: ArcSwapOption::empty(),
            changing: Mutex::new(index),
        }
    }
}

impl ClusterIndex {
    /// A pod, if admission recorded a grant of it and it fitted.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<AdmittedPod>> {
        read(&self.pods).value(namespace, name).cloned()
    }

    /// Whether all pods were listed: before, nothing says that a pod is not there.
    pub fn knows_all_pods(&self) -> bool {
        self.pods_listed.load(Ordering::Acquire)
    }

    /// Whether all service accounts were listed: before, nothing says that one has no annotations.
    pub fn knows_all_service_accounts(&self) -> bool {
        self.service_accounts_listed.load(Ordering::Acquire)
    }

    /// Whether not all pods of a namespace are kept.
    pub fn pods_exceed_share(&self, namespace: &str) -> bool {
        read(&self.pods).exceeded(namespace).is_some()
    }

    /// A namespace's labels.
    pub fn labels(&self, namespace: &str) -> Option<NamespaceLabels> {
        read(&self.namespaces).value("", namespace).cloned()
    }

    /// A service account's annotations.
    pub fn annotations(&self, namespace: &str, service_account: &str) -> Option<KeptAnnotations> {
        read(&self.service_accounts).value(namespace, service_account).cloned()
    }

    /// The policies and their boundaries; nothing until all were listed.
    pub fn policies(&self) -> Option<Arc<Policies>> {
        self.policies.load_full()
    }

    /// Why pods of a namespace can't be judged, if they can't.
    pub fn share_exceeded(&self, namespace: &str, labels: &NamespaceLabels) -> Option<ShareExceeded> {
        let too_many = labels.too_many.then(|| ShareExceeded::labels(namespace, MOST_LABELS));
        let accounts = || {
            let exceeded = read(&self.service_accounts).exceeded(namespace)?;
            Some(ShareExceeded::service_accounts(namespace, exceeded))
        };
        too_many
            .or_else(|| self.policies()?.share_exceeded(namespace))
            .or_else(accounts)
    }

    /// Takes in what a watch tells of pods. Whether a new list is wanted, for what was left out.
    pub fn apply_pod(&self, event: Event<PodObject<WatchedPod>>) -> bool {
        let is_whole = matches!(event, Event::InitDone);
        let wants_list = apply_locked(&self.pods, event, |object| {
            let pod = object.kept.admitted.as_ref()?;
            Some((Arc::new(pod.clone()), pod.bytes()))
        });
        self.pods_listed.fetch_or(is_whole, Ordering::Release);
        wants_list
    }

    /// The same of namespaces.
    pub fn apply_namespace(&self, event: Event<PartialObjectMeta<Namespace>>) -> bool {
        apply_locked(&self.namespaces, event, |object| {
            let labels = NamespaceLabels::of(object.meta());
            let bytes = labels.bytes();
            Some((labels, bytes))
        })
    }

    /// The same of service accounts.
    pub fn apply_service_account(&self, event: Event<PartialObjectMeta<ServiceAccount>>) -> bool {
        let is_whole = matches!(event, Event::InitDone);
        let wants_list = apply_locked(&self.service_accounts, event, |object| {
            let annotations = KeptAnnotations::of(object.meta());
            let bytes = annotations.bytes();
            Some((annotations, bytes))
        });
        self.service_accounts_listed.fetch_or(is_whole, Ordering::Release);
        wants_list
    }

    /// The same of policies; `cluster` says of which kind.
    pub fn apply_policy(&self, cluster: bool, event: Event<DynamicObject>) -> bool {
        let mut index = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        index.apply(cluster, event, |_| 0);
        self.publish(&index);
        index.store(cluster).wants_list()
    }

    /// The same of boundaries.
    pub fn apply_boundary(&self, event: Event<DynamicObject>) -> bool {
        let mut index = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((boundary, why)) = index.apply_boundary(event) {
            tracing::warn!(%boundary, %why, "a boundary can't be used, so policies of no namespace grant anything");
        }
        self.publish(&index);
        index.boundaries().wants_list()
    }

    fn publish(&self, index: &PolicyIndex) {
        if let Some(policies) = index.published() {
            self.policies.store(Some(Arc::new(policies)));
        }
    }

    /// How many things of each kind there are.
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("pods", read(&self.pods).len()),
            ("namespaces", read(&self.namespaces).len()),
            ("serviceaccounts", read(&self.service_accounts).len()),
            (
                "policies",
                self.policies().map_or(0, |policies| policies.iter().count()),
            ),
        ]
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
