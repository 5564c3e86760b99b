//! The policies that those who decide by them see.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokenscope_index::{PolicyIndex, Room, Share, Shares};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Policy,
    ClusterPolicy,
    Boundary,
}

use Kind::{Boundary, ClusterPolicy, Policy};

fn index() -> PolicyIndex {
    let share = Share {
        objects: 10,
        bytes: 1 << 20,
    };
    let shares = || Shares::new(share, Room::new(1 << 20));
    PolicyIndex::new(shares(), shares(), shares())
}

fn apply(index: &mut PolicyIndex, kind: Kind, event: Event<DynamicObject>) {
    match kind {
        Boundary => {
            index.apply_boundary(event);
        }
        Policy | ClusterPolicy => {
            index.apply(kind == ClusterPolicy, event, |_| 0);
        }
    }
}

fn policy() -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"namespace": "shop", "name": "orders"},
        "spec": {"subjects": [{}], "roles": {"allowed": ["arn:aws:iam::111122223333:role/orders"]}},
    }))
    .unwrap()
}

#[test]
fn there_are_no_policies_to_decide_by_before_every_kind_was_listed_in_whatever_order() {
    for order in [
        [Policy, ClusterPolicy, Boundary],
        [Policy, Boundary, ClusterPolicy],
        [ClusterPolicy, Policy, Boundary],
        [ClusterPolicy, Boundary, Policy],
        [Boundary, Policy, ClusterPolicy],
        [Boundary, ClusterPolicy, Policy],
    ] {
        let mut index = index();
        apply(&mut index, Policy, Event::Apply(policy()));
        for kind in order {
            assert!(index.published().is_none(), "{order:?} before {kind:?}");
            apply(&mut index, kind, Event::Init);
            if kind == Policy {
                apply(&mut index, kind, Event::InitApply(policy()));
            }
            assert!(index.published().is_none(), "{order:?} in {kind:?}");
            apply(&mut index, kind, Event::InitDone);
        }
        assert_eq!(index.published().unwrap().len(), 1);
    }
}

#[test]
fn while_a_list_of_any_kind_runs_there_are_no_new_policies_to_decide_by() {
    let mut index = index();
    for kind in [Policy, ClusterPolicy, Boundary] {
        apply(&mut index, kind, Event::Init);
        apply(&mut index, kind, Event::InitDone);
    }
    for kind in [Policy, ClusterPolicy, Boundary] {
        apply(&mut index, kind, Event::Init);
        apply(&mut index, Policy, Event::Apply(policy()));
        assert!(index.published().is_none(), "{kind:?}");
        apply(&mut index, kind, Event::InitDone);
        assert!(index.published().is_some(), "{kind:?}");
    }
}
