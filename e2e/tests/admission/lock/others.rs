//! Kubelets, controllers and other webhooks, namespaces that are left alone, and the other modes of the lock.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::{ControlPlane, client_of};
use tokenscope_e2e::eks_webhook::{self, EksWebhook};
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, mounted_at, orders_may, reviewed, variable};
use tokenscope_e2e::rights_act::Right;
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};
use tokenscope_e2e::{Environment, eventually, install};

use super::{
    DENYING, LOCKED, acting_as, add_driver, add_ephemeral, editor, may_debug, refused, shop_and_editor, token,
};
use crate::{with_driver, with_label, with_token};

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
        let right = Right::to("create", "serviceaccounts/token").within("by-kubelet");
        shop.control_plane.has_right(namespace, "vault", &right).await.unwrap();
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
    let annotations = BTreeMap::from([("eks.amazonaws.com/role-arn".to_owned(), ORDERS.to_owned())]);
    let eks = SecondWebhook::start(shop.control_plane, Order::Before, "on-eks", move |pod| {
        if pod["metadata"]["labels"]["eks"].is_null() {
            return Vec::new();
        }
        EksWebhook::default().patch(pod, &annotations)
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
    // What it wrote is there as it wrote it.
    assert_eq!(
        mounted_at(&admitted, "app", eks_webhook::VOLUME),
        Some(&*EksWebhook::default().mount_path)
    );
    assert_eq!(variable(&admitted, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
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
            installed,
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
        assert_eq!(is_noted_by_the_lock(&control_plane).await, mode == "audit", "{mode}");
        the_audit_log_names_ungranted_tokens_of_pods(mode, &shop, &editor).await;
        below_deny_ephemeral_containers_and_impersonation_get_tokens(mode, &shop, &editor).await;

        installed.webhook(0).kill().unwrap();
        let away = create_pod(&editor, &with_token(shop.pod("away"), LOCKED))
            .await
            .unwrap();
        assert!(away.accepted(), "{mode}: {}", away.message());
        let asks = create_pod(&editor, &with_token(shop.asking("asks-away", ORDERS), LOCKED))
            .await
            .unwrap();
        refused(&asks, "'tokenscope-guard'");
    }
}

/// Whether the audit log says that the lock has something against the editor's request for a token.
async fn is_noted_by_the_lock(control_plane: &ControlPlane) -> bool {
    let asked = |event: &Value| {
        event["user"]["username"] == "system:serviceaccount:shop:editor" && event["objectRef"]["subresource"] == "token"
    };
    // An event is written after the answer.
    eventually(PROPAGATION, "the request for a token is in the audit log", async || {
        let events = control_plane.audit_events(asked)?;
        let event = events.first().context("it is not there")?;
        Ok(event["annotations"].to_string().contains("tokenscope-lock-tokens"))
    })
    .await
    .unwrap()
}

/// Of pods that mount one by hand, and of those that have a CSI driver get one.
async fn the_audit_log_names_ungranted_tokens_of_pods(mode: &str, shop: &Shop<'_>, editor: &Client) {
    const UNGRANTED: &str = "pods.tokenscope.io/ungranted-tokens";
    add_driver(&shop.client, "secrets.csi.example.com", LOCKED).await;
    let logged = |name: &str| {
        let created = |event: &Value| {
            event["verb"] == "create"
                && event["objectRef"]["resource"] == "pods"
                && event["objectRef"]["namespace"] == "shop"
                && event["objectRef"]["name"] == name
        };
        shop.control_plane.audit_events(created)
    };
    let said = |event: &Value| event["annotations"][UNGRANTED].as_str().unwrap_or_default().to_owned();
    let by_driver = with_driver(shop.pod("by-driver"), "secrets.csi.example.com");
    eventually(PROPAGATION, "the driver is known", async || {
        let answer = try_pod(editor, &by_driver).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        let warned = answer.warnings.iter().any(|warning| warning.contains("secrets.csi"));
        ensure!(warned == (mode == "warn"), "{mode}: {:?}", answer.warnings);
        let events = logged("by-driver")?;
        let named = events
            .iter()
            .any(|event| said(event).contains("secrets.csi.example.com"));
        ensure!(named != (mode == "off"), "{mode}: {events:?}");
        Ok(())
    })
    .await
    .unwrap();
    eventually(PROPAGATION, "the create is in the audit log", async || {
        let events = logged("by-hand")?;
        ensure!(!events.is_empty(), "it is not there");
        for event in &events {
            let (said, expected) = (said(event), mode != "off");
            let names =
                said.contains("volume own-token") && said.contains(LOCKED) && said.contains("no policy in force");
            ensure!((names, said.is_empty()) == (expected, !expected), "{mode}: {said}");
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// What only `deny` refuses beside pods: an ephemeral container with the token of its pod, and acting as a ServiceAccount to ask for one.
async fn below_deny_ephemeral_containers_and_impersonation_get_tokens(mode: &str, shop: &Shop<'_>, editor: &Client) {
    may_debug(shop).await;
    shop.allow_orders().await.unwrap();
    let granted = shop.granted(&shop.asking("granted", ORDERS)).await.unwrap();
    assert!(
        granted.body["spec"].to_string().contains("tokenscope-aws-token"),
        "{mode}"
    );
    for (pod, volume) in [("by-hand", "own-token"), ("granted", "tokenscope-aws-token")] {
        let mounts = json!([{"name": volume, "mountPath": "/seen"}]);
        let shell = json!({"name": "shell", "image": "app", "volumeMounts": mounts});
        let added = add_ephemeral(editor, shop, pod, shell).await;
        assert!(added.is_ok(), "{mode}: {pod}: {added:?}");
        let sidecar = json!({"name": "tokenscope-sidecar", "image": "app"});
        let refused = add_ephemeral(editor, shop, pod, sidecar).await.unwrap_err();
        assert!(
            format!("{refused:#}").contains("the name tokenscope-sidecar"),
            "{mode}: {refused:#}"
        );
    }
    let acting = acting_as(shop, "orders").await;
    let answer = token(&acting, "shop", "orders", &[LOCKED]).await;
    assert!(answer.accepted(), "{mode}: {}", answer.message());
}
