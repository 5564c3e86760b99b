//! Users and groups of `lock.allowed`: what they may do that others may not.

use kube::Client;
use serde_json::json;
use tokenscope_e2e::fixtures::{ORDERS, Shop};
use tokenscope_e2e::rights_act::Right;

use super::{LOCKED, add_ephemeral, refused, shop_and_editor, token};

/// A ServiceAccount of a namespace of its own that may ask for tokens of all ServiceAccounts and debug all pods.
async fn vault(shop: &Shop<'_>, namespace: &str) -> Client {
    let control_plane = shop.control_plane;
    control_plane.create_namespace(namespace, &[]).await.unwrap();
    control_plane
        .create_service_account(namespace, "vault", &[])
        .await
        .unwrap();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "mint-and-debug"},
        "rules": [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["update", "patch"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mint-and-debug"},
        "subjects": [{"kind": "ServiceAccount", "name": "vault", "namespace": namespace}],
    });
    control_plane.apply(&[role, binding], namespace).await.unwrap();
    let right = Right::to("patch", "pods/ephemeralcontainers").within(&shop.namespace);
    control_plane.has_right(namespace, "vault", &right).await.unwrap();
    control_plane.client_as(namespace, "vault").await.unwrap()
}

#[tokio::test]
async fn who_is_listed_by_name_or_by_group_gets_tokens_and_mounts_them_to_debug_and_nobody_else_does() {
    let (shop, _) = shop_and_editor("with-listed").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("granted", ORDERS)).await.unwrap();
    for (namespace, listed) in [
        ("listed-by-name", true),
        ("listed-by-group", true),
        ("listed-by-nobody", false),
    ] {
        let client = vault(&shop, namespace).await;
        let answer = token(&client, &shop.namespace, "orders", &[LOCKED]).await;
        let mounts = json!([{"name": "tokenscope-aws-token", "mountPath": "/seen"}]);
        let shell = json!({"name": namespace, "image": "app", "volumeMounts": mounts});
        let added = add_ephemeral(&client, &shop, "granted", shell).await;
        if listed {
            assert!(answer.accepted(), "{namespace}: {}", answer.message());
            added.unwrap();
            continue;
        }
        refused(&answer, "lock.allowed");
        let said = format!("{:#}", added.unwrap_err());
        assert!(
            said.contains("may not mount a volume with a token of a locked audience") && said.contains("lock.allowed"),
            "{said}"
        );
        let plain = json!({"name": namespace, "image": "app"});
        add_ephemeral(&client, &shop, "granted", plain).await.unwrap();
    }
}
