//! The count of what the webhook can't keep, beside what it keeps.

use serde_json::json;

use super::*;
use crate::policies::PolicyIndex;
use crate::shares::{Room, Shares};

fn policy(namespace: Option<&str>, name: &str, description: &str) -> DynamicObject {
    let kind = namespace.map_or("ClusterTokenScopePolicy", |_| "TokenScopePolicy");
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "spec": {"description": description, "subjects": [{"serviceAccounts": ["orders"]}],
            "roles": {"allowed": ["arn:aws:iam::111122223333:role/a"]}},
    }))
    .unwrap()
}

fn account(name: &str, role: &str) -> PartialObjectMeta<ServiceAccount> {
    let metadata = json!({"name": name, "namespace": "shop", "annotations": {"tokenscope.io/role-arn": role}});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

/// The webhook's own index of policies within these bounds.
fn webhook(bounds: &WebhookBounds) -> PolicyIndex {
    let own_room = |share: Share| Shares::new(share, Room::new(share.bytes));
    PolicyIndex::new(
        Shares::new(bounds.policies, Room::new(bounds.policy_room)),
        own_room(bounds.cluster_policies),
        own_room(bounds.boundaries),
    )
}

#[test]
fn the_count_says_so_at_the_same_policy_as_the_webhooks_own_index() {
    let bounds = WebhookBounds::default();
    for (description, is_large) in [(String::new(), false), ("x".repeat(8000), true)] {
        let (mut webhook, mut count) = (webhook(&bounds), WebhookCount::new(&bounds));
        let mut first = None;
        for number in 0..=1000 {
            let object = policy(Some("shop"), &format!("policy-{number}"), &description);
            let change = count.apply_policy(false, &Event::Apply(object.clone()));
            webhook.apply(false, Event::Apply(object), |_| 0);
            let exceeded = webhook.store(false).exceeded("shop");
            let said = exceeded.map(|bound| NotKept::Policies(ShareExceeded::policies("shop", bound)));
            assert_eq!(count.not_kept("shop"), said, "{number}");
            assert_eq!(change.namespaces.contains("shop"), first.is_none() && said.is_some());
            first = first.or_else(|| said.map(|_| number));
        }
        let first = first.unwrap();
        assert!(if is_large { first < 1000 } else { first == 1000 }, "{first}");
        assert!(count.not_kept("bank").is_none() && count.exceeded_everywhere().is_none());
    }
}

#[test]
fn policies_of_the_cluster_that_are_too_many_concern_everybody_until_one_is_gone() {
    let mut count = WebhookCount::new(&WebhookBounds::default());
    let mut changes = 0;
    for number in 0..1001 {
        let object = policy(None, &format!("policy-{number}"), "");
        changes += usize::from(count.apply_policy(true, &Event::Apply(object)).everywhere);
    }
    let why = count.exceeded_everywhere().unwrap().to_string();
    assert!(
        why.contains("ClusterTokenScopePolicies") && why.contains("1000"),
        "{why}"
    );
    let gone = Event::Delete(policy(None, "policy-7", ""));
    assert!(count.apply_policy(true, &gone).everywhere && changes == 1);
    assert_eq!(count.exceeded_everywhere(), None);
}

#[test]
fn service_accounts_count_by_what_is_kept_of_them_and_a_list_says_only_at_its_end_which_are_gone() {
    let bounds = WebhookBounds {
        service_accounts: Share {
            objects: usize::MAX,
            bytes: 10_000,
        },
        ..WebhookBounds::default()
    };
    let mut count = WebhookCount::new(&bounds);
    for number in 0..10 {
        count.apply_service_account(&Event::Apply(account(&number.to_string(), &"r".repeat(1000))));
    }
    let Some(NotKept::ServiceAccounts(why)) = count.not_kept("shop") else {
        panic!("all are kept");
    };
    assert!(why.to_string().contains("service accounts of namespace shop"), "{why}");
    assert_eq!(count.apply_service_account(&Event::Init), KeptChange::default());
    let one = Event::InitApply(account("1", "r"));
    assert_eq!(count.apply_service_account(&one), KeptChange::default());
    let change = count.apply_service_account(&Event::InitDone);
    assert!(change.namespaces.contains("shop") && !change.everywhere);
    assert_eq!(count.not_kept("shop"), None);
    assert!(!count.wants_list());
}

#[test]
fn a_namespace_that_is_beyond_the_room_of_all_is_named_until_another_one_has_made_room() {
    let bounds = WebhookBounds {
        policy_room: 20_000,
        ..WebhookBounds::default()
    };
    let mut count = WebhookCount::new(&bounds);
    let large = policy(Some("bank"), "large", &"x".repeat(17_000));
    count.apply_policy(false, &Event::Apply(large.clone()));
    let own = policy(Some("shop"), "own", "");
    for number in 0..3 {
        let change = count.apply_policy(false, &Event::Apply(own.clone()));
        assert_eq!(
            change.namespaces.contains("shop"),
            number == 0 && !count.keeps_policies("shop")
        );
        let more = policy(Some("shop"), &number.to_string(), "");
        count.apply_policy(false, &Event::Apply(more));
    }
    let why = format!("{:?}", count.not_kept("shop"));
    assert!(why.contains("Room(20000)"), "{why}");
    let change = count.apply_policy(false, &Event::Delete(large));
    assert_eq!(change.namespaces, BTreeSet::from(["shop".into()]));
    assert_eq!(count.not_kept("shop"), None);
}

#[test]
fn while_a_list_of_one_kind_runs_events_of_another_do_not_change_what_is_said_of_the_first() {
    let mut count = WebhookCount::new(&WebhookBounds::default());
    let named = |number: u32| policy(Some("shop"), &format!("policy-{number}"), "");
    let of_cluster = |number: u32| policy(None, &format!("policy-{number}"), "");
    for number in 0..=1000 {
        count.apply_policy(false, &Event::Apply(named(number)));
        count.apply_policy(true, &Event::Apply(of_cluster(number)));
    }
    let (before, everywhere) = (count.not_kept("shop"), count.exceeded_everywhere());
    assert!(before.is_some() && everywhere.is_some());
    for cluster in [false, true] {
        count.apply_policy(cluster, &Event::Init);
        // The list says what has been deleted since the last one only at its end; an old event may name it.
        let gone = if cluster { of_cluster(7) } else { named(7) };
        count.apply_policy(cluster, &Event::Delete(gone));
    }
    let others = [
        count.apply_service_account(&Event::Apply(account("orders", "r"))),
        count.apply_service_account(&Event::InitDone),
        count.apply_boundary(&Event::Apply(policy(None, "boundary", ""))),
    ];
    assert_eq!(
        others,
        [const {
            KeptChange {
                namespaces: BTreeSet::new(),
                everywhere: false,
            }
        }; 3]
    );
    assert_eq!(
        (count.not_kept("shop"), count.exceeded_everywhere()),
        (before, everywhere)
    );
    for cluster in [false, true] {
        let change = count.apply_policy(cluster, &Event::InitDone);
        assert_eq!((change.namespaces.is_empty(), change.everywhere), (cluster, cluster));
    }
    assert_eq!((count.not_kept("shop"), count.exceeded_everywhere()), (None, None));
}

/// The shortest names.
fn short_name(mut number: usize) -> String {
    let mut name = String::new();
    loop {
        name.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
        if number == 0 {
            return name;
        }
    }
}

#[test]
fn the_room_of_each_kind_is_used_up_before_there_are_objects_that_are_not_counted() {
    let count = WebhookCount::new(&WebhookBounds::default());
    let no_policy: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    let kinds = [
        (count.policies, MOST_POLICIES, object_bytes(&no_policy)),
        (count.service_accounts, MOST_ACCOUNTS, 0),
    ];
    for (mut tally, most, least) in kinds {
        let mut objects = 0;
        for number in 0.. {
            tally.put("other", &number.to_string(), least);
            objects += 1;
            if let Some(exceeded) = tally.exceeded("other") {
                assert!(matches!(exceeded, Exceeded::Room(_)), "{exceeded:?}");
                break;
            }
            for object in 0..most.of_namespace {
                tally.put(&format!("crowd-{number}"), &short_name(object), least);
            }
            assert!(
                tally.exceeded(&format!("crowd-{number}")).is_some(),
                "more than fit are counted"
            );
            objects += most.of_namespace;
        }
        assert!(objects < most.of_all, "{objects}");
    }
}
