//! Which pods spire-controller-manager gives an identity, where it is in the cluster.
//!
//! A pod whose token comes from SPIFFE waits for an identity, forever if no ClusterSPIFFEID is about it. Where the cluster
//! has no such definitions, identities come by other ways, and there is nothing to say.

use crate::{watching::follow, world::Change};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::Event,
};
use std::{collections::BTreeMap, convert::Infallible};
use tokenscope_core::{Pairs, Selector};
use tokenscope_crds::read;
use tokenscope_platform::telemetry;
use tokio::{sync::mpsc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The group and version of spire-controller-manager's definitions.
const API_VERSION: &str = "spire.spiffe.io/v1alpha1";
const PLURAL: &str = "clusterspiffeids";

/// How often it is looked whether the definitions came or went.
const LOOK: Duration = Duration::from_secs(10);

/// What the watch told, or none where the cluster has no such definitions (any more).
pub(crate) type Told = Option<Event<DynamicObject>>;

/// What is known of ClusterSPIFFEIDs.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    /// Only those of this class count.
    class_name: Option<String>,
    /// By name, with the number of the list that had it last.
    rules: BTreeMap<String, (Rule, u32)>,
    list: u32,
    /// Whether a list was whole once.
    known: bool,
}

/// Which pods a ClusterSPIFFEID is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    namespaces: Selector,
    pods: Selector,
}

impl Identities {
    /// Nothing is known yet.
    pub(crate) fn of_class(class_name: Option<String>) -> Self {
        Self {
            class_name,
            ..Self::default()
        }
    }

    /// Whether a pod gets an identity, as far as is known.
    pub(crate) fn cover<N: AsRef<str>, P: AsRef<str>>(
        &self,
        namespace_labels: &Pairs<N>,
        pod_labels: &Pairs<P>,
    ) -> bool {
        let mut rules = self.rules.values();
        !self.known || rules.any(|(rule, _)| rule.namespaces.matches(namespace_labels) && rule.pods.matches(pod_labels))
    }

    /// Takes in what was told; answers whether other pods may be covered now.
    pub(crate) fn apply(&mut self, told: Told) -> bool {
        match told {
            None => {
                let known = self.known;
                *self = Self::of_class(self.class_name.take());
                known
            }
            Some(Event::Init) => {
                self.list = self.list.wrapping_add(1);
                false
            }
            Some(Event::InitApply(found) | Event::Apply(found)) => {
                let name = found.metadata.name.clone().unwrap_or_default();
                match self.rule(&found) {
                    None => self.rules.remove(&name).is_some(),
                    Some(rule) => {
                        let before = self.rules.insert(name, (rule.clone(), self.list));
                        before.is_none_or(|(before, _)| before != rule)
                    }
                }
            }
            Some(Event::Delete(found)) => {
                let name = found.metadata.name.unwrap_or_default();
                self.rules.remove(&name).is_some()
            }
            Some(Event::InitDone) => {
                let (before, list) = (self.rules.len(), self.list);
                self.rules.retain(|_, (_, number)| *number == list);
                let first = !self.known;
                self.known = true;
                first || self.rules.len() != before
            }
        }
    }

    /// None where it is another controller's.
    fn rule(&self, object: &DynamicObject) -> Option<Rule> {
        let spec = object.data.get("spec");
        let class_name = spec
            .and_then(|spec| spec.get("className")?.as_str())
            .unwrap_or_default();
        if self.class_name.as_deref().is_some_and(|wanted| wanted != class_name) {
            return None;
        }
        // One that can't be understood is about all: better silent than wrong.
        let selector = |field: &str| {
            let selector = spec
                .and_then(|spec| spec.get(field))
                .map(|found| read::selector(found, field));
            selector.and_then(Result::ok).unwrap_or_default()
        };
        Some(Rule {
            namespaces: selector("namespaceSelector"),
            pods: selector("podSelector"),
        })
    }
}

/// Watches ClusterSPIFFEIDs while the cluster has their definition.
pub(crate) async fn run(
    client: Client,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID"));
    PLURAL.clone_into(&mut resource.plural);
    let mut watch: Option<CancellationToken> = None;
    loop {
        match is_defined(&client).await {
            Ok(true) if watch.is_none() => {
                tracing::info!("the cluster has ClusterSPIFFEIDs, so pods that match none are told of");
                let stop = stop.child_token();
                let api = Api::all_with(client.clone(), &resource);
                let told = |event| Change::Identities(Some(event));
                tokio::spawn(follow(api, PLURAL, changes.clone(), told, None, stop.clone()));
                watch = Some(stop);
            }
            Ok(false) => {
                if let Some(watch) = watch.take() {
                    watch.cancel();
                    // Once the other end is gone, the process stops.
                    let _ = changes.send(Change::Identities(None)).await;
                }
            }
            Ok(true) => {}
            Err(error) => tracing::warn!(
                error = telemetry::chain(&error),
                "whether the cluster has ClusterSPIFFEIDs is not known"
            ),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return Ok(());
        }
    }
}

async fn is_defined(client: &Client) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(API_VERSION).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == PLURAL)),
        // Plain text and no Status: nobody knows the group.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the watch tells it")]
    fn applied(name: &str, spec: &Value) -> Told {
        Some(Event::Apply(object(name, spec)))
    }

    fn covered(identities: &Identities, team: &str, app: &str) -> bool {
        let namespace: Pairs<&str> = [("team", team)].into_iter().collect();
        let pod: Pairs<&str> = [("app", app)].into_iter().collect();
        identities.cover(&namespace, &pod)
    }

    #[test]
    fn a_pod_is_covered_by_any_rule_that_selects_it_and_its_namespace() {
        let mut identities = Identities::default();
        assert!(covered(&identities, "shop", "orders"), "nothing is known");
        assert!(identities.apply(Some(Event::InitDone)));
        assert!(!covered(&identities, "shop", "orders"));

        let shop = json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "orders"}}});
        assert!(identities.apply(applied("shop", &shop)));
        assert!(!identities.apply(applied("shop", &shop)), "nothing new");
        assert!(covered(&identities, "shop", "orders"));
        assert!(!covered(&identities, "shop", "carts") && !covered(&identities, "bank", "orders"));

        assert!(identities.apply(applied("fallback", &json!({"fallback": true}))));
        assert!(covered(&identities, "bank", "carts"));
        assert!(identities.apply(Some(Event::Delete(object("fallback", &json!({}))))));
        assert!(!covered(&identities, "bank", "carts"));

        assert!(identities.apply(None));
        assert!(covered(&identities, "bank", "carts"), "there is no controller manager");
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut identities = Identities::default();
        identities.apply(Some(Event::Init));
        identities.apply(Some(Event::InitApply(object("a", &json!({})))));
        identities.apply(Some(Event::InitDone));
        assert!(covered(&identities, "shop", "orders"));
        identities.apply(Some(Event::Init));
        assert!(identities.apply(Some(Event::InitDone)));
        assert!(!covered(&identities, "shop", "orders"));
    }

    #[test]
    fn a_class_leaves_the_others_out() {
        let mut identities = Identities::of_class(Some("ours".into()));
        identities.apply(Some(Event::InitDone));
        identities.apply(applied("a", &json!({"className": "theirs"})));
        identities.apply(applied("b", &json!({})));
        assert!(!covered(&identities, "shop", "orders"));
        identities.apply(applied("a", &json!({"className": "ours"})));
        assert!(covered(&identities, "shop", "orders"));
        identities.apply(applied("a", &json!({"className": "theirs"})));
        assert!(!covered(&identities, "shop", "orders"));
    }

    #[test]
    fn a_selector_that_nobody_understands_accuses_nobody() {
        let mut identities = Identities::default();
        identities.apply(Some(Event::InitDone));
        identities.apply(applied(
            "odd",
            &json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
        ));
        assert!(covered(&identities, "shop", "orders"));
    }
}
