//! The annotations of the pod's service account, which count as they were at admission, and the labels of its namespace, which count as
//! they are now.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::setup::{ROLE, Setup, earlier, pod, policy, policy_with, recorded};
use crate::token_claims::issued;

const ADMIN: &str = "arn:aws:iam::111122223333:role/shop/admin";

/// Two policies, each with a role and a tag of its own. The pod asks for nothing itself, and its service account asked for `admitted`
/// when the pod was admitted.
async fn two_roles(admitted: &Value) -> Setup {
    let setup = Setup::new().await;
    let tagged = |role: &str, tag: &str| {
        policy_with(
            "a",
            &json!({"roles": {"allowed": [role]}, "claims": {"principalTags": {"Tenant": tag}}}),
        )
    };
    setup.put_policy(tagged(ROLE, "a"));
    let mut admin = tagged(ADMIN, "admin");
    admin["metadata"]["name"] = json!("admin");
    setup.put_policy(admin);
    setup.put_pod(of_account(admitted));
    setup
}

/// A pod that asks for nothing itself, admitted while its service account had these annotations.
fn of_account(annotations: &Value) -> Value {
    let pod = recorded(pod("a", "a"), "annotations", &json!({}));
    recorded(pod, "service_account_annotations", annotations)
}

/// The policy and the tag of the pod's token.
async fn granted(setup: &Setup) -> (Value, Value) {
    let token = issued(setup).await;
    let tags = &token["https://aws.amazon.com/tags"]["principal_tags"];
    (token["tokenscope.io/policy"]["name"].clone(), tags["Tenant"][0].clone())
}

fn asking(role: &str) -> Value {
    json!({"tokenscope.io/role-arn": role})
}

#[tokio::test]
async fn a_running_pod_keeps_what_its_service_account_gave_it_at_admission_whatever_that_says_now() {
    let setup = two_roles(&asking(ROLE)).await;
    let at_admission = (json!("orders"), json!("a"));
    assert_eq!(granted(&setup).await, at_admission);
    for now in [
        asking(ROLE),
        asking(ADMIN),
        json!({}),
        json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/inject": "false"}),
        json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/audience": "https://elsewhere.example"}),
        json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/token-expiration": "nonsense"}),
    ] {
        setup.put_service_account(&now);
        assert_eq!(granted(&setup).await, at_admission, "{now}");
    }
    let gone = json!({"metadata": {"name": "orders", "namespace": "shop"}});
    let gone = Event::Delete(serde_json::from_value(gone).unwrap());
    setup.index.apply_service_account(gone);
    assert_eq!(granted(&setup).await, at_admission);
}

#[tokio::test]
async fn annotations_that_a_service_account_has_got_since_admission_give_a_running_pod_nothing() {
    let setup = two_roles(&json!({})).await;
    for now in [asking(ROLE), asking(ADMIN)] {
        setup.put_service_account(&now);
        assert_eq!(setup.refused().await.0, "unauthorized_client", "{now}");
    }
    // It has the default role of a policy, and keeps that one.
    setup.put_policy(policy_with(
        "a",
        &json!({"roles": {"default": ROLE, "allowed": [ROLE]}}),
    ));
    setup.put_service_account(&asking(ADMIN));
    assert_eq!(granted(&setup).await.0, "orders");
}

#[tokio::test]
async fn of_what_the_record_says_of_a_service_account_only_what_decides_counts_and_all_of_it_is_counted_as_memory() {
    let setup =
        two_roles(&json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/role-arn.app": ADMIN, "note": "x"})).await;
    assert_eq!(granted(&setup).await, (json!("orders"), json!("a")));
    let kept = setup.index.pod("shop", "orders-1").unwrap();
    let pairs = kept.service_account_annotations().unwrap();
    assert_eq!(pairs.iter().collect::<Vec<_>>(), [("tokenscope.io/role-arn", ROLE)]);
    let bytes = kept.bytes();
    setup.put_pod(of_account(&json!({})));
    assert!(setup.index.pod("shop", "orders-1").unwrap().bytes() + ROLE.len() < bytes);
}

#[tokio::test]
async fn a_pod_that_an_earlier_version_admitted_has_what_its_service_account_says_now() {
    let setup = two_roles(&json!({})).await;
    setup.put_pod(earlier(of_account(&json!({}))));
    for (role, policy) in [(ROLE, "orders"), (ADMIN, "admin")] {
        setup.put_service_account(&asking(role));
        assert_eq!(granted(&setup).await.0, policy);
    }
    setup.put_service_account(&json!({}));
    assert_eq!(setup.refused().await.0, "unauthorized_client");
}

#[tokio::test]
async fn a_policy_selects_namespaces_by_the_labels_that_they_have_now() {
    let setup = Setup::new().await;
    let namespaced = serde_json::from_value(policy("a")).unwrap();
    setup.index.apply_policy(false, Event::Delete(namespaced));
    let mut selecting = policy_with(
        "a",
        &json!({
            "namespaceSelector": {"matchLabels": {"stage": "test"}},
            "claims": {"principalTags": {"Tenant": "${namespace.labels['tenant']}"}},
        }),
    );
    selecting["kind"] = json!("ClusterTokenScopePolicy");
    selecting["metadata"].as_object_mut().unwrap().remove("namespace");
    let event = Event::Apply(serde_json::from_value(selecting).unwrap());
    setup.index.apply_policy(true, event);

    setup.put_namespace(&json!({"stage": "test", "tenant": "a"}));
    assert_eq!(granted(&setup).await.1, "a");
    setup.put_namespace(&json!({"stage": "test", "tenant": "b"}));
    assert_eq!(granted(&setup).await.1, "b");
    setup.put_namespace(&json!({"stage": "live", "tenant": "b"}));
    assert_eq!(setup.refused().await.0, "unauthorized_client");
}
