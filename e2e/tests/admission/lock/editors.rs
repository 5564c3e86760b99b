//! Users with the role `edit`, by every way that Kubernetes offers to get a token.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create, create_pod, try_pod};
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, with_annotations};
use tokenscope_e2e::{eventually, get_json};

use super::{LOCKED, acting_as, add_ephemeral, may_debug, refused, shop_and_editor, token};
use crate::{opted_out, with_label, with_token};

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
        "daemonset-controller",
        "job-controller",
        "cronjob-controller",
    ];
    let _controllers = shop.control_plane.start_controllers(&names).unwrap();
    for (group, kind, plural, spec) in workloads(&shop) {
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
    // The CronJob's first job comes with the next full minute; the rest is for a busy machine.
    eventually(
        Duration::from_secs(240),
        "each controller was refused and says so",
        async || each_controller_says_so(&shop).await,
    )
    .await
    .unwrap();
    let pods = get_json(&shop.client, &shop.path("pods")).await.unwrap();
    assert_eq!(pods["items"], json!([]));
}

/// One object of each controller: its group, kind and plural, and a spec whose pods have a locked token.
fn workloads(shop: &Shop<'_>) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let spec = |restart: &str| {
        let mut spec = with_token(shop.pod("x"), LOCKED)["spec"].take();
        spec["restartPolicy"] = json!(restart);
        spec
    };
    let selector = json!({"matchLabels": {"app": "thief"}});
    let template = |restart: &str| json!({"metadata": {"labels": {"app": "thief"}}, "spec": spec(restart)});
    let job = json!({"template": template("Never"), "backoffLimit": 0});
    let mut everywhere = template("Always");
    // No kubelet takes the taint of a new node away.
    everywhere["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    vec![
        (
            "apps",
            "DaemonSet",
            "daemonsets",
            json!({"selector": selector, "template": everywhere}),
        ),
        (
            "apps",
            "ReplicaSet",
            "replicasets",
            json!({"selector": selector, "template": template("Always")}),
        ),
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
    ]
}

/// Each controller's Event says that its pod was refused.
async fn each_controller_says_so(shop: &Shop<'_>) -> Result<()> {
    let events = get_json(&shop.client, &shop.path("events")).await?;
    let failed: Vec<_> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["reason"] == "FailedCreate")
        .collect();
    for owner in [
        "deployment-",
        "replicaset",
        "statefulset",
        "daemonset",
        "job",
        "cronjob-",
    ] {
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
    let impersonating = acting_as(&shop, "orders").await;
    let own = shop.control_plane.client_as("by-request", "orders").await.unwrap();
    refused(
        &token(&own, "by-request", "orders", &[LOCKED]).await,
        "'tokenscope-lock-tokens'",
    );
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
async fn an_ephemeral_container_mounts_no_token_of_ours_and_may_not_have_the_sidecars_name() {
    let (shop, editor) = shop_and_editor("debugging").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("granted", ORDERS)).await.unwrap();
    may_debug(&shop).await;
    let added = async |container: Value| add_ephemeral(&editor, &shop, "granted", container).await;
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
