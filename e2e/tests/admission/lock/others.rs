//! Kubelets, controllers and other webhooks, namespaces that are left alone, and the other modes of the lock.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::client_of;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, orders_may, reviewed};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};
use tokenscope_e2e::{Environment, eventually, install};

use super::{DENYING, LOCKED, editor, refused, shop_and_editor, token};
use crate::{with_label, with_token};

#[tokio::test]
async fn kubelets_get_the_tokens_of_their_granted_pods_and_a_controller_only_if_it_is_listed() {
    let (shop, _) = shop_and_editor("by-kubelet").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("granted", ORDERS)).await.unwrap();
    let issued = shop
        .control_plane
        .pod_token("by-kubelet", "granted", LOCKED, 3600)
        .await
        .unwrap();
    assert_eq!(issued.split('.').count(), 3);
    // The same node, without a pod.
    let node = client_of(&shop.control_plane.folder().join("node.kubeconfig"))
        .await
        .unwrap();
    assert!(!token(&node, "by-kubelet", "orders", &[LOCKED]).await.accepted());

    // Vault and others make tokens of other ServiceAccounts.
    for (namespace, listed) in [("listed", true), ("unlisted", false)] {
        shop.control_plane.create_namespace(namespace, &[]).await.unwrap();
        shop.control_plane
            .create_service_account(namespace, "vault", &[])
            .await
            .unwrap();
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "mint"},
            "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mint"},
            "subjects": [{"kind": "ServiceAccount", "name": "vault", "namespace": namespace}],
        });
        shop.control_plane.apply(&[role, binding], namespace).await.unwrap();
        let vault = shop.control_plane.client_as(namespace, "vault").await.unwrap();
        let answer = token(&vault, "by-kubelet", "orders", &[LOCKED]).await;
        assert_eq!(answer.accepted(), listed, "{namespace}: {}", answer.body);
        if !listed {
            refused(&answer, "lock.allowed");
        }
    }
}

#[tokio::test]
async fn what_the_eks_webhook_adds_before_ours_is_adopted_where_a_policy_grants_it_and_else_refused() {
    let (shop, editor) = shop_and_editor("on-eks").await;
    let eks = SecondWebhook::start(shop.control_plane, Order::Before, "on-eks", |pod| {
        let has_volume = pod["spec"]["volumes"].as_array().is_some_and(|volumes| volumes.iter().any(|volume| volume["name"] == "aws-iam-token"));
        if pod["metadata"]["labels"]["eks"].is_null() || has_volume {
            return Vec::new();
        }
        let token = json!({"serviceAccountToken": {"audience": LOCKED, "expirationSeconds": 86400, "path": "token"}});
        let folder = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
        vec![
            json!({"op": "add", "path": "/spec/volumes/0", "value": {"name": "aws-iam-token", "projected": {"sources": [token]}}}),
            json!({"op": "add", "path": "/spec/containers/0/volumeMounts/0", "value": {"name": "aws-iam-token", "mountPath": folder, "readOnly": true}}),
            json!({"op": "add", "path": "/spec/containers/0/env", "value": [
                {"name": "AWS_ROLE_ARN", "value": ORDERS},
                {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": format!("{folder}/token")},
            ]}),
        ]
    })
    .await
    .unwrap();
    let pod = |name: &str| with_label(shop.pod(name), "eks", "yes");
    let answer = create_pod(&editor, &pod("without")).await.unwrap();
    assert!(
        !answer.accepted() && answer.message().contains(LOCKED),
        "{}",
        answer.body
    );

    let mut spec = orders_may(&[ORDERS]);
    spec["token"] = json!({"expirationSeconds": 86400});
    shop.policy("orders", spec).await.unwrap();
    let admitted = eventually(PROPAGATION, "the policy is known", async || {
        let answer = create_pod(&editor, &pod("with")).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(answer.body)
    })
    .await
    .unwrap();
    assert!(reviewed(&admitted).is_some(), "{admitted}");
    eks.remove(shop.control_plane).await.unwrap();
}

#[tokio::test]
async fn in_namespaces_without_reviews_the_lock_holds_all_the_same_and_exempt_ones_are_left_alone() {
    let (_, _) = shop_and_editor("beside").await;
    let Environment { control_plane, .. } = DENYING.environment().await;
    let out = Shop::open(control_plane, "out", &[("tokenscope.io/inject", "false")])
        .await
        .unwrap();
    let editor = editor(&out).await;
    let answer = create_pod(&editor, &with_token(out.pod("by-hand"), LOCKED))
        .await
        .unwrap();
    refused(&answer, "tokenscope reviews no pods of this namespace");
    assert!(
        create_pod(&editor, &out.asking("asking", ORDERS))
            .await
            .unwrap()
            .accepted()
    );
    for namespace in ["kube-system", tokenscope_e2e::helm::NAMESPACE] {
        let mut pod = with_token(out.pod("by-hand"), LOCKED);
        pod["metadata"]["namespace"] = json!(namespace);
        pod["spec"]["serviceAccountName"] = json!("default");
        let answer = try_pod(&out.client, &pod).await.unwrap();
        assert_eq!(
            answer.accepted(),
            namespace == "kube-system",
            "{namespace}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn with_off_and_audit_nobody_notices_and_with_warn_who_creates_is_warned() {
    for mode in ["off", "audit", "warn"] {
        let options = install::Options {
            values: json!({"lock": {"mode": mode}}),
            ..install::Options::default()
        };
        let Environment {
            control_plane,
            installed: _installed,
        } = Environment::start(options).await.unwrap();
        let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
        let out = Shop::open(&control_plane, "out", &[("tokenscope.io/inject", "false")])
            .await
            .unwrap();
        let editor = editor(&shop).await;
        let answers = [
            create_pod(&editor, &with_token(shop.pod("by-hand"), LOCKED))
                .await
                .unwrap(),
            create_pod(&out.client, &with_token(out.pod("by-hand"), LOCKED))
                .await
                .unwrap(),
            token(&editor, "shop", "orders", &[LOCKED]).await,
        ];
        for answer in answers {
            assert!(answer.accepted(), "{mode}: {}", answer.message());
            let warned = answer.warnings.iter().any(|warning| warning.contains(LOCKED));
            assert_eq!(warned, mode == "warn", "{mode}: {:?}", answer.warnings);
        }
        let noted = |event: &Value| {
            event["objectRef"]["subresource"] == "token"
                && event["annotations"].to_string().contains("tokenscope-lock-tokens")
        };
        let audited = async || -> Result<bool> { Ok(!control_plane.audit_events(noted)?.is_empty()) };
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(audited().await.unwrap(), mode == "audit", "{mode}");
    }
}
