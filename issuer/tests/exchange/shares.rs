//! Namespaces that use up what is kept of them, or of all: nobody is told that a grant was withdrawn.

use http::StatusCode;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_index::{PodObject, pod_identity};
use tokenscope_issuer::metrics::IssuerMetrics;

use crate::fixtures::claims;
use crate::limits::{heavy, of_another_namespace, pod_of_another_namespace};
use crate::setup::{POD_UID, Setup, earlier, pod};

const STS: &str = "sts.amazonaws.com";

/// Policies of a namespace that are about nobody, each with so many bytes of text.
fn put_policies(setup: &Setup, namespace: &str, count: usize, bytes: usize) {
    for number in 0..count {
        setup.put_policy(json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": format!("filling-{bytes}-{number}"), "namespace": namespace, "uid": "x"},
            "spec": {"description": "x".repeat(bytes)},
        }));
    }
}

/// Service accounts of a namespace, each with so many bytes of annotations.
fn put_service_accounts(setup: &Setup, namespace: &str, count: usize, bytes: usize) {
    for number in 0..count {
        let annotations = if bytes == 0 {
            json!({})
        } else {
            json!({"tokenscope.io/containers": "x".repeat(bytes / 2), "tokenscope.io/skip-containers": "x".repeat(bytes / 2)})
        };
        setup.put_service_account_in(namespace, &format!("{bytes}-{number}"), &annotations);
    }
}

async fn is_issued(setup: &Setup, subject: &str) {
    let (status, body) = setup.exchange(subject, STS).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

/// The exchange is answered in a way that no sidecar takes for the end of a grant; the description.
async fn is_told_to_come_again(setup: &Setup, subject: &str) -> String {
    let (status, body) = setup.exchange(subject, STS).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("temporarily_unavailable")),
        "{body}"
    );
    body["error_description"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn four_namespaces_whose_policies_take_all_room_withdraw_nothing_from_others() {
    let setup = Setup::new().await;
    for namespace in 0..4 {
        put_policies(&setup, &format!("full-{namespace}"), 130, 32 << 10);
    }
    put_policies(&setup, "crumbs", 60, 0);
    let later = of_another_namespace(&setup);
    let description = is_told_to_come_again(&setup, &later).await;
    assert!(
        description.contains(
            "the TokenScopePolicies of namespace web take more than is left of the 16384 KiB for all namespaces"
        ) && description.contains("ask an administrator"),
        "{description}"
    );
    is_issued(&setup, &setup.subject()).await;
    assert!(setup.told.next_notice().is_none(), "nobody there can put it right");
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_exchanges_total{outcome=\"unavailable\"} 1"),
        "{counted}"
    );
}

#[tokio::test]
async fn a_namespace_whose_own_policies_are_too_many_is_told_so_and_nothing_is_withdrawn_from_its_pods() {
    let setup = Setup::new().await;
    IssuerMetrics::show_sizes(&setup.registry, &setup.index);
    put_policies(&setup, "shop", 130, 32 << 10);
    let description = is_told_to_come_again(&setup, &setup.subject()).await;
    assert!(
        description.contains("the TokenScopePolicies of namespace shop take more than their share"),
        "{description}"
    );
    let notice = setup.told.next_notice().unwrap();
    assert!(notice.message.contains(&description), "{}", notice.message);
    is_issued(&setup, &of_another_namespace(&setup)).await;
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_namespaces_over_share 1\n"),
        "{counted}"
    );
}

#[tokio::test]
async fn three_namespaces_whose_service_accounts_take_all_room_matter_to_no_pod_with_a_record_of_its_own() {
    let setup = Setup::new().await;
    setup.put_service_account(&json!({}));
    for namespace in 0..4 {
        put_service_accounts(&setup, &format!("full-{namespace}"), 400, 32_000);
    }
    put_service_accounts(&setup, "crumbs", 400, 0);
    setup.put_service_account_in(
        "web",
        "orders",
        &json!({"tokenscope.io/audience": STS, "tokenscope.io/inject": "true"}),
    );
    let later = of_another_namespace(&setup);
    is_issued(&setup, &later).await;

    // Of pods that an earlier version admitted nobody else knows what their service account says.
    setup.put_pod(earlier(pod_of_another_namespace()));
    let description = is_told_to_come_again(&setup, &later).await;
    assert!(
        description.contains("what service account web/orders says is not known")
            && description.contains("create the pod anew"),
        "{description}"
    );
    setup.put_pod(earlier(pod("a", "a")));
    is_issued(&setup, &setup.subject()).await;
}

#[tokio::test]
async fn a_namespace_whose_own_service_accounts_or_pods_are_too_many_is_told_so_and_nothing_is_withdrawn_from_its_pods()
{
    let setup = Setup::new().await;
    put_service_accounts(&setup, "shop", 400, 32_000);
    put_service_accounts(&setup, "shop", 400, 0);
    is_issued(&setup, &setup.subject()).await;
    setup.put_pod(earlier(pod("a", "a")));
    is_told_to_come_again(&setup, &setup.subject()).await;

    let heavy = heavy("Running");
    let of_number = |number: usize| {
        Event::Apply(PodObject::new(
            pod_identity(&format!("heavy-{number}"), "shop", None),
            heavy.clone(),
        ))
    };
    let fitting = (20 << 20) / heavy.admitted.as_ref().unwrap().bytes();
    for number in 0..=fitting {
        setup.index.apply_pod(of_number(number));
    }
    let last: Value = json!({"kubernetes.io": {
        "namespace": "shop", "serviceaccount": {"name": "orders", "uid": "account"},
        "pod": {"name": format!("heavy-{fitting}"), "uid": POD_UID},
    }});
    let last = setup.cluster.token(&claims(&last));
    let description = is_told_to_come_again(&setup, &last).await;
    assert!(
        description.contains("namespace shop has more pods than are kept of one"),
        "{description}"
    );
}
