//! The namespaces, service accounts and policies that the watches have reported.
//!
//! Reviews only read it. No lock is held across an await, and nothing is ever listed because of a review. All that is kept is
//! bounded ([`WebhookBounds`]): each namespace has a share, and where it needs more, only its own pods are affected. A service account that
//! is not kept is looked up live; where a policy is not kept, pods that it may be about can't be judged
//! ([`ShareExceeded`]).

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use tokenscope_crds::read;
use tokenscope_index::{
    KeptAnnotations, LabelPairs, MOST_LABELS, NamespaceLabels, Policies, PolicyIndex, PolicyUpdate, Room,
    ShareExceeded, SharedPolicies, Shares, Store, WebhookBounds, apply_namespace, apply_service_account, follow,
};
use tokenscope_platform::Process;

/// The objects that the watches have told of so far.
#[derive(Debug)]
pub struct Cache {
    namespaces: RwLock<Store<NamespaceLabels>>,
    service_accounts: RwLock<Store<KeptAnnotations>>,
    policies: SharedPolicies,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(&WebhookBounds::default())
    }
}

impl Cache {
    /// An empty one within these bounds.
    pub fn new(bounds: &WebhookBounds) -> Self {
        // Each kind has a room of its own, so that no user's objects of one kind take it from another.
        let own_room = |share| Shares::new(share, Room::new(share.bytes));
        let accounts = Shares::new(bounds.service_accounts, Room::new(bounds.service_account_room));
        let policies = Shares::new(bounds.policies, Room::new(bounds.policy_room));
        let index = PolicyIndex::new(policies, own_room(bounds.cluster_policies), own_room(bounds.boundaries));
        Self {
            namespaces: RwLock::new(Store::new("namespaces", own_room(bounds.namespaces))),
            service_accounts: RwLock::new(Store::new("service accounts", accounts)),
            policies: SharedPolicies::new(index),
        }
    }

    /// A namespace's labels; `None` if no watch has told of it, or it did not fit.
    pub fn labels(&self, namespace: &str) -> Option<LabelPairs> {
        Some(self.kept_labels(namespace)?.labels)
    }

    pub(crate) fn kept_labels(&self, namespace: &str) -> Option<NamespaceLabels> {
        read_lock(&self.namespaces).value("", namespace).cloned()
    }

    /// A service account's annotations; `None` if no watch has told of it, or it did not fit.
    pub fn annotations(&self, namespace: &str, service_account: &str) -> Option<KeptAnnotations> {
        read_lock(&self.service_accounts)
            .value(namespace, service_account)
            .cloned()
    }

    /// The policies and their boundaries; nothing until all were listed.
    pub fn policies(&self) -> Option<Arc<Policies>> {
        self.policies.get()
    }

    /// The reason why pods of a namespace can't be judged, if they can't: its policies or labels, or the cluster's policies,
    /// are more than is kept. Nothing where policies and boundaries were not listed yet.
    pub fn over_share(&self, namespace: &str) -> Option<ShareExceeded> {
        let too_many_labels = self.kept_labels(namespace).is_some_and(|kept| kept.too_many);
        over_share(namespace, too_many_labels, &*self.policies()?)
    }

    /// The reason why not all service accounts of a namespace are kept, if they aren't.
    pub fn service_accounts_over_share(&self, namespace: &str) -> Option<ShareExceeded> {
        let exceeded = read_lock(&self.service_accounts).exceeded(namespace)?;
        Some(ShareExceeded::service_accounts(namespace, exceeded))
    }

    /// The number of namespaces that have more service accounts, policies or labels than are kept of one. All namespaces'
    /// labels count as one more, and so do the cluster's policies.
    pub fn namespaces_over_share(&self) -> usize {
        let (namespaces, accounts) = (read_lock(&self.namespaces), read_lock(&self.service_accounts));
        let policies = self.policies();
        let mut names: HashSet<&str> = accounts.all_exceeded().map(|(name, _)| name).collect();
        names.extend(policies.iter().flat_map(|policies| policies.incomplete()));
        names.extend(
            namespaces
                .iter("")
                .filter(|(_, kept)| kept.too_many)
                .map(|(name, _)| name),
        );
        names.len() + namespaces.all_exceeded().count()
    }

    /// Takes in what a watch tells of namespaces. Whether a new list is wanted, for what was left out.
    pub fn apply_namespace(&self, event: Event<PartialObjectMeta<Namespace>>) -> bool {
        apply_namespace(&self.namespaces, event)
    }

    /// Takes in what a watch tells of service accounts. Whether a new list is wanted, for what was left out.
    pub fn apply_service_account(&self, event: Event<PartialObjectMeta<ServiceAccount>>) -> bool {
        apply_service_account(&self.service_accounts, event)
    }

    /// Takes in what a watch tells of policies; `cluster` says of which kind. Whether a new list is wanted, for what was left
    /// out.
    pub fn apply_policy(&self, cluster: bool, event: Event<DynamicObject>) -> bool {
        self.policies.apply(cluster, event, |update| {
            if let PolicyUpdate::Put {
                name,
                policy: Some(Err(why)),
                ..
            } = update
            {
                // As a text, in which control characters are escaped.
                let why = why.to_string();
                tracing::warn!(policy = %name, why, "a policy can't be used");
            }
        })
    }

    /// Takes in what a watch tells of boundaries. Whether a new list is wanted, for what was left out.
    pub fn apply_boundary(&self, event: Event<DynamicObject>) -> bool {
        self.policies.apply_boundary(event)
    }

    /// The number of objects of each kind.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("namespaces", read_lock(&self.namespaces).len()),
            ("serviceaccounts", read_lock(&self.service_accounts).len()),
            ("policies", self.policies().map_or(0, |policies| policies.len())),
        ]
    }

    /// Starts the watches; a gate for each opens with its first whole list.
    pub fn watch(self: &Arc<Self>, client: &Client, process: &Process) {
        let (cache, api) = (self.clone(), Api::all(client.clone()));
        follow(api, "namespaces", process, move |event| cache.apply_namespace(event));
        let (cache, api) = (self.clone(), Api::all(client.clone()));
        follow(api, "serviceaccounts", process, move |event| {
            cache.apply_service_account(event)
        });
        let (cache, api) = (self.clone(), Api::all_with(client.clone(), &read::boundaries()));
        follow(api, "tokenscopeboundaries", process, move |event| {
            cache.apply_boundary(event)
        });
        for resource in read::resources() {
            let cache = self.clone();
            let cluster = resource.kind.starts_with("Cluster");
            let what = if cluster {
                "clustertokenscopepolicies"
            } else {
                "tokenscopepolicies"
            };
            let api = Api::all_with(client.clone(), &resource);
            follow(api, what, process, move |event| cache.apply_policy(cluster, event));
        }
    }
}

/// The reason why pods of a namespace can't be judged, if they can't.
pub(crate) fn over_share(namespace: &str, too_many_labels: bool, policies: &Policies) -> Option<ShareExceeded> {
    let labels = too_many_labels.then(|| ShareExceeded::labels(namespace, MOST_LABELS));
    labels.or_else(|| policies.share_exceeded(namespace))
}

fn read_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
