//! The policies as watches change them and as decisions read them at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;

use crate::policies::{Policies, PolicyIndex, PolicyUpdate};

/// The policies of the cluster and their boundaries. Readers see them once they are whole, and wait for nobody.
#[derive(Debug)]
pub struct SharedPolicies {
    published: ArcSwapOption<Policies>,
    /// The policies while they change.
    changing: Mutex<PolicyIndex>,
}

impl SharedPolicies {
    /// The policies of this index, of which nothing was listed yet.
    pub fn new(index: PolicyIndex) -> Self {
        Self {
            published: ArcSwapOption::empty(),
            changing: Mutex::new(index),
        }
    }

    /// The policies and their boundaries; nothing until all were listed ([`PolicyIndex::published`]).
    pub fn get(&self) -> Option<Arc<Policies>> {
        self.published.load_full()
    }

    /// Takes in what a watch tells of policies; `cluster` says of which kind. Gives `note` each policy that may be another one now. Returns
    /// whether a new list is wanted, for what was left out.
    pub fn apply(&self, cluster: bool, event: Event<DynamicObject>, note: impl FnMut(PolicyUpdate)) -> bool {
        let mut index = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        index.apply(cluster, event, |_| 0).into_iter().for_each(note);
        self.publish(&index);
        index.store(cluster).wants_list()
    }

    /// Takes in what a watch tells of boundaries. Returns whether a new list is wanted, for what was left out.
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
            self.published.store(Some(Arc::new(policies)));
        }
    }
}
