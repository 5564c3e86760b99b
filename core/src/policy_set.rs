//! All policies of a cluster, and the boundaries of those in namespaces.

use crate::context_keys::has_context;
use crate::{
    Boundary, ContextKeys, Grant, NoContextRoom, OutsideBoundary, Pairs, Policy, PolicyName, refusal::bounded,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

/// All policies of a cluster, by namespace, and the boundaries. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    namespaced: HashMap<Arc<str>, Arc<Vec<PolicyEntry>>>,
    cluster: Arc<Vec<PolicyEntry>>,
    /// By name.
    boundaries: Arc<BTreeMap<Box<str>, BoundaryEntry>>,
    /// Found when it is asked for, and again after a change of policies.
    context: OnceLock<Arc<ContextKeys>>,
}

#[derive(Clone, Debug)]
enum BoundaryEntry {
    Valid(Arc<Boundary>),
    Invalid(Arc<str>),
}

#[derive(Clone, Debug)]
enum PolicyEntry {
    Valid(Arc<Policy>),
    Invalid(PolicyName, Arc<str>),
}

impl PolicyEntry {
    fn name(&self) -> &PolicyName {
        match self {
            Self::Valid(policy) => &policy.name,
            Self::Invalid(name, _) => name,
        }
    }
}

impl PolicySet {
    /// Adds a policy, or replaces the one of its name.
    pub fn insert(&mut self, policy: Arc<Policy>) {
        self.put(PolicyEntry::Valid(policy));
    }

    /// Notes that there is a policy of this name that can't be used, and why: it grants nothing, and a denied pod
    /// hears of it. Of the reason 1 KiB is kept.
    pub fn insert_invalid(&mut self, name: PolicyName, why: &str) {
        self.put(PolicyEntry::Invalid(name, bounded(why.to_owned(), 1024).into()));
    }

    /// Removes the policy of this name.
    pub fn remove(&mut self, name: &PolicyName) {
        self.context.take();
        let Some(entries) = self.entries_mut(name) else { return };
        entries.retain(|entry| entry.name() != name);
        if let PolicyName::Namespaced { namespace, .. } = name
            && entries.is_empty()
        {
            self.namespaced.remove(namespace);
        }
    }

    /// Adds a boundary, or replaces the one of its name.
    pub fn insert_boundary(&mut self, boundary: Arc<Boundary>) {
        Arc::make_mut(&mut self.boundaries).insert(boundary.name.clone(), BoundaryEntry::Valid(boundary));
    }

    /// Notes that there is a boundary of this name that can't be used, and why: nobody knows what it allows and where, so no
    /// policy of a namespace grants anything. Of the reason 1 KiB is kept.
    pub fn insert_invalid_boundary(&mut self, name: &str, why: &str) {
        let why = bounded(why.to_owned(), 1024).into();
        Arc::make_mut(&mut self.boundaries).insert(name.into(), BoundaryEntry::Invalid(why));
    }

    /// Removes the boundary of this name.
    pub fn remove_boundary(&mut self, name: &str) {
        Arc::make_mut(&mut self.boundaries).remove(name);
    }

    /// What of a policy is beyond the boundaries of its namespace, which has these labels; such a policy grants nothing. Of
    /// several boundaries all count. A cluster policy has none.
    pub fn outside_boundary<S: AsRef<str>>(
        &self,
        policy: &Policy,
        namespace_labels: &Pairs<S>,
    ) -> Option<OutsideBoundary> {
        if policy.name.is_cluster() {
            return None;
        }
        self.outside(namespace_labels, |boundary| boundary.outside(policy))
    }

    /// The context keys of all policies.
    pub fn context_keys(&self) -> &Arc<ContextKeys> {
        self.context
            .get_or_init(|| ContextKeys::of(self.iter().map(|policy| &**policy)).into())
    }

    /// Why a policy's context keys have no room beside those of older policies; such a policy grants nothing.
    pub fn without_context_room(&self, policy: &Policy) -> Option<&NoContextRoom> {
        has_context(policy).then(|| self.context_keys().without_room().get(&policy.name))?
    }

    /// What of a grant that no policy gives is beyond the boundaries of the pod's namespace, which has these labels.
    pub fn outside_without_policy<S: AsRef<str>>(
        &self,
        grant: &Grant,
        namespace_labels: &Pairs<S>,
    ) -> Option<OutsideBoundary> {
        self.outside(namespace_labels, |boundary| boundary.outside_without_policy(grant))
    }

    fn outside<S: AsRef<str>>(
        &self,
        namespace_labels: &Pairs<S>,
        outside_of: impl Fn(&Boundary) -> Option<OutsideBoundary>,
    ) -> Option<OutsideBoundary> {
        self.boundaries.iter().find_map(|(name, boundary)| match boundary {
            BoundaryEntry::Valid(boundary) if boundary.namespace_selector.matches(namespace_labels) => {
                outside_of(boundary)
            }
            BoundaryEntry::Valid(_) => None,
            BoundaryEntry::Invalid(why) => Some(OutsideBoundary::Unusable {
                boundary: name.clone(),
                why: (**why).into(),
            }),
        })
    }

    /// The policies that may be about pods of a namespace: its own by name, then the cluster's by name.
    pub fn about(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        self.entries(namespace).filter_map(|entry| match entry {
            PolicyEntry::Valid(policy) => Some(policy),
            PolicyEntry::Invalid(..) => None,
        })
    }

    /// The policies of a namespace and of the cluster that can't be used, and why.
    pub fn invalid_about(&self, namespace: &str) -> impl Iterator<Item = (&PolicyName, &str)> {
        self.entries(namespace).filter_map(|entry| match entry {
            PolicyEntry::Valid(_) => None,
            PolicyEntry::Invalid(name, why) => Some((name, &**why)),
        })
    }

    /// Every policy that can be used.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.namespaced
            .values()
            .flat_map(|entries| entries.iter())
            .chain(self.cluster.iter())
            .filter_map(|entry| match entry {
                PolicyEntry::Valid(policy) => Some(policy),
                PolicyEntry::Invalid(..) => None,
            })
    }

    /// How many there are, the unusable ones too.
    pub fn len(&self) -> usize {
        self.namespaced.values().map(|entries| entries.len()).sum::<usize>() + self.cluster.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self, namespace: &str) -> impl Iterator<Item = &PolicyEntry> {
        self.namespaced
            .get(namespace)
            .into_iter()
            .flat_map(|entries| entries.iter())
            .chain(self.cluster.iter())
    }

    fn entries_mut(&mut self, name: &PolicyName) -> Option<&mut Vec<PolicyEntry>> {
        match name {
            PolicyName::Namespaced { namespace, .. } => self.namespaced.get_mut(namespace).map(Arc::make_mut),
            PolicyName::Cluster { .. } => Some(Arc::make_mut(&mut self.cluster)),
        }
    }

    fn put(&mut self, entry: PolicyEntry) {
        self.context.take();
        if let PolicyName::Namespaced { namespace, .. } = entry.name() {
            self.namespaced.entry(namespace.clone()).or_default();
        }
        let Some(entries) = self.entries_mut(entry.name()) else {
            return;
        };
        match entries.binary_search_by(|other| other.name().cmp(entry.name())) {
            Ok(at) => entries[at] = entry,
            Err(at) => entries.insert(at, entry),
        }
    }
}

impl FromIterator<Policy> for PolicySet {
    fn from_iter<I: IntoIterator<Item = Policy>>(policies: I) -> Self {
        let mut set = Self::default();
        for policy in policies {
            set.insert(Arc::new(policy));
        }
        set
    }
}
