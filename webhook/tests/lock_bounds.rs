//! The lock beyond the bounds of what is looked at.

mod fixtures;

use fixtures::{by_hand, locked, refused, run_issuer};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_webhook::metrics::ReviewOutcome;

#[test]
fn a_pod_with_more_volumes_or_sources_than_are_looked_at_is_refused_where_the_lock_denies() {
    let token = by_hand("sts.amazonaws.com", 600)["spec"]["volumes"][0]["projected"]["sources"][0].clone();
    let mut sources = by_hand("vault", 600);
    let list = sources["spec"]["volumes"][0]["projected"]["sources"]
        .as_array_mut()
        .unwrap();
    list.resize(32, json!({"configMap": {"name": "c"}}));
    list.push(token);
    let mut volumes = by_hand("vault", 600);
    let list = volumes["spec"]["volumes"].as_array_mut().unwrap();
    list.extend((0..256).map(|number| json!({"name": format!("v{number}"), "emptyDir": {}})));
    for (pod, said) in [(sources, "more than 32 sources"), (volumes, "more than 256 volumes")] {
        let mut fixture = locked(LockMode::Deny);
        fixture.policies = tokenscope_core::PolicySet::default();
        assert!(refused(&fixture.review(&pod)).contains(said));
        fixture.settings.lock.exempt_namespaces = vec!["shop".into()];
        assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched);
        run_issuer(&mut fixture);
        assert!(refused(&fixture.review(&pod)).contains(said));
    }
}

#[test]
fn a_pod_with_a_locked_token_and_more_containers_or_mounts_than_are_looked_at_is_refused() {
    let granted = by_hand("sts.amazonaws.com", 3600);
    let fixture = locked(LockMode::Deny);
    assert_ne!(fixture.review(&granted).outcome(), ReviewOutcome::Denied);

    let with_256_more = |list: &str, item: Value| {
        let mut pod = granted.clone();
        let list = pod.pointer_mut(list).and_then(Value::as_array_mut).unwrap();
        list.resize(list.len() + 256, item);
        pod
    };
    let containers = with_256_more("/spec/containers", json!({"name": "c", "image": "i"}));
    let mounts = with_256_more(
        "/spec/containers/0/volumeMounts",
        json!({"name": "o", "mountPath": "/o"}),
    );
    for (pod, said) in [(containers, "more than 256 containers"), (mounts, "more than 256")] {
        assert!(refused(&fixture.review(&pod)).contains(said));
        // Without a locked token it is nobody's business.
        let mut other = pod;
        other["spec"]["volumes"] = by_hand("vault", 3600)["spec"]["volumes"].clone();
        assert_ne!(fixture.review(&other).outcome(), ReviewOutcome::Denied);
    }
}
