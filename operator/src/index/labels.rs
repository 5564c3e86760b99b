//! Labels under tokenscope's prefix on namespaces that have no effect: a value other than true or false, or an unknown key.

use std::iter;

use tokenscope_core::{PodFacts, Policy, PolicyName, known_keys};
use tokenscope_index::PodContext;

use super::Index;

/// The most namespaces that a status names.
const MOST_SHOWN: usize = 3;
/// The most that are looked at for one status.
const MOST_EXAMINED: usize = 256;

/// The labels of a policy's namespaces that have no effect.
#[derive(Debug, Default)]
pub(crate) struct IneffectiveLabels<'a> {
    /// Namespaces, and a sentence for each label of theirs.
    pub(crate) shown: Vec<(&'a str, Vec<String>)>,
    /// The number of further namespaces with such labels.
    pub(crate) more: usize,
}

impl Index {
    /// Notes a namespace that has labels without effect, or no longer has any, and has the statuses looked at again that tell of them.
    pub(super) fn note_labels(&mut self, namespace: &str) {
        let had = self.ineffective_labels.contains(namespace);
        let has = !self.label_warnings(namespace).is_empty();
        if has {
            self.ineffective_labels.insert(namespace.into());
        } else {
            self.ineffective_labels.remove(namespace);
        }
        if had || has {
            let of_cluster = self.objects.keys().filter(|name| name.is_cluster());
            self.dirty.statuses.extend(of_cluster.cloned());
        }
    }

    /// The labels without effect of the namespaces that a policy is about.
    pub(super) fn ineffective_labels(&self, name: &PolicyName, policy: Option<&Policy>) -> IneffectiveLabels<'_> {
        let labels_of = |namespace: &str| Some(self.namespaces.value("", namespace)?.labels.borrowed());
        let selects = |namespace: &&str| {
            let selector = policy.map(|policy| &policy.namespace_selector);
            let labels = labels_of(namespace);
            selector
                .zip(labels)
                .is_some_and(|(selector, labels)| selector.matches(&labels))
        };
        let all = self.ineffective_labels.iter().map(|namespace| &**namespace);
        let mut about: Vec<&str> = if let Some(own) = name.namespace() {
            self.ineffective_labels.get(own).map(|own| &**own).into_iter().collect()
        } else {
            all.take(MOST_EXAMINED).filter(selects).collect()
        };
        let more = about.len().saturating_sub(MOST_SHOWN);
        about.truncate(MOST_SHOWN);
        let shown = about
            .into_iter()
            .map(|namespace| (namespace, self.label_warnings(namespace)));
        IneffectiveLabels {
            shown: shown.collect(),
            more,
        }
    }

    /// The warnings to whoever creates a pod in a namespace, because of the namespace's labels.
    fn label_warnings(&self, namespace: &str) -> Vec<String> {
        let Some(known) = self.namespaces.value("", namespace) else {
            return Vec::new();
        };
        let context = PodContext {
            namespace,
            namespace_labels: known.labels.borrowed(),
            service_account: "",
            service_account_annotations: iter::empty().collect(),
        };
        let request = context.request(PodFacts::default());
        known_keys::warnings(&request, iter::empty(), &self.installation.settings)
    }
}
