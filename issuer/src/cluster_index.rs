//! The pods, namespaces, service accounts, policies and boundaries that the watches have reported. Exchanges only read it.
//!
//! All that is kept is bounded: each namespace has a share, and where it needs more, only its own pods are affected. All namespaces together have a
//! bound as well. Ten namespaces whose pods take their whole share reach it, and so do four with their policies: then what comes
//! later, of any namespace, is left out. A pod for which that leaves a doubt gets a temporary error until there is room, and no final
//! refusal. All kinds together may take 270 MiB, and the chart's limit of memory is 384 MiB.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokenscope_index::{
    Exceeded, KeptAnnotations, MOST_LABELS, NamespaceLabels, PodObject, Policies, PolicyIndex, Room, Share,
    ShareExceeded, SharedPolicies, Shares, Store, apply_locked, apply_namespace, apply_service_account,
};

use crate::pods::{AdmittedPod, WatchedPod};

/// The pods with a record, of one namespace: 10,000 with two kilobytes each. One that has ended takes a fifth of that.
const PODS: Share = Share {
    objects: 10_000,
    bytes: 20 << 20,
};
/// The bytes of the pods of all namespaces: 50,000 pods with four kilobytes each.
const ALL_PODS: usize = 200 << 20;
/// The bytes of the labels of all namespaces.
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
/// The group of policies that are in no namespace.
const CLUSTER: &str = "";
/// Service accounts of all namespaces.
const ALL_SERVICE_ACCOUNTS: usize = 36 << 20;
/// Policies of all namespaces: a room of their own, so that nobody's service accounts take it.
const ALL_POLICIES: usize = 16 << 20;

/// The cluster as the watches have told of it so far.
#[derive(Debug)]
pub struct ClusterIndex {
    pods: RwLock<Store<Arc<AdmittedPod>>>,
    namespaces: RwLock<Store<NamespaceLabels>>,
    service_accounts: RwLock<Store<KeptAnnotations>>,
    /// True once all pods were told of: before, one that is not known may be there.
    pods_listed: AtomicBool,
    /// True once all service accounts were told of.
    service_accounts_listed: AtomicBool,
    policies: SharedPolicies,
    /// The memory that the policies of each namespace take.
    namespaced: Shares,
    /// The memory that the policies of the cluster take.
    cluster: Shares,
}

impl Default for ClusterIndex {
    fn default() -> Self {
        let own_room = |share: Share| Shares::new(share, Room::new(share.bytes));
        let namespaces = Share {
            objects: usize::MAX,
            bytes: NAMESPACES,
        };
        let namespaced = Shares::new(POLICIES, Room::new(ALL_POLICIES));
        let cluster = own_room(POLICIES);
        let index = PolicyIndex::new(namespaced.clone(), cluster.clone(), own_room(POLICIES));
        Self {
            pods: RwLock::new(Store::new("pods", Shares::new(PODS, Room::new(ALL_PODS)))),
            namespaces: RwLock::new(Store::new("namespaces", own_room(namespaces))),
            service_accounts: RwLock::new(Store::new(
                "service accounts",
                Shares::new(SERVICE_ACCOUNTS, Room::new(ALL_SERVICE_ACCOUNTS)),
            )),
            pods_listed: AtomicBool::new(false),
            service_accounts_listed: AtomicBool::new(false),
            policies: SharedPolicies::new(index),
            namespaced,
            cluster,
        }
    }
}

impl ClusterIndex {
    /// A pod, if admission recorded a grant of it and it fitted.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<AdmittedPod>> {
        read(&self.pods).value(namespace, name).cloned()
    }

    /// True once all pods were listed: before, nothing says that a pod is not there.
    pub fn knows_all_pods(&self) -> bool {
        self.pods_listed.load(Ordering::Acquire)
    }

    /// True once all service accounts were listed: before, nothing says that one has no annotations.
    pub fn knows_all_service_accounts(&self) -> bool {
        self.service_accounts_listed.load(Ordering::Acquire)
    }

    /// The reason why not all pods of a namespace are kept, if they aren't.
    pub fn pods_exceed(&self, namespace: &str) -> Option<Exceeded> {
        read(&self.pods).exceeded(namespace)
    }

    /// A namespace's labels.
    pub fn labels(&self, namespace: &str) -> Option<NamespaceLabels> {
        read(&self.namespaces).value("", namespace).cloned()
    }

    /// The annotations that a service account has now. Pods that this version admitted have a record of those of admission, so these
    /// are for pods of earlier versions alone.
    pub fn annotations(&self, namespace: &str, service_account: &str) -> Option<KeptAnnotations> {
        read(&self.service_accounts).value(namespace, service_account).cloned()
    }

    /// The policies and their boundaries; nothing until all were listed.
    pub fn policies(&self) -> Option<Arc<Policies>> {
        self.policies.get()
    }

    /// The bytes of the policies that may be about pods of a namespace.
    pub fn policy_bytes(&self, namespace: &str) -> usize {
        self.namespaced.bytes(namespace) + self.cluster.bytes(CLUSTER)
    }

    /// The reason why no pod of a namespace can be judged, if none can.
    pub fn share_exceeded(&self, namespace: &str, labels: &NamespaceLabels) -> Option<ShareExceeded> {
        let too_many = labels.too_many.then(|| ShareExceeded::labels(namespace, MOST_LABELS));
        too_many.or_else(|| self.policies()?.share_exceeded(namespace))
    }

    /// True if not all service accounts of a namespace are kept, so that one of which nothing is known may have annotations.
    pub fn leaves_service_accounts_out(&self, namespace: &str) -> bool {
        read(&self.service_accounts).exceeded(namespace).is_some()
    }

    /// The number of namespaces that have more pods, service accounts, policies or labels than are kept of one, or of which some are
    /// left out since those of all namespaces take too much. All namespaces' labels count as one more, and so do the cluster's policies.
    pub fn namespaces_over_share(&self) -> usize {
        let (pods, accounts) = (read(&self.pods), read(&self.service_accounts));
        let (namespaces, policies) = (read(&self.namespaces), self.policies());
        let exceeded = pods.all_exceeded().chain(accounts.all_exceeded());
        let mut names: HashSet<&str> = exceeded.map(|(name, _)| name).collect();
        names.extend(policies.iter().flat_map(|policies| policies.incomplete()));
        let labelled = namespaces.iter("").filter(|(_, kept)| kept.too_many);
        names.extend(labelled.map(|(name, _)| name));
        names.len() + namespaces.all_exceeded().count()
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
        apply_namespace(&self.namespaces, event)
    }

    /// The same of service accounts.
    pub fn apply_service_account(&self, event: Event<PartialObjectMeta<ServiceAccount>>) -> bool {
        let is_whole = matches!(event, Event::InitDone);
        let wants_list = apply_service_account(&self.service_accounts, event);
        self.service_accounts_listed.fetch_or(is_whole, Ordering::Release);
        wants_list
    }

    /// The same of policies; `cluster` says of which kind.
    pub fn apply_policy(&self, cluster: bool, event: Event<DynamicObject>) -> bool {
        self.policies.apply(cluster, event, drop)
    }

    /// The same of boundaries.
    pub fn apply_boundary(&self, event: Event<DynamicObject>) -> bool {
        self.policies.apply_boundary(event)
    }

    /// The number of objects of each kind.
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
