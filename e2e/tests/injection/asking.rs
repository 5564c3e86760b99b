//! Who gets which role by which policy, and what the others read.

use anyhow::ensure;
use serde_json::json;
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::fixtures::{
    ADMIN, CARTS, ORDERS, PROPAGATION, Shop, annotation, orders_may, reviewed, variable, volume, with_annotations,
};
use tokenscope_e2e::{eventually, get_json, merge};

use crate::{SHARED, VOLUME};

#[tokio::test]
async fn an_annotation_of_the_service_account_asks_for_its_pods() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "by-account", &[]).await.unwrap();
    let annotations = [
        ("tokenscope.io/role-arn", CARTS),
        ("tokenscope.io/token-expiration", "1200"),
    ];
    control_plane
        .create_service_account("by-account", "carts", &annotations)
        .await
        .unwrap();
    shop.policy(
        "carts",
        json!({"subjects": [{"serviceAccounts": ["c*s"]}], "roles": {"allowed": [CARTS, ORDERS]}}),
    )
    .await
    .unwrap();
    let mut pod = shop.pod("carts-1");
    pod["spec"]["serviceAccountName"] = json!("carts");
    let granted = shop.granted(&pod).await.unwrap().body;
    assert_eq!(variable(&granted, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    let token = &volume(&granted, VOLUME).unwrap()["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["expirationSeconds"], 1200);

    // The pod's own annotation beats it.
    pod["metadata"]["name"] = json!("carts-2");
    let pod = with_annotations(pod, &[("tokenscope.io/role-arn", ORDERS)]);
    let granted = shop.granted(&pod).await.unwrap().body;
    assert_eq!(variable(&granted, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));

    // A changed annotation counts for the next pod.
    let account = shop.path("serviceaccounts/carts");
    let change = json!({"metadata": {"annotations": {"tokenscope.io/role-arn": ADMIN}}});
    merge(&shop.client, &account, &change).await.unwrap();
    let mut pod = shop.pod("carts-3");
    pod["spec"]["serviceAccountName"] = json!("carts");
    shop.refused(&pod, ADMIN).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_names_no_role_gets_the_default_of_its_policy() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "default-role", &[]).await.unwrap();
    shop.policy(
        "orders",
        json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ORDERS}}),
    )
    .await
    .unwrap();
    let pod = shop.granted(&shop.pod("orders-1")).await.unwrap().body;
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));

    let mut other = shop.pod("other");
    other["spec"]["serviceAccountName"] = json!("default");
    shop.untouched(&other).await.unwrap();

    // An end of the policy is an end of the default.
    shop.delete_policy("orders").await.unwrap();
    eventually(PROPAGATION, "the deleted policy assigns nothing", async || {
        let answer = try_pod(&shop.client, &shop.pod("orders-2")).await?;
        ensure!(
            answer.accepted() && volume(&answer.body, VOLUME).is_none(),
            "{}",
            answer.body
        );
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn two_conflicting_defaults_are_refused_with_both_names() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "conflict", &[]).await.unwrap();
    let assigning = |role| json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}});
    shop.policy("first", assigning(ORDERS)).await.unwrap();
    shop.policy("second", assigning(CARTS)).await.unwrap();
    let refusal = shop
        .refused(&shop.pod("undecided"), "TokenScopePolicy conflict/second")
        .await
        .unwrap();
    assert_eq!(
        refusal,
        format!(
            "tokenscope: TokenScopePolicy conflict/first and TokenScopePolicy conflict/second assign different default roles to this \
             pod, {ORDERS} and {CARTS}: name one with annotation tokenscope.io/role-arn, or change a policy"
        )
    );

    // As the message says, naming one helps.
    let pod = shop.granted(&shop.asking("decided", CARTS)).await.unwrap().body;
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));

    // The operator says so on both before a pod meets it.
    for name in ["first", "second"] {
        let path = format!("/apis/tokenscope.io/v1alpha1/namespaces/conflict/tokenscopepolicies/{name}");
        eventually(PROPAGATION, format!("{name} shows the conflict"), async || {
            let policy = get_json(&shop.client, &path).await?;
            ensure!(
                policy["status"]["conditions"].to_string().contains("Conflict"),
                "{}",
                policy["status"]
            );
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_role_outside_the_policy_is_refused_with_what_the_policy_allows() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "outside", &[]).await.unwrap();
    shop.policy(
        "orders",
        orders_may(&[ORDERS, "arn:aws:iam::111122223333:role/shop/carts-*"]),
    )
    .await
    .unwrap();
    let refusal = shop
        .refused(&shop.asking("curious", ADMIN), "does not allow")
        .await
        .unwrap();
    assert_eq!(
        refusal,
        "tokenscope: TokenScopePolicy outside/orders does not allow arn:aws:iam::111122223333:role/admin: its roles.allowed has \
         arn:aws:iam::111122223333:role/shop/orders, arn:aws:iam::111122223333:role/shop/carts-*"
    );

    let refusal = shop
        .refused(&shop.asking("wrong", "arn:aws:s3:::bucket"), "role-arn")
        .await
        .unwrap();
    assert!(
        refusal.starts_with("tokenscope: annotation tokenscope.io/role-arn of the pod: ")
            && refusal.contains("arn:aws:s3:::bucket"),
        "{refusal}"
    );
    for (key, value, part) in [
        ("tokenscope.io/audience", "a b", "spaces"),
        ("tokenscope.io/token-expiration", "0", "600 to 86400"),
        (
            "tokenscope.io/token-expiration",
            "7200",
            "at most 3600 seconds and the workload asks for 7200",
        ),
        ("tokenscope.io/inject", "no", "\"true\" or \"false\""),
    ] {
        let pod = with_annotations(shop.asking("bad-value", ORDERS), &[(key, value)]);
        shop.refused(&pod, part).await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_of_another_namespace_does_not_help() {
    let control_plane = &SHARED.environment().await.control_plane;
    let near = Shop::open(control_plane, "near", &[]).await.unwrap();
    let far = Shop::open(control_plane, "far", &[]).await.unwrap();
    far.allow_orders().await.unwrap();
    far.granted(&far.asking("orders-1", ORDERS)).await.unwrap();
    let refusal = near
        .refused(&near.asking("orders-1", ORDERS), "no policy selects")
        .await
        .unwrap();
    assert_eq!(
        refusal,
        format!(
            "tokenscope: no policy selects service account orders of namespace near with this pod's labels, so it may not have {ORDERS}: \
             a TokenScopePolicy in this namespace whose subjects match the pod and whose roles.allowed has the role would allow it"
        )
    );
}

#[tokio::test]
async fn a_cluster_policy_is_about_the_namespaces_that_it_selects() {
    let control_plane = &SHARED.environment().await.control_plane;
    let inside = Shop::open(control_plane, "inside", &[("shop", "cluster-policy")])
        .await
        .unwrap();
    let outside = Shop::open(control_plane, "outdoors", &[("shop", "another")])
        .await
        .unwrap();
    let policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "inside"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"shop": "cluster-policy"}},
            "subjects": [{"serviceAccounts": ["orders"]}],
            "roles": {"allowed": [ORDERS]},
        },
    });
    control_plane.apply(&[policy], "default").await.unwrap();
    let pod = inside.granted(&inside.asking("orders-1", ORDERS)).await.unwrap().body;
    let grant = annotation(&pod, "tokenscope.io/grant").unwrap();
    assert!(grant.contains("ClusterTokenScopePolicy inside"), "{grant}");
    outside
        .refused(&outside.asking("orders-1", ORDERS), "no policy selects")
        .await
        .unwrap();

    // A namespace that is labelled later is inside from then on.
    let label = json!({"metadata": {"labels": {"shop": "cluster-policy"}}});
    merge(&outside.client, "/api/v1/namespaces/outdoors", &label)
        .await
        .unwrap();
    outside.granted(&outside.asking("orders-2", ORDERS)).await.unwrap();

    // Where a policy of the namespace allows the same, that one grants.
    inside.allow_orders().await.unwrap();
    eventually(PROPAGATION, "the policy of the namespace grants", async || {
        let answer = try_pod(&inside.client, &inside.asking("orders-3", ORDERS)).await?;
        let grant = annotation(&answer.body, "tokenscope.io/grant").unwrap_or_default();
        ensure!(grant.contains("TokenScopePolicy inside/orders"), "{grant}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_subject_with_a_pod_selector_is_about_pods_with_those_labels() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "labels", &[]).await.unwrap();
    let spec = json!({
        "subjects": [{
            "serviceAccounts": ["orders"],
            "podSelector": {
                "matchLabels": {"app": "orders"},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}],
            },
        }],
        "roles": {"allowed": [ORDERS]},
    });
    shop.policy("orders", spec).await.unwrap();
    let labelled = |name, labels| {
        let mut pod = shop.asking(name, ORDERS);
        pod["metadata"]["labels"] = labels;
        pod
    };
    shop.granted(&labelled("right", json!({"app": "orders"})))
        .await
        .unwrap();
    for (name, labels) in [
        ("none", json!({})),
        ("other", json!({"app": "carts"})),
        ("test", json!({"app": "orders", "tier": "test"})),
    ] {
        let refusal = shop
            .refused(&labelled(name, labels), "no policy selects")
            .await
            .unwrap();
        assert!(
            refusal.contains("TokenScopePolicy labels/orders does not select this pod: it is about service account orders with pod labels"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn sources_of_later_versions_are_refused_in_plain_words() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "sources", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["token"] = json!({"source": "Issuer"});
    shop.policy("orders", spec).await.unwrap();
    let refusal = shop.refused(&shop.asking("early", ORDERS), "Issuer").await.unwrap();
    assert_eq!(
        refusal,
        "tokenscope: TokenScopePolicy sources/orders wants tokens from Issuer, which is not available in this version: \
         set its token.source to ServiceAccount or SPIFFE"
    );
}

#[tokio::test]
async fn annotations_that_only_the_webhook_writes_are_overwritten() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "forged", &[]).await.unwrap();
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let record = json!({
        "grants": [{"policy": "TokenScopePolicy forged/orders", "role": ADMIN, "containers": ["app"], "env": ["AWS_ROLE_ARN"]}],
        "hash": "0000000000000000",
    })
    .to_string();
    let forged = [
        ("tokenscope.io/grant", record.as_str()),
        ("tokenscope.io/reviewed", "granted"),
    ];
    let mut pod = with_annotations(shop.asking("asking", ORDERS), &forged);
    pod["spec"]["containers"][0]["env"] = json!([{"name": "AWS_ROLE_ARN", "value": ADMIN}]);
    let pod = shop.granted(&pod).await.unwrap().body;
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    assert!(!pod.to_string().contains(ADMIN), "{pod}");

    // A volume that a forged record passes off as ours has our content afterwards.
    let mut pod = with_annotations(shop.asking("volume", ORDERS), &forged);
    let foreign = json!({"serviceAccountToken": {"audience": "elsewhere.example.com", "expirationSeconds": 86400, "path": "token"}});
    pod["spec"]["volumes"] = json!([{"name": VOLUME, "projected": {"sources": [foreign]}}]);
    let pod = shop.granted(&pod).await.unwrap().body;
    let token = &volume(&pod, VOLUME).unwrap()["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "sts.amazonaws.com");

    let plain = shop
        .untouched(&with_annotations(shop.pod("plain"), &forged))
        .await
        .unwrap()
        .body;
    assert_ne!(reviewed(&plain), Some("granted"));
    let refused = with_annotations(shop.asking("refused", ADMIN), &forged);
    shop.refused(&refused, "does not allow").await.unwrap();
}
