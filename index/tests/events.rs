//! Events of watches in any order, lists that break off among them, against a fresh list of what there is at the end.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::json;
use tokenscope_index::{KeptAnnotations, PolicyIndex, Room, Share, Shares, Store};

type Account = PartialObjectMeta<ServiceAccount>;
/// Namespace (none for the cluster), name, and what the object says: a number, or nothing sensible.
type Object = (Option<&'static str>, &'static str, Option<u8>);
type Cluster = BTreeMap<(Option<&'static str>, &'static str), Option<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Apply(Object),
    Delete(Option<&'static str>, &'static str),
    /// A list that breaks off after so many objects, changes that nobody tells of, and the list that follows.
    List(usize, Vec<Object>),
}

fn shares() -> Shares {
    let share = Share {
        objects: 100,
        bytes: 1 << 20,
    };
    Shares::new(share, Room::new(usize::MAX))
}

fn policy(&(namespace, name, says): &Object) -> DynamicObject {
    let roles = match says {
        Some(number) => json!({"allowed": [format!("arn:aws:iam::111122223333:role/{number}")]}),
        None => json!("nonsense"),
    };
    let kind = namespace.map_or("ClusterTokenScopePolicy", |_| "TokenScopePolicy");
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": kind, "metadata": {"namespace": namespace, "name": name},
        "spec": {"subjects": [{}], "roles": roles},
    }))
    .unwrap()
}

fn account(&(namespace, name, says): &Object) -> Account {
    let annotations = says.map(|number| json!({"tokenscope.io/audience": number.to_string()}));
    let metadata = json!({"namespace": namespace.unwrap_or("none"), "name": name, "annotations": annotations});
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

/// Both indexes, which are told of the same.
struct Told {
    policies: PolicyIndex,
    accounts: Store<KeptAnnotations>,
}

impl Told {
    fn new() -> Self {
        Self {
            policies: PolicyIndex::new(shares(), shares(), shares()),
            accounts: Store::new("accounts", shares()),
        }
    }

    fn policy(&mut self, cluster: bool, event: Event<DynamicObject>) {
        self.policies.apply(cluster, event, |_| 0);
    }

    fn account(&mut self, event: Event<Account>) {
        self.accounts.apply(event, |found: Account| {
            let annotations = KeptAnnotations::of(&found.metadata);
            let bytes = annotations.bytes();
            (!annotations.is_empty()).then_some((annotations, bytes))
        });
    }

    fn apply(&mut self, object: &Object) {
        self.policy(object.0.is_none(), Event::Apply(policy(object)));
        self.account(Event::Apply(account(object)));
    }

    fn delete(&mut self, object: &Object) {
        self.policy(object.0.is_none(), Event::Delete(policy(object)));
        self.account(Event::Delete(account(object)));
    }

    /// A list, which breaks off after so many objects.
    fn list(&mut self, cluster: &Cluster, most: usize) {
        let is_whole = most >= cluster.len();
        for kind in [false, true] {
            self.policy(kind, Event::Init);
        }
        self.account(Event::Init);
        for (&(namespace, name), &says) in cluster.iter().take(most) {
            let object = (namespace, name, says);
            self.policy(namespace.is_none(), Event::InitApply(policy(&object)));
            self.account(Event::InitApply(account(&object)));
        }
        if is_whole {
            for kind in [false, true] {
                self.policy(kind, Event::InitDone);
            }
            self.account(Event::InitDone);
        }
    }

    /// All that readers see.
    fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for namespace in ["one", "two"] {
            let set = self.policies.set();
            seen.extend(
                set.about(namespace)
                    .map(|policy| format!("{namespace} {:?}", policy.roles)),
            );
            let invalid = set.unusable_about(namespace);
            seen.extend(invalid.map(|policy| format!("{} {}", policy.name(), policy.why())));
        }
        for namespace in ["none", "one", "two"] {
            let mut accounts: Vec<_> = self
                .accounts
                .iter(namespace)
                .map(|(name, kept)| format!("{namespace}/{name} {:?}", kept.pairs()))
                .collect();
            accounts.sort();
            seen.extend(accounts);
        }
        seen.push(format!("{} {}", self.policies.set().len(), self.accounts.len()));
        seen
    }
}

fn object() -> impl Strategy<Value = Object> {
    (
        proptest::sample::select(&[None, Some("one"), Some("two")][..]),
        proptest::sample::select(&["a", "b", "c"][..]),
        proptest::option::of(0..3u8),
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => object().prop_map(Step::Apply),
        3 => object().prop_map(|(namespace, name, _)| Step::Delete(namespace, name)),
        1 => (0..9usize, proptest::collection::vec(object(), 0..5)).prop_map(|(told, changes)| Step::List(told, changes)),
    ]
}

proptest! {
    #[test]
    fn any_order_of_events_equals_a_fresh_list(steps in proptest::collection::vec(step(), 0..50)) {
        let (mut told, mut cluster) = (Told::new(), Cluster::new());
        for step in steps {
            match step {
                Step::Apply(object) => {
                    cluster.insert((object.0, object.1), object.2);
                    told.apply(&object);
                }
                Step::Delete(namespace, name) => {
                    if let Some(says) = cluster.remove(&(namespace, name)) {
                        told.delete(&(namespace, name, says));
                    }
                }
                Step::List(most, changes) => {
                    if most < cluster.len() {
                        told.list(&cluster, most);
                    }
                    for (namespace, name, says) in changes {
                        match says {
                            Some(_) => cluster.insert((namespace, name), says),
                            None => cluster.remove(&(namespace, name)),
                        };
                    }
                    told.list(&cluster, usize::MAX);
                }
            }
        }
        let mut fresh = Told::new();
        fresh.list(&cluster, usize::MAX);
        prop_assert_eq!(told.seen(), fresh.seen());
        prop_assert_eq!(told.policies.set().len(), cluster.len());
    }
}
