//! Pods of kube-system, where EKS's add-ons live: they get what policies grant, and none is refused (F1 of e2e/tests/cases).

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::fixtures::{
    ADMIN, CARTS, ORDERS, Shop, annotation, environment, reviewed, variable, volume, with_annotations,
};
use tokenscope_e2e::{eventually, get_json};

use crate::{SHARED, VOLUME};

const NAMESPACE: &str = "kube-system";
/// How long the operator may take to count pods.
const COUNTED: Duration = Duration::from_secs(60);

fn of(account: &str, mut pod: Value) -> Value {
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

/// A namespace that is there already.
async fn kube_system() -> Shop<'static> {
    let control_plane = &SHARED.environment().await.control_plane;
    let role = [("tokenscope.io/role-arn", ORDERS)].as_slice();
    let none = [].as_slice();
    for (account, annotations) in [("ebs-csi", role), ("autoscaler", none), ("load-balancer", none)] {
        let made = control_plane.create_service_account(NAMESPACE, account, annotations);
        made.await.unwrap();
    }
    Shop {
        control_plane,
        client: control_plane.client().await.unwrap(),
        namespace: NAMESPACE.to_owned(),
    }
}

/// Lets `ebs-csi` have a role, and gives `autoscaler` and `load-balancer` one, by policies of the namespace and of the cluster.
async fn allow(shop: &Shop<'_>) {
    let may = |account: &str, roles: Value| json!({"subjects": [{"serviceAccounts": [account]}], "roles": roles});
    let policies = [
        ("ebs-csi", may("ebs-csi", json!({"allowed": [ORDERS]}))),
        ("autoscaler", may("autoscaler", json!({"default": CARTS}))),
    ];
    for (name, spec) in policies {
        shop.policy(name, spec).await.unwrap();
    }
    let mut spec = may("load-balancer", json!({"default": CARTS}));
    spec["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}});
    let cluster_policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy",
        "metadata": {"name": "load-balancer-of-kube-system"}, "spec": spec,
    });
    shop.control_plane.apply(&[cluster_policy], NAMESPACE).await.unwrap();
}

#[tokio::test]
async fn f01_pods_of_kube_system_get_what_policies_grant_and_none_is_refused() {
    let shop = kube_system().await;
    allow(&shop).await;
    let annotated = of("ebs-csi", shop.asking("by-annotation", ORDERS));
    for (pod, role) in [
        (of("ebs-csi", shop.pod("by-account")), ORDERS),
        (annotated, ORDERS),
        (of("autoscaler", shop.pod("by-default")), CARTS),
        (of("load-balancer", shop.pod("by-cluster-policy")), CARTS),
    ] {
        let granted = shop.granted(&pod).await.unwrap();
        assert_eq!(variable(&granted.body, "app", "AWS_ROLE_ARN").as_deref(), Some(role));
        assert!(volume(&granted.body, VOLUME).is_some(), "{}", granted.body);
        assert!(annotation(&granted.body, "tokenscope.io/grant").is_some());
    }

    // What no policy grants, what can't be read, and a container that is not there: admitted with the reason, without anything.
    let broken = [("tokenscope.io/token-expiration", "soon")];
    let no_container = [("tokenscope.io/containers", "ap")];
    for (name, pod, reason) in [
        ("beyond", shop.asking("beyond", ADMIN), ADMIN),
        (
            "broken",
            with_annotations(shop.asking("broken", ORDERS), &broken),
            "tokenscope.io/token-expiration",
        ),
        (
            "no-container",
            with_annotations(shop.asking("no-container", ORDERS), &no_container),
            "this pod has none",
        ),
    ] {
        let pod = of("ebs-csi", pod);
        let answer = create_pod(&shop.client, &pod).await.unwrap();
        assert!(answer.accepted(), "{name}: {}", answer.message());
        let warnings = answer.warnings.join(" ");
        assert!(warnings.contains(reason), "{name}: {warnings}");
        assert_eq!(reviewed(&answer.body), None, "{name}");
        assert_eq!(environment(&answer.body, "app"), [], "{name}");
    }
    shop.untouched(&of("default", shop.pod("plain"))).await.unwrap();

    the_operator_counts_them(&shop).await;
}

/// The operator finds those that have what they should, and misses none.
async fn the_operator_counts_them(shop: &Shop<'_>) {
    let path = format!("/apis/tokenscope.io/v1alpha1/namespaces/{NAMESPACE}/tokenscopepolicies");
    for (policy, injected) in [("ebs-csi", 2), ("autoscaler", 1)] {
        eventually(COUNTED, format!("{policy} counts its pods"), async || {
            let status = get_json(&shop.client, &format!("{path}/{policy}")).await?["status"].take();
            ensure!(status["injectedPods"] == injected, "{status}");
            ensure!(status["missedPods"].as_u64().unwrap_or_default() == 0, "{status}");
            Ok(())
        })
        .await
        .unwrap();
    }
}
