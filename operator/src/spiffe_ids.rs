//! The pods that spire-controller-manager gives an identity, where it is in the cluster.
//!
//! A pod whose token comes from SPIFFE waits for an identity, forever if no ClusterSPIFFEID is about it. Where the cluster
//! has no such definitions, identities come in other ways, and nothing is reported.

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use tokenscope_core::{Pairs, Selector};
use tokenscope_crds::read;
use tokenscope_index::{Room, Share, Shares, Store, estimate};

/// The share of ClusterSPIFFEIDs, which only administrators write.
const SHARE: Share = Share {
    objects: 10_000,
    bytes: 8 << 20,
};

/// An event of the watch, or none where the cluster has no such definitions (any more).
pub(crate) type SpiffeIdEvent = Option<Event<DynamicObject>>;

/// The ClusterSPIFFEIDs that are known.
#[derive(Debug)]
pub(crate) struct SpiffeIds {
    /// Only those of this class count.
    class_name: Option<String>,
    rules: Store<IdentityRule>,
}

impl Default for SpiffeIds {
    fn default() -> Self {
        Self::of_class(None)
    }
}

/// The pods that a ClusterSPIFFEID selects.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IdentityRule {
    namespaces: Selector,
    pods: Selector,
}

impl SpiffeIds {
    /// Nothing is known yet.
    pub(crate) fn of_class(class_name: Option<String>) -> Self {
        Self {
            class_name,
            rules: Store::new("ClusterSPIFFEIDs", Shares::new(SHARE, Room::new(SHARE.bytes))),
        }
    }

    /// True if a pod gets an identity, as far as is known.
    pub(crate) fn cover<N: AsRef<str>, P: AsRef<str>>(
        &self,
        namespace_labels: &Pairs<N>,
        pod_labels: &Pairs<P>,
    ) -> bool {
        let all_are_known = self.rules.is_synced() && self.rules.exceeded("").is_none();
        let mut rules = self.rules.iter("").map(|(_, rule)| rule);
        !all_are_known || rules.any(|rule| rule.namespaces.matches(namespace_labels) && rule.pods.matches(pod_labels))
    }

    /// Takes an event in; answers whether other pods may be covered now.
    pub(crate) fn apply(&mut self, event: SpiffeIdEvent) -> bool {
        let was_synced = self.rules.is_synced();
        let Some(event) = event else {
            *self = Self::of_class(self.class_name.take());
            return was_synced;
        };
        let class_name = self.class_name.as_deref();
        let updates = self.rules.apply(event, |found| {
            let bytes = estimate(&found.data);
            Some((rule(class_name, &found)?, bytes))
        });
        let mut updates = updates.iter();
        updates.any(|update| self.rules.value("", &update.name) != update.before.as_ref())
            || self.rules.is_synced() != was_synced
    }
}

/// None where it is another controller's.
fn rule(class_name: Option<&str>, object: &DynamicObject) -> Option<IdentityRule> {
    let spec = object.data.get("spec");
    let found = spec
        .and_then(|spec| spec.get("className")?.as_str())
        .unwrap_or_default();
    if class_name.is_some_and(|wanted| wanted != found) {
        return None;
    }
    // One that can't be understood is about all: better silent than wrong.
    let selector = |field: &str| {
        let selector = spec
            .and_then(|spec| spec.get(field))
            .map(|found| read::selector(found, field));
        selector.and_then(Result::ok).unwrap_or_default()
    };
    Some(IdentityRule {
        namespaces: selector("namespaceSelector"),
        pods: selector("podSelector"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the watch gives it")]
    fn applied(name: &str, spec: &Value) -> SpiffeIdEvent {
        Some(Event::Apply(object(name, spec)))
    }

    fn covered(spiffe_ids: &SpiffeIds, team: &str, app: &str) -> bool {
        let namespace: Pairs<&str> = [("team", team)].into_iter().collect();
        let pod: Pairs<&str> = [("app", app)].into_iter().collect();
        spiffe_ids.cover(&namespace, &pod)
    }

    #[test]
    fn a_pod_is_covered_by_any_rule_that_selects_it_and_its_namespace() {
        let mut spiffe_ids = SpiffeIds::default();
        assert!(covered(&spiffe_ids, "shop", "orders"), "nothing is known");
        assert!(spiffe_ids.apply(Some(Event::InitDone)));
        assert!(!covered(&spiffe_ids, "shop", "orders"));

        let shop = json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "orders"}}});
        assert!(spiffe_ids.apply(applied("shop", &shop)));
        assert!(!spiffe_ids.apply(applied("shop", &shop)), "nothing new");
        assert!(covered(&spiffe_ids, "shop", "orders"));
        assert!(!covered(&spiffe_ids, "shop", "carts") && !covered(&spiffe_ids, "bank", "orders"));

        assert!(spiffe_ids.apply(applied("fallback", &json!({"fallback": true}))));
        assert!(covered(&spiffe_ids, "bank", "carts"));
        assert!(spiffe_ids.apply(Some(Event::Delete(object("fallback", &json!({}))))));
        assert!(!covered(&spiffe_ids, "bank", "carts"));

        assert!(spiffe_ids.apply(None));
        assert!(covered(&spiffe_ids, "bank", "carts"), "there is no controller manager");
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut spiffe_ids = SpiffeIds::default();
        spiffe_ids.apply(Some(Event::Init));
        spiffe_ids.apply(Some(Event::InitApply(object("a", &json!({})))));
        spiffe_ids.apply(Some(Event::InitDone));
        assert!(covered(&spiffe_ids, "shop", "orders"));
        spiffe_ids.apply(Some(Event::Init));
        assert!(spiffe_ids.apply(Some(Event::InitDone)));
        assert!(!covered(&spiffe_ids, "shop", "orders"));
    }

    #[test]
    fn a_class_leaves_the_others_out() {
        let mut spiffe_ids = SpiffeIds::of_class(Some("ours".into()));
        spiffe_ids.apply(Some(Event::InitDone));
        spiffe_ids.apply(applied("a", &json!({"className": "theirs"})));
        spiffe_ids.apply(applied("b", &json!({})));
        assert!(!covered(&spiffe_ids, "shop", "orders"));
        spiffe_ids.apply(applied("a", &json!({"className": "ours"})));
        assert!(covered(&spiffe_ids, "shop", "orders"));
        spiffe_ids.apply(applied("a", &json!({"className": "theirs"})));
        assert!(!covered(&spiffe_ids, "shop", "orders"));
    }

    #[test]
    fn a_selector_that_nobody_understands_accuses_nobody() {
        let mut spiffe_ids = SpiffeIds::default();
        spiffe_ids.apply(Some(Event::InitDone));
        spiffe_ids.apply(applied(
            "odd",
            &json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
        ));
        assert!(covered(&spiffe_ids, "shop", "orders"));
    }
}
