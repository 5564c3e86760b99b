//! Namespaces and service accounts as the trust policies of a policy's roles name them.

use tokenscope_core::{
    MOST_TRUSTED_NAMESPACES, Policy, PolicyName, TokenSource, Unserved, annotations, named_namespaces,
    names_selected_namespaces,
};

use super::Index;
use super::contents::KnownNamespace;
use super::policies::PolicyObject;

/// The most service accounts with annotations that are looked at for one policy.
const MOST_ACCOUNTS: usize = 1024;

impl Index {
    /// The namespaces that trust policies have to name, unless they are too many, and how many there are.
    pub(super) fn trusted_namespaces(&self, policy: &Policy) -> (Vec<&str>, usize) {
        if !names_selected_namespaces(policy) {
            return (Vec::new(), 0);
        }
        let selected = self.namespaces.iter("").filter(|(name, namespace)| {
            self.is_served(name, namespace) && policy.namespace_selector.matches(&namespace.labels.borrowed())
        });
        let mut names: Vec<_> = selected.map(|(name, _)| name).collect();
        let count = names.len();
        if count > MOST_TRUSTED_NAMESPACES {
            names.clear();
        }
        (names, count)
    }

    /// Of a namespace with too many labels not all are known; pods of such ones get nothing.
    fn is_served(&self, name: &str, namespace: &KnownNamespace) -> bool {
        !namespace.too_many
            && name != &*self.installation.own_namespace
            && namespace.labels.value(annotations::INJECT) != Some("false")
    }

    /// What of the namespaces of a policy's trust policies gets nothing. Only the cluster's tokens count: no others are made for it.
    pub(super) fn unserved<'a>(&'a self, policy: &'a Policy, selected: &[&'a str]) -> Unserved<'a> {
        let mut unserved = Unserved::default();
        if policy.token.source != TokenSource::ServiceAccount {
            return unserved;
        }
        let trusted = match &policy.name {
            PolicyName::Namespaced { namespace, .. } => vec![&**namespace],
            PolicyName::Cluster { .. } => named_namespaces(policy).unwrap_or_else(|| selected.to_vec()),
        };
        let mut left = MOST_ACCOUNTS;
        // More namespaces than these have no document.
        for namespace in trusted.into_iter().take(MOST_TRUSTED_NAMESPACES) {
            let known = self.namespaces.value("", namespace);
            if known.is_some_and(|known| !self.is_served(namespace, known)) {
                unserved.namespaces.insert(namespace);
                continue;
            }
            let associated = self.installation.settings.associated_in(namespace);
            unserved.associated.extend(associated.map(|name| (namespace, name)));
            // What was not kept of a namespace is not known either.
            unserved.is_incomplete |= self.service_accounts.exceeded(namespace).is_some();
            for (name, account) in self.service_accounts.iter(namespace) {
                if left == 0 {
                    unserved.is_incomplete = true;
                    break;
                }
                left -= 1;
                if account.opts_out() {
                    unserved.service_accounts.push((namespace, name));
                }
            }
        }
        unserved
    }

    /// Has the trust policies looked at again that may have to name other namespaces now, or to say something else of this one.
    pub(super) fn enqueue_trust_policies_of_namespaces(&mut self, changed: &str) {
        let names = self.cluster_policies(|policy| {
            names_selected_namespaces(policy) || named_namespaces(policy).is_some_and(|named| named.contains(&changed))
        });
        self.dirty.statuses.extend(names);
    }

    /// Has the trust policies looked at again that may have to say something else of a namespace's service accounts.
    pub(super) fn enqueue_trust_policies_of_accounts(&mut self, namespace: &str) {
        self.enqueue_statuses_of(namespace);
        let Some(known) = self.namespaces.value("", namespace) else {
            return;
        };
        let labels = known.labels.borrowed();
        let selects = |policy: &Policy| policy.namespace_selector.matches(&labels);
        let names =
            self.cluster_policies(|policy| policy.token.source == TokenSource::ServiceAccount && selects(policy));
        self.dirty.statuses.extend(names);
    }

    /// The names of the cluster policies of which this is true.
    fn cluster_policies(&self, which: impl Fn(&Policy) -> bool) -> Vec<PolicyName> {
        let is_one = |object: &PolicyObject| object.policy().is_some_and(&which);
        let all = self.objects.iter().filter(|(name, _)| name.is_cluster());
        all.filter(|(_, object)| is_one(object))
            .map(|(name, _)| name.clone())
            .collect()
    }
}
