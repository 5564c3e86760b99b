//! The objects that the webhook can't keep, as counted by another process that watches the same objects.
//!
//! Each replica of the webhook keeps objects within [`WebhookBounds`]. Where a namespace's policies are beyond them, the webhook judges no
//! pod there, and where its service accounts are, it looks them up one by one. The operator counts by the same sizes and bounds, and says
//! so in the status of policies. Only where the room of all namespaces is used up, replicas that have read the objects in another order may
//! leave out those of another namespace.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Resource;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;

use crate::kept::KeptAnnotations;
use crate::policies::object_bytes;
use crate::share::{Exceeded, Share, ShareExceeded};
use crate::tally::{MostKnown, Tally};
use crate::webhook_bounds::WebhookBounds;

/// The namespace of objects that are in none.
const CLUSTER: &str = "";

/// What the webhook does not keep whole of a namespace, or of what concerns all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// Policies or boundaries: the webhook judges no pod that they may be about.
    Policies(ShareExceeded),
    /// Service accounts: the webhook looks them up one by one, at a bounded rate.
    ServiceAccounts(ShareExceeded),
}

/// Where an event changed whether the webhook can keep everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptChange {
    /// The namespaces.
    pub namespaces: BTreeSet<Box<str>>,
    /// True if it changed for what concerns all namespaces.
    pub everywhere: bool,
}

/// The service accounts that are counted. With nothing to keep of them, 111,000 fill a namespace's share and 336,000 the room.
const MOST_ACCOUNTS: MostKnown = MostKnown {
    of_namespace: 112_000,
    of_all: 340_000,
};
/// The policies that are counted: of a namespace six times as many as fit. So twelve such namespaces, with 72,000 of the smallest, use up
/// the room.
const MOST_POLICIES: MostKnown = MostKnown {
    of_namespace: 6_000,
    of_all: 80_000,
};
/// The cluster's policies that are counted, and as many boundaries: twenty times as many as fit.
const MOST_OF_CLUSTER: MostKnown = MostKnown {
    of_namespace: 20_000,
    of_all: 20_000,
};

/// The objects that the webhook keeps, counted as it counts them. They take at most 21 MB, and 1.2 kB for each namespace.
#[derive(Debug)]
pub struct WebhookCount {
    policies: Tally,
    cluster_policies: Tally,
    boundaries: Tally,
    service_accounts: Tally,
    namespaces: BTreeMap<Box<str>, OfNamespace>,
    everywhere: OfCluster,
}

/// The bounds that a namespace's objects exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OfNamespace {
    policies: Option<Exceeded>,
    service_accounts: Option<Exceeded>,
}

/// The bounds that the cluster's objects exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OfCluster {
    policies: Option<Exceeded>,
    boundaries: Option<Exceeded>,
}

impl WebhookCount {
    /// Nothing is counted yet.
    pub fn new(bounds: &WebhookBounds) -> Self {
        let of_cluster = |share: Share| Tally::new(share, share.bytes, MOST_OF_CLUSTER);
        Self {
            policies: Tally::new(bounds.policies, bounds.policy_room, MOST_POLICIES),
            cluster_policies: of_cluster(bounds.cluster_policies),
            boundaries: of_cluster(bounds.boundaries),
            service_accounts: Tally::new(bounds.service_accounts, bounds.service_account_room, MOST_ACCOUNTS),
            namespaces: BTreeMap::new(),
            everywhere: OfCluster::default(),
        }
    }

    /// What is not kept whole of a namespace, if something isn't; policies come before service accounts.
    pub fn not_kept(&self, namespace: &str) -> Option<NotKept> {
        let found = self.namespaces.get(namespace)?;
        let policies = found.policies.map(|bound| ShareExceeded::policies(namespace, bound));
        let accounts = || {
            let bound = found.service_accounts?;
            Some(NotKept::ServiceAccounts(ShareExceeded::service_accounts(
                namespace, bound,
            )))
        };
        policies.map(NotKept::Policies).or_else(accounts)
    }

    /// True if all policies of a namespace are kept.
    pub fn keeps_policies(&self, namespace: &str) -> bool {
        let found = self.namespaces.get(namespace);
        found.is_none_or(|found| found.policies.is_none())
    }

    /// The reason why pods of no namespace are judged, if they aren't: the policies of the cluster, or the boundaries, are too many.
    pub fn exceeded_everywhere(&self) -> Option<ShareExceeded> {
        let policies = self.everywhere.policies.map(ShareExceeded::cluster_policies);
        policies.or_else(|| self.everywhere.boundaries.map(ShareExceeded::boundaries))
    }

    /// True if only a new list can tell whether all of a namespace can be kept again.
    pub fn wants_list(&self) -> bool {
        // Of the cluster's policies and boundaries administrators alone write so many that not all are counted.
        self.policies.wants_list() || self.service_accounts.wants_list()
    }

    /// Counts what a watch tells of policies; `cluster` says of which kind.
    pub fn apply_policy(&mut self, cluster: bool, event: &Event<DynamicObject>) -> KeptChange {
        let tally = if cluster {
            &mut self.cluster_policies
        } else {
            &mut self.policies
        };
        let touched = count(tally, event, object_bytes);
        self.settle(&touched)
    }

    /// Counts what a watch tells of boundaries.
    pub fn apply_boundary(&mut self, event: &Event<DynamicObject>) -> KeptChange {
        let touched = count(&mut self.boundaries, event, object_bytes);
        self.settle(&touched)
    }

    /// Counts what a watch tells of service accounts.
    pub fn apply_service_account(&mut self, event: &Event<PartialObjectMeta<ServiceAccount>>) -> KeptChange {
        let bytes = |account: &PartialObjectMeta<ServiceAccount>| KeptAnnotations::of(&account.metadata).bytes();
        let touched = count(&mut self.service_accounts, event, bytes);
        self.settle(&touched)
    }

    /// Sees what follows from other counts.
    fn settle(&mut self, touched: &Touched) -> KeptChange {
        let mut change = KeptChange::default();
        match touched {
            Touched::Nothing => {}
            Touched::Namespace(namespace) if &**namespace != CLUSTER => {
                self.settle_namespace(namespace, &mut change);
            }
            Touched::Namespace(_) => change.everywhere = self.settle_cluster(),
            Touched::All => {
                let mut names: BTreeSet<Box<str>> = self.namespaces.keys().cloned().collect();
                let exceeded = self.policies.all_exceeded().chain(self.service_accounts.all_exceeded());
                names.extend(exceeded.map(Box::from));
                for name in names {
                    self.settle_namespace(&name, &mut change);
                }
                change.everywhere = self.settle_cluster();
            }
        }
        change
    }

    fn settle_namespace(&mut self, namespace: &str, change: &mut KeptChange) {
        let before = self.namespaces.get(namespace).copied().unwrap_or_default();
        let found = OfNamespace {
            policies: bound_of(&self.policies, namespace, before.policies),
            service_accounts: bound_of(&self.service_accounts, namespace, before.service_accounts),
        };
        if found == before {
            return;
        }
        if found == OfNamespace::default() {
            self.namespaces.remove(namespace);
        } else {
            self.namespaces.insert(namespace.into(), found);
        }
        change.namespaces.insert(namespace.into());
    }

    /// Answers true if another bound is exceeded than before.
    fn settle_cluster(&mut self) -> bool {
        let before = self.everywhere;
        self.everywhere = OfCluster {
            policies: bound_of(&self.cluster_policies, CLUSTER, before.policies),
            boundaries: bound_of(&self.boundaries, CLUSTER, before.boundaries),
        };
        self.everywhere != before
    }
}

/// The bound that a kind exceeds in a namespace. While a list of it runs, that is the one from before.
fn bound_of(tally: &Tally, namespace: &str, before: Option<Exceeded>) -> Option<Exceeded> {
    if tally.is_listing() {
        before
    } else {
        tally.exceeded(namespace)
    }
}

/// The part of the counts that is another one now.
enum Touched {
    Nothing,
    Namespace(Box<str>),
    All,
}

/// Counts what a watch tells of one kind. While a list runs nothing follows from it: it has named only some of the objects.
fn count<K: Resource>(tally: &mut Tally, event: &Event<K>, bytes: impl FnOnce(&K) -> usize) -> Touched {
    let names = |object: &K| {
        let metadata = object.meta();
        let namespace: Box<str> = metadata.namespace.as_deref().unwrap_or(CLUSTER).into();
        (namespace, metadata.name.clone().unwrap_or_default())
    };
    let (namespace, has_room_again) = match event {
        Event::Init => {
            tally.begin_list();
            return Touched::Nothing;
        }
        Event::InitDone => {
            tally.end_list();
            return Touched::All;
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let (namespace, name) = names(object);
            let has_room_again = tally.put(&namespace, &name, bytes(object));
            (namespace, has_room_again)
        }
        Event::Delete(object) => {
            let (namespace, name) = names(object);
            let has_room_again = tally.remove(&namespace, &name);
            (namespace, has_room_again)
        }
    };
    match has_room_again {
        _ if tally.is_listing() => Touched::Nothing,
        true => Touched::All,
        false => Touched::Namespace(namespace),
    }
}

#[cfg(test)]
mod tests;
