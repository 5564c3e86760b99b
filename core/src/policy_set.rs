//! All policies of a cluster, and the boundaries of those in namespaces.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use crate::context_keys::has_context;
use crate::text::bounded;
use crate::trust_policy::{NAMESPACE_NAME_LABEL, grants_nothing};
use crate::{
    Audience, Boundary, ContextKeys, Grant, InvalidPolicy, NoContextRoom, OutsideBoundary, Pairs, Policy, PolicyName,
    TokenExpiration, TokenSource, UnusablePolicy,
};

/// All policies of a cluster, by namespace, and the boundaries. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    namespaced: HashMap<Arc<str>, Arc<Vec<PolicyEntry>>>,
    cluster: Arc<Vec<PolicyEntry>>,
    /// By name.
    boundaries: Arc<BTreeMap<Arc<str>, BoundaryEntry>>,
    /// Found when it is asked for, and again after a change of policies or boundaries.
    context: OnceLock<Arc<ContextKeys>>,
}

#[derive(Clone, Debug)]
enum BoundaryEntry {
    Valid(Arc<Boundary>),
    Unusable(Arc<str>),
}

#[derive(Clone, Debug)]
enum PolicyEntry {
    /// A policy, and the names of the boundaries that it is beyond, wherever they select its namespace.
    Valid(Arc<Policy>, Arc<[Arc<str>]>),
    Unusable(UnusablePolicy),
}

/// The boundaries that select one namespace.
#[derive(Debug)]
pub(crate) struct BoundariesAround<'a>(Vec<(&'a Arc<str>, &'a BoundaryEntry)>);

/// A boundary that a policy is beyond.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundaryAgainst<'a>(&'a Arc<str>, &'a BoundaryEntry);

impl BoundaryAgainst<'_> {
    /// The part of the policy that is beyond it.
    pub(crate) fn why(self, policy: &Policy) -> Option<OutsideBoundary> {
        match self.1 {
            BoundaryEntry::Valid(boundary) => boundary.outside(policy),
            BoundaryEntry::Unusable(why) => Some(unusable(self.0, why)),
        }
    }
}

fn unusable(name: &str, why: &str) -> OutsideBoundary {
    OutsideBoundary::Unusable {
        boundary: name.into(),
        why: why.into(),
    }
}

impl PolicyEntry {
    fn name(&self) -> &PolicyName {
        match self {
            Self::Valid(policy, _) => &policy.name,
            Self::Unusable(policy) => &policy.name,
        }
    }
}

fn is_beyond(boundary: &Boundary, policy: &Policy) -> bool {
    !policy.name.is_cluster() && boundary.outside(policy).is_some()
}

impl PolicyEntry {
    fn names(&self) -> &[Arc<str>] {
        match self {
            Self::Valid(_, names) => names,
            Self::Unusable(_) => &[],
        }
    }

    fn is_beyond(&self, boundary: &Boundary) -> bool {
        match self {
            Self::Valid(policy, _) => is_beyond(boundary, policy),
            Self::Unusable(_) => false,
        }
    }

    fn note(&mut self, boundary: &Arc<str>, is_beyond: bool) {
        if let Self::Valid(_, names) = self {
            let others = names.iter().filter(|name| *name != boundary);
            *names = others.chain(is_beyond.then_some(boundary)).cloned().collect();
        }
    }
}

impl PolicySet {
    /// Adds a policy, or replaces the one of its name.
    pub fn insert(&mut self, policy: Arc<Policy>) {
        // Whether it is inside changes with it and with the boundaries only, and comparing patterns is not for every pod.
        let beyond = self.boundaries.iter().filter(|(_, entry)| match entry {
            BoundaryEntry::Valid(boundary) => is_beyond(boundary, &policy),
            BoundaryEntry::Unusable(_) => false,
        });
        let beyond = beyond.map(|(name, _)| name.clone()).collect();
        self.put(PolicyEntry::Valid(policy, beyond));
    }

    /// Notes that there is a policy of this name that can't be used, and why: it grants nothing, and a denied pod
    /// hears of it, as does one that it selects and assigns a role. Of the reason 1 KiB is kept.
    pub fn insert_unusable(&mut self, name: PolicyName, why: &InvalidPolicy) {
        self.put(PolicyEntry::Unusable(UnusablePolicy {
            name,
            why: bounded(why.to_string(), 1024).into(),
            scope: why.scope.clone(),
        }));
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
        self.context.take();
        let name: Arc<str> = (&*boundary.name).into();
        for entries in self.namespaced.values_mut() {
            let beyond: Vec<_> = entries.iter().map(|entry| entry.is_beyond(&boundary)).collect();
            let is_known = |entry: &PolicyEntry| entry.names().contains(&name);
            if entries
                .iter()
                .zip(&beyond)
                .all(|(entry, beyond)| is_known(entry) == *beyond)
            {
                continue;
            }
            for (entry, beyond) in Arc::make_mut(entries).iter_mut().zip(beyond) {
                entry.note(&name, beyond);
            }
        }
        Arc::make_mut(&mut self.boundaries).insert(name, BoundaryEntry::Valid(boundary));
    }

    /// Notes that there is a boundary of this name that can't be used, and why: nobody knows what it allows and where, so no
    /// policy of a namespace grants anything. Of the reason 1 KiB is kept.
    pub fn insert_unusable_boundary(&mut self, name: &str, why: &str) {
        self.context.take();
        let why = bounded(why.to_owned(), 1024).into();
        Arc::make_mut(&mut self.boundaries).insert(name.into(), BoundaryEntry::Unusable(why));
    }

    /// Removes the boundary of this name.
    pub fn remove_boundary(&mut self, name: &str) {
        self.context.take();
        Arc::make_mut(&mut self.boundaries).remove(name);
    }

    /// The keys of the namespaces' labels by which boundaries select.
    pub fn boundary_label_keys(&self) -> impl Iterator<Item = &str> {
        let requirements = self.boundaries.values().flat_map(|entry| match entry {
            BoundaryEntry::Valid(boundary) => boundary.namespace_selector.0.as_slice(),
            BoundaryEntry::Unusable(_) => &[],
        });
        requirements.map(|requirement| &*requirement.key)
    }

    /// The part of a policy that is beyond the boundaries of its namespace, which has these labels; such a policy grants
    /// nothing. Of several boundaries all count. A cluster policy has none.
    pub fn outside_boundary<S: AsRef<str>>(
        &self,
        policy: &Policy,
        namespace_labels: &Pairs<S>,
    ) -> Option<OutsideBoundary> {
        self.boundary_against(policy, &self.boundaries_around(namespace_labels))?
            .why(policy)
    }

    /// The boundaries that select a namespace with these labels, and those that nobody can use.
    pub(crate) fn boundaries_around<S: AsRef<str>>(&self, namespace_labels: &Pairs<S>) -> BoundariesAround<'_> {
        let selects = |entry: &BoundaryEntry| match entry {
            BoundaryEntry::Valid(boundary) => boundary.namespace_selector.matches(namespace_labels),
            BoundaryEntry::Unusable(_) => true,
        };
        BoundariesAround(self.boundaries.iter().filter(|(_, entry)| selects(entry)).collect())
    }

    /// The first of these boundaries that a policy is beyond.
    pub(crate) fn boundary_against<'a>(
        &self,
        policy: &Policy,
        around: &BoundariesAround<'a>,
    ) -> Option<BoundaryAgainst<'a>> {
        if policy.name.is_cluster() {
            return None;
        }
        let known = self.names_beyond(policy);
        let against = around.0.iter().find(|(name, entry)| match (entry, known) {
            (BoundaryEntry::Unusable(_), _) => true,
            (BoundaryEntry::Valid(_), Some(names)) => names.contains(name),
            (BoundaryEntry::Valid(boundary), None) => is_beyond(boundary, policy),
        });
        against.map(|&(name, entry)| BoundaryAgainst(name, entry))
    }

    /// The boundaries that a policy is beyond; `None` for a policy that is not this one of the set.
    fn names_beyond(&self, policy: &Policy) -> Option<&[Arc<str>]> {
        let entries = self.namespaced.get(policy.name.namespace()?)?;
        let at = entries.binary_search_by(|entry| entry.name().cmp(&policy.name)).ok()?;
        match entries.get(at)? {
            PolicyEntry::Valid(found, names) if std::ptr::eq(&raw const **found, policy) => Some(names),
            _ => None,
        }
    }

    /// The context keys of all policies that may grant something.
    ///
    /// Neither the time nor the labels of namespaces are known here, so a policy that has expired keeps its keys, and so does one that
    /// is outside a boundary which selects its namespace by another label than the namespace's name.
    pub fn context_keys(&self) -> &Arc<ContextKeys> {
        self.context
            .get_or_init(|| ContextKeys::of(self.may_have_context()).into())
    }

    fn may_have_context(&self) -> impl Iterator<Item = &Policy> {
        let namespaced = self.namespaced.values().flat_map(|entries| entries.iter());
        namespaced
            .chain(self.cluster.iter())
            .filter_map(move |entry| match entry {
                PolicyEntry::Valid(policy, beyond) => {
                    let may =
                        has_context(policy) && grants_nothing(policy).is_none() && !self.is_outside(policy, beyond);
                    may.then_some(&**policy)
                }
                PolicyEntry::Unusable(_) => None,
            })
    }

    /// True if one of the boundaries that a policy is beyond selects its namespace, whatever labels that has beside its name.
    fn is_outside(&self, policy: &Policy, beyond: &[Arc<str>]) -> bool {
        let Some(namespace) = policy.name.namespace() else {
            return false;
        };
        let name: Pairs<&str> = [(NAMESPACE_NAME_LABEL, namespace)].into_iter().collect();
        beyond.iter().any(|boundary| match self.boundaries.get(boundary) {
            Some(BoundaryEntry::Valid(boundary)) => {
                let selector = &boundary.namespace_selector;
                let mut requirements = selector.0.iter();
                requirements.all(|requirement| *requirement.key == *NAMESPACE_NAME_LABEL) && selector.matches(&name)
            }
            Some(BoundaryEntry::Unusable(_)) | None => false,
        })
    }

    /// The reason why a policy's context keys have no room beside those of cluster policies and older ones; such a policy grants nothing.
    pub fn without_context_room(&self, policy: &Policy) -> Option<&NoContextRoom> {
        has_context(policy).then(|| self.context_keys().without_room().get(&policy.name))?
    }

    /// The part of a grant that no policy gives that is beyond the boundaries of the pod's namespace, which has these
    /// labels.
    pub fn outside_without_policy<S: AsRef<str>>(
        &self,
        grant: &Grant,
        namespace_labels: &Pairs<S>,
    ) -> Option<OutsideBoundary> {
        self.outside(namespace_labels, |boundary| boundary.outside_without_policy(grant))
    }

    /// The same of a ServiceAccount's token that no policy gives, and whose role is not known here.
    pub fn outside_token_without_policy<S: AsRef<str>>(
        &self,
        audience: &Audience,
        expiration: TokenExpiration,
        namespace_labels: &Pairs<S>,
    ) -> Option<OutsideBoundary> {
        let source = TokenSource::ServiceAccount;
        self.outside(namespace_labels, |boundary| {
            boundary.outside_token_without_policy(audience, expiration, source)
        })
    }

    fn outside<S: AsRef<str>>(
        &self,
        namespace_labels: &Pairs<S>,
        of: impl Fn(&Boundary) -> Option<OutsideBoundary>,
    ) -> Option<OutsideBoundary> {
        let around = self.boundaries_around(namespace_labels);
        around.0.into_iter().find_map(|(name, entry)| match entry {
            BoundaryEntry::Valid(boundary) => of(boundary),
            BoundaryEntry::Unusable(why) => Some(unusable(name, why)),
        })
    }

    /// The policies that may be about pods of a namespace: its own by name, then the cluster's by name.
    pub fn about(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        self.entries(namespace).filter_map(|entry| match entry {
            PolicyEntry::Valid(policy, _) => Some(policy),
            PolicyEntry::Unusable(_) => None,
        })
    }

    /// The bytes of the policies about a namespace's pods with which each pod is compared, or a part of each pod: its roles and containers.
    pub fn compared_bytes<S: AsRef<str>>(&self, namespace: &str, namespace_labels: &Pairs<S>) -> usize {
        let about = self.about(namespace);
        let about = about.filter(|policy| policy.namespace_selector.matches(namespace_labels));
        about.map(|policy| policy.compared_bytes()).sum()
    }

    /// The policies of a namespace and of the cluster that can't be used.
    pub fn unusable_about(&self, namespace: &str) -> impl Iterator<Item = &UnusablePolicy> {
        self.entries(namespace).filter_map(|entry| match entry {
            PolicyEntry::Valid(..) => None,
            PolicyEntry::Unusable(policy) => Some(policy),
        })
    }

    /// Every policy that can be used.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.namespaced
            .values()
            .flat_map(|entries| entries.iter())
            .chain(self.cluster.iter())
            .filter_map(|entry| match entry {
                PolicyEntry::Valid(policy, _) => Some(policy),
                PolicyEntry::Unusable(_) => None,
            })
    }

    /// The number of policies, the unusable ones too.
    pub fn len(&self) -> usize {
        self.namespaced.values().map(|entries| entries.len()).sum::<usize>() + self.cluster.len()
    }

    /// True if there are none.
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
