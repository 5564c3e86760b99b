//! Users with the role `edit`, and tokens of a locked audience: by every way that Kubernetes offers to get one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_tests::admission::{Answer, create, create_pod, try_pod};
use tokenscope_tests::control_plane::client_of;
use tokenscope_tests::fixtures::{ORDERS, PROPAGATION, Shop, reviewed, with_annotations};
use tokenscope_tests::install;
use tokenscope_tests::second_webhook::{Order, SecondWebhook};
use tokenscope_tests::{Environment, Shared, eventually, get_json};

use crate::{opted_out, with_label, with_token};

const LOCKED: &str = "sts.amazonaws.com";

static DENYING: Shared = Shared::new(|| install::Options {
    values: json!({"lock": {"mode": "deny", "allowed": {"users": ["system:serviceaccount:listed:vault"]}}}),
    ..install::Options::default()
});

/// The shop, and a user who has the built-in role `edit` there and nothing else.
async fn shop_and_editor(namespace: &str) -> (Shop<'static>, Client) {
    let Environment { control_plane, .. } = DENYING.environment().await;
    let shop = Shop::open(control_plane, namespace, &[]).await.unwrap();
    let editor = editor(&shop).await;
    (shop, editor)
}

async fn editor(shop: &Shop<'_>) -> Client {
    let namespace = &shop.namespace;
    shop.control_plane
        .create_service_account(namespace, "editor", &[])
        .await
        .unwrap();
    // What a controller that doesn't run here would put into the role `edit`.
    let bindings = ["system:aggregate-to-edit", "system:aggregate-to-view"].map(|role| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role.replace(':', "-"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": namespace}],
        })
    });
    shop.control_plane.apply(&bindings, namespace).await.unwrap();
    shop.control_plane.client_as(namespace, "editor").await.unwrap()
}

/// A request for a token of a ServiceAccount.
async fn token(client: &Client, namespace: &str, account: &str, audiences: &[&str]) -> Answer {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences}});
    create(
        client,
        &format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"),
        &request,
    )
    .await
    .unwrap()
}

fn refused(answer: &Answer, part: &str) {
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.message().contains(part), "{}", answer.message());
}

#[tokio::test]
async fn an_editor_gets_no_token_of_a_locked_audience_by_a_pod_unless_a_policy_grants_it() {
    let (shop, editor) = shop_and_editor("by-pod").await;
    let by_hand = with_token(shop.pod("by-hand"), LOCKED);
    let pods = [
        by_hand.clone(),
        opted_out(by_hand.clone()),
        with_label(by_hand.clone(), crate::MARK, "granted"),
        with_annotations(
            with_label(by_hand.clone(), crate::MARK, "granted"),
            &[("tokenscope.io/grant", "{\"grants\":[],\"hash\":\"\"}")],
        ),
    ];
    for pod in pods {
        for answer in [
            create_pod(&editor, &pod).await.unwrap(),
            try_pod(&editor, &pod).await.unwrap(),
        ] {
            assert!(!answer.accepted(), "{pod}: {}", answer.body);
            assert!(answer.message().contains(LOCKED), "{}", answer.message());
        }
    }
    // Another audience is nobody's business, and the API server's own needs no policy.
    for (name, audience) in [("vault", "vault"), ("api", "https://kubernetes.default.svc")] {
        let answer = create_pod(&editor, &with_token(shop.pod(name), audience))
            .await
            .unwrap();
        assert!(answer.accepted(), "{}", answer.message());
    }

    shop.allow_orders().await.unwrap();
    let mut short = with_token(shop.pod("adopted"), LOCKED);
    short["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] = json!(3600);
    eventually(PROPAGATION, "the policy is known", async || {
        let answer = try_pod(&editor, &short).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(())
    })
    .await
    .unwrap();
    assert!(create_pod(&editor, &short).await.unwrap().accepted());
    let long = create_pod(&editor, &by_hand).await.unwrap();
    assert!(
        !long.accepted() && long.message().contains("3600"),
        "a day is longer than the policy grants: {}",
        long.body
    );
}

#[tokio::test]
async fn an_editor_gets_no_token_by_a_controller_and_its_events_say_why() {
    let (shop, editor) = shop_and_editor("by-controller").await;
    let names = [
        "deployment-controller",
        "replicaset-controller",
        "statefulset-controller",
        "job-controller",
        "cronjob-controller",
    ];
    let _controllers = shop.control_plane.start_controllers(&names).unwrap();
    let spec = |restart: &str| {
        let mut spec = with_token(shop.pod("x"), LOCKED)["spec"].take();
        spec["restartPolicy"] = json!(restart);
        spec
    };
    let selector = json!({"matchLabels": {"app": "thief"}});
    let template = |restart: &str| json!({"metadata": {"labels": {"app": "thief"}}, "spec": spec(restart)});
    let job = json!({"template": template("Never"), "backoffLimit": 0});
    let objects = [
        (
            "apps",
            "Deployment",
            "deployments",
            json!({"selector": selector, "template": template("Always")}),
        ),
        (
            "apps",
            "StatefulSet",
            "statefulsets",
            json!({"selector": selector, "serviceName": "x", "template": template("Always")}),
        ),
        ("batch", "Job", "jobs", job.clone()),
        (
            "batch",
            "CronJob",
            "cronjobs",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": job}}),
        ),
    ];
    for (group, kind, plural, spec) in objects {
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": kind.to_lowercase()}, "spec": spec});
        let answer = create(
            &editor,
            &format!("/apis/{group}/v1/namespaces/by-controller/{plural}"),
            &object,
        )
        .await
        .unwrap();
        assert!(answer.accepted(), "{}", answer.message());
    }
    // The CronJob's first job comes with the next full minute.
    eventually(
        Duration::from_secs(100),
        "each controller was refused and says so",
        async || {
            let events = get_json(&shop.client, &shop.path("events")).await?;
            let failed: Vec<_> = events["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|event| event["reason"] == "FailedCreate")
                .collect();
            for owner in ["deployment-", "statefulset", "job", "cronjob-"] {
                let of_owner = |event: &&&Value| {
                    event["involvedObject"]["name"]
                        .as_str()
                        .is_some_and(|name| name.starts_with(owner))
                };
                let event = failed
                    .iter()
                    .find(of_owner)
                    .with_context(|| format!("no Event of {owner}: {failed:?}"))?;
                let message = event["message"].as_str().unwrap_or_default();
                ensure!(message.contains(LOCKED), "{message}");
            }
            Ok(())
        },
    )
    .await
    .unwrap();
    let pods = get_json(&shop.client, &shop.path("pods")).await.unwrap();
    assert_eq!(pods["items"], json!([]));
}

#[tokio::test]
async fn an_editor_gets_no_token_by_a_token_request_or_by_acting_as_a_service_account() {
    let (shop, editor) = shop_and_editor("by-request").await;
    for audiences in [&[LOCKED][..], &["vault", LOCKED]] {
        refused(
            &token(&editor, "by-request", "orders", audiences).await,
            "'tokenscope-lock-tokens'",
        );
    }
    let many: Vec<String> = (0..33).map(|number| format!("a{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(
        &token(&editor, "by-request", "orders", &many).await,
        "more than 32 audiences",
    );
    assert!(token(&editor, "by-request", "orders", &["vault"]).await.accepted());
    assert!(
        token(&editor, "by-request", "orders", &[]).await.accepted(),
        "one for the API server itself"
    );

    // Acting as the ServiceAccount, or with a token of it, changes nothing.
    let own = shop.control_plane.client_as("by-request", "orders").await.unwrap();
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "own", "namespace": "by-request"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "orders", "namespace": "by-request"}],
    });
    shop.control_plane.apply(&[rights], "by-request").await.unwrap();
    refused(
        &token(&own, "by-request", "orders", &[LOCKED]).await,
        "'tokenscope-lock-tokens'",
    );
    let impersonating = shop.control_plane.config_as("by-request", "editor").await.unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(impersonating).unwrap()).unwrap();
    config["users"][0]["user"]["as"] = json!("system:serviceaccount:by-request:orders");
    let file = shop.control_plane.folder().join("impersonating.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    let impersonating = client_of(&file).await.unwrap();
    refused(
        &token(&impersonating, "by-request", "orders", &[LOCKED]).await,
        "'tokenscope-lock-tokens'",
    );
    assert!(
        token(&impersonating, "by-request", "orders", &["vault"])
            .await
            .accepted()
    );
}

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
async fn an_ephemeral_container_mounts_no_token_of_ours_and_may_not_have_the_sidecars_name() {
    let (shop, editor) = shop_and_editor("debugging").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("granted", ORDERS)).await.unwrap();
    // `edit` has no such right by itself; whoever debugs has it.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "debugger", "namespace": "debugging"},
        "rules": [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["update", "patch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "debugger", "namespace": "debugging"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debugger"},
        "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": "debugging"}],
    });
    shop.control_plane.apply(&[role, binding], "debugging").await.unwrap();
    let path = shop.path("pods/granted/ephemeralcontainers");
    let added = async |container: Value| {
        let mut pod = get_json(&editor, &shop.path("pods/granted")).await?;
        let containers = pod["spec"]["ephemeralContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        pod["spec"]["ephemeralContainers"] = [vec![container], containers].concat().into();
        tokenscope_tests::put(&editor, &path, &pod).await.context("refused")
    };
    let said = async |container: Value| -> String { format!("{:#}", added(container).await.unwrap_err()) };
    added(json!({"name": "shell", "image": "app"})).await.unwrap();
    let thief = json!({"name": "thief", "image": "app", "volumeMounts": [{"name": "tokenscope-aws-token", "mountPath": "/stolen"}]});
    assert!(
        said(thief)
            .await
            .contains("may not mount a volume with a token of a locked audience")
    );
    let sidecar = json!({"name": "tokenscope-sidecar", "image": "app"});
    assert!(said(sidecar).await.contains("the name tokenscope-sidecar"));
    added(json!({"name": "second-shell", "image": "app"})).await.unwrap();
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

    let mut spec = tokenscope_tests::fixtures::orders_may(&[ORDERS]);
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
    for namespace in ["kube-system", tokenscope_tests::helm::NAMESPACE] {
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
