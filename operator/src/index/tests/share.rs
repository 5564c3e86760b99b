//! A namespace that takes more than its share, and the order of events.

use tokenscope_fixtures::Numbers;

use super::*;

/// A small share, so that little fills it.
const SHARE: usize = 1 << 20;

fn test_with_small_share() -> Test {
    Test::with_share(Settings::default(), SHARE)
}

/// A pod that takes a twentieth of a namespace's share.
fn heavy(name: &str) -> Value {
    let mut object = pod("shop", name, at("07:00"), &json!({}));
    object["metadata"]["labels"] = json!({"heavy": "x".repeat(SHARE / 20)});
    object
}

fn change(object: &Value) -> IndexEvent {
    IndexEvent::Pod(Event::Apply(serde_json::from_value(object.clone()).unwrap()))
}

fn deleted(object: &Value) -> IndexEvent {
    IndexEvent::Pod(Event::Delete(serde_json::from_value(object.clone()).unwrap()))
}

#[test]
fn a_namespace_over_its_share_is_not_judged_says_so_and_harms_no_other() {
    let mut test = test_with_small_share();
    let policy = test.policy("orders", &default_role(ROLE));
    let everywhere = test.cluster_policy(
        "all",
        &json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ROLE}}),
    );
    test.namespace("bank", &json!({}));
    test.apply(change(&pod("bank", "b", at("07:00"), &json!({}))));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
    for number in 0..30 {
        test.apply(change(&heavy(&format!("heavy-{number}"))));
    }
    test.reassess();
    assert_eq!(test.index.namespaces_over_share(), 1);
    let status = test.status(&policy);
    assert_eq!(status.matched_pods, None);
    assert_eq!(test.ready_reason(&policy), "NamespaceOverShare");
    assert!(test.ready_message(&policy).contains("24 MiB"));
    assert_eq!(test.counts(&everywhere), [1, 0, 1, 0], "the pod of the other namespace");
    assert_eq!(test.index.findings().count(), 1);

    let kept = test.index.pods.iter("shop");
    let kept: usize = kept.map(|(_, pod)| pod.bytes()).sum();
    assert!(kept <= SHARE, "{kept}");
}

#[test]
fn a_namespace_that_is_within_its_share_again_is_judged_once_lists_were_read_anew() {
    let mut test = test_with_small_share();
    let policy = test.policy("orders", &default_role(ROLE));
    let pods: Vec<Value> = (0..25).map(|number| heavy(&format!("pod-{number}"))).collect();
    for object in &pods {
        test.apply(change(object));
    }
    assert!(!test.index.wants_lists());
    for object in &pods[..10] {
        test.apply(deleted(object));
    }
    assert!(test.index.wants_lists());
    assert_eq!(test.ready_reason(&policy), "NamespaceOverShare");

    test.apply(IndexEvent::Pod(Event::Init));
    for object in &pods[10..] {
        test.apply(IndexEvent::Pod(Event::InitApply(
            serde_json::from_value(object.clone()).unwrap(),
        )));
    }
    test.apply(IndexEvent::Pod(Event::InitDone));
    assert!(!test.index.wants_lists());
    assert_eq!(test.counts(&policy), [15, 0, 0, 15]);
    let reason = test.ready_reason(&policy);
    assert_eq!(reason, "MaybeMissedPods", "nobody knows what was there meanwhile");
    assert_eq!(test.index.namespaces_over_share(), 0);
}

#[test]
fn policies_and_service_accounts_count_too() {
    let mut test = test_with_small_share();
    let mut spec = default_role(ROLE);
    spec["description"] = "x".repeat(SHARE / 4).into();
    let policies: Vec<_> = (0..5).map(|number| test.policy(&format!("p{number}"), &spec)).collect();
    assert_eq!(test.ready_reason(&policies[0]), "NamespaceOverShare");
    for policy in &policies[1..] {
        test.delete_policy(policy);
    }
    assert_eq!(test.index.namespaces_over_share(), 0);
    assert_ne!(test.ready_reason(&policies[0]), "NamespaceOverShare");

    for number in 0..1000 {
        test.account(&format!("account-{number}"), &"x".repeat(20_000), at("01:00"));
    }
    assert_eq!(test.index.namespaces_over_share(), 1);
    let accounts = test.index.service_accounts.iter("shop");
    let kept = accounts.map(|(_, account)| account.annotations.bytes());
    assert!(kept.sum::<usize>() <= SHARE);
}

/// What the status of a policy says: its counts, and why it is ready or not.
type Said = (String, [Option<i64>; 4], String);

/// Everything that follows for the outside, but for what is known of the past: a missed pod counts as an outdated one. The pods to
/// which something is to be done come last.
fn outcome(test: &mut Test) -> (Vec<Said>, [i64; 3], usize, BTreeSet<String>) {
    test.written();
    let names: Vec<_> = test.index.objects.keys().cloned().collect();
    let mut statuses = Vec::new();
    for name in names {
        let status = test.status(&name);
        let counts = [
            status.matched_pods,
            status.injected_pods,
            status
                .missed_pods
                .zip(status.outdated_pods)
                .map(|(missed, outdated)| missed + outdated),
            status.ungranted_token_pods,
        ];
        let reason = match &*test.ready_reason(&name) {
            "MissedPods" | "MaybeMissedPods" | "OutdatedPods" => "a restart would change pods".to_owned(),
            other => other.to_owned(),
        };
        statuses.push((name.to_string(), counts, reason));
    }
    let findings = test
        .index
        .findings()
        .map(|(key, finding)| format!("{key:?} {:?} {}", finding.cause, finding.evictable));
    let [matched, injected, missed, outdated] = test.totals();
    (
        statuses,
        [matched, injected, missed + outdated],
        test.index.pods_with_ungranted_token(),
        findings.collect(),
    )
}

/// A cluster that changes, and what is in it.
struct History {
    test: Test,
    present: BTreeMap<String, Value>,
    policies: BTreeMap<String, (i64, Value)>,
}

impl History {
    /// Lets one thing happen.
    fn step(&mut self, numbers: &mut Numbers) {
        let name = format!("pod-{}", numbers.below(12));
        match numbers.below(8) {
            0 | 1 => {
                let role = [ROLE, OTHER_ROLE][numbers.below(2)];
                let spec = if numbers.below(2) == 0 {
                    default_role(role)
                } else {
                    json!({"subjects": [{}], "roles": {"allowed": [role]}})
                };
                let policy = format!("policy-{}", numbers.below(3));
                let generation = self.policies.get(&policy).map_or(1, |(generation, _)| generation + 1);
                // A generation counts from when it was seen, which a fresh list can't know: so it is a new object.
                self.test.delete_policy(&PolicyName::namespaced("shop", &policy));
                self.test.policy_object(&policy, 1, &spec);
                self.policies.insert(policy, (generation, spec));
            }
            2 => {
                if let Some(object) = self.present.remove(&name) {
                    self.test.apply(deleted(&object));
                }
            }
            3 => self.test.reassess(),
            4 => {
                let mut object = heavy(&name);
                object["metadata"]["uid"] = "heavy".into();
                object["metadata"]["labels"]["size"] = numbers.below(100).to_string().into();
                self.test.apply(change(&object));
                self.present.insert(name, object);
            }
            _ => {
                let (early, holds) = (numbers.below(2), numbers.below(2));
                let annotations = [json!({}), json!({"tokenscope.io/role-arn": ROLE})];
                let annotations = &annotations[numbers.below(2)];
                let mut object = pod("shop", &name, at(["05:00", "07:00"][early]), annotations);
                // Time and spec of a pod never change.
                object["metadata"]["uid"] = format!("{early} {holds}").into();
                if holds == 1 {
                    let token = json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "t"}});
                    object["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [token]}}]);
                }
                self.test.apply(change(&object));
                self.present.insert(name, object);
            }
        }
    }
}

#[test]
fn any_order_of_events_comes_to_what_a_fresh_list_does() {
    for seed in 0..100 {
        let mut numbers = Numbers::new(seed);
        let mut history = History {
            test: test_with_small_share(),
            present: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        for _ in 0..120 {
            history.step(&mut numbers);
        }
        let mut fresh = test_with_small_share();
        for object in history.present.values() {
            fresh.apply(change(object));
        }
        for (name, (_, spec)) in &history.policies {
            fresh.policy_object(name, 1, spec);
        }
        let (statuses, totals, ungranted, findings) = outcome(&mut history.test);
        let (in_fresh, fresh_totals, fresh_ungranted, fresh_findings) = outcome(&mut fresh);
        assert_eq!(
            (statuses, totals, ungranted),
            (in_fresh, fresh_totals, fresh_ungranted),
            "seed {seed}"
        );
        // The other one sees all at its creation.
        assert!(
            findings.is_subset(&fresh_findings),
            "seed {seed}: {findings:?} {fresh_findings:?}"
        );
    }
}
