//! What a process says when its watches tell it nothing any more, and what it never takes for a sign that all is well.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::fixtures::{ADMIN, ORDERS, Shop};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{delete, eventually, get_json};

use crate::{SOON, Scenario, is_back, runs};

const RIGHTS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/tokenscope-webhook";

#[tokio::test]
async fn watches_that_are_refused_make_the_webhook_unready_and_a_metric_tells_how_old_they_are() {
    let scenario = Scenario::start(Options {
        // API servers send bookmarks about each minute.
        values: json!({"watchAgeLimitSeconds": 80}),
        ..Options::default()
    })
    .await;
    let (control_plane, installed) = (&scenario.control_plane, &scenario.installed);
    let webhook = installed.webhook(0);
    let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();

    // A watch that runs is asked about its rights no more: the API server has to end it first.
    let client = control_plane.client().await.unwrap();
    delete(&client, RIGHTS).await.unwrap();
    control_plane.apiserver().restart().unwrap();
    eventually(
        Duration::from_secs(300),
        "the webhook is unready, and names a watch",
        async || {
            let (status, text) = webhook.observe("/readyz").await?;
            ensure!(status != 200 && text.contains("tokenscopepolicies"), "{status} {text}");
            Ok(())
        },
    )
    .await
    .unwrap();
    let (_, metrics) = webhook.observe("/metrics").await.unwrap();
    let age = metrics
        .lines()
        .filter(|line| line.starts_with("tokenscope_watch_age_seconds{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .fold(0.0, f64::max);
    assert!(age > 80.0, "the oldest watch is {age} s old:\n{metrics}");
    let (status, _) = webhook.observe("/livez").await.unwrap();
    assert_eq!(status, 200, "a restart would not mend it");
    grants_are_audited_as_stale(&shop).await;

    // With its rights it reads again what it missed.
    control_plane
        .apply(installed.objects(), "tokenscope-system")
        .await
        .unwrap();
    is_back(control_plane, installed).await;
    shop.delete_policy("orders").await.unwrap();
    shop.refused(&shop.asking("after", ORDERS), "").await.unwrap();
}

/// What is decided by policies that may be out of date stands in the audit log as such; what was decided before does not.
async fn grants_are_audited_as_stale(shop: &Shop<'_>) {
    const STALE: &str = "pods.tokenscope.io/stale-policies";
    shop.granted(&shop.asking("while-stale", ORDERS)).await.unwrap();
    let annotations = eventually(SOON, "both grants are in the audit log", async || {
        let created = |name: &str| {
            let events = shop.control_plane.audit_events(|event| {
                event["verb"] == "create"
                    && event["objectRef"]["resource"] == "pods"
                    && event["objectRef"]["name"] == name
            })?;
            let granted = |event: &&Value| event["annotations"]["pods.tokenscope.io/decision"] == "granted";
            let event = events.iter().find(granted);
            let event = event.with_context(|| format!("no grant of {name}: {events:?}"))?;
            anyhow::Ok(event["annotations"].clone())
        };
        Ok([created("before")?, created("while-stale")?])
    })
    .await
    .unwrap();
    let [before, stale] = annotations;
    assert_eq!(before[STALE], Value::Null, "{before}");
    assert_eq!(stale[STALE], "true", "{stale}");
}

#[tokio::test]
async fn a_pod_with_a_forged_mark_is_no_sign_that_the_webhook_works_so_nothing_is_evicted() {
    let scenario = Scenario::start(Options {
        values: json!({"operator": {"evictMissed": true}}),
        operator_arguments: vec!["--lease-duration=3".to_owned()],
        ..Options::default()
    })
    .await;
    let (control_plane, installed) = (&scenario.control_plane, &scenario.installed);
    let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
    let annotation = [("tokenscope.io/role-arn", ORDERS)];
    control_plane
        .create_service_account("shop", "annotated", &annotation)
        .await
        .unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["annotated"]}], "roles": {"allowed": [ORDERS]}});
    shop.policy("annotated", spec).await.unwrap();
    let of_account = |name: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("annotated");
        // An eviction is of a pod that somebody makes anew.
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "controller": true,
            "uid": "6c1b6a14-3f0e-4b1c-9b1e-2f1f3a6f0d11",
        }]);
        pod
    };
    shop.granted(&of_account("before")).await.unwrap();
    // Only what is older by the second is older for certain.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    installed.webhook(0).kill().unwrap();
    for name in ["missed-1", "missed-2", "missed-3"] {
        let answer = create_pod(&shop.client, &of_account(name)).await.unwrap();
        assert!(answer.accepted(), "{}", answer.message());
        runs(&shop, name).await;
    }
    eventually(SOON, "the operator has seen that pods were missed", async || {
        let events = shop.events_about("Pod", "missed-1").await?;
        events.first().context("there is no Event")?;
        Ok(())
    })
    .await
    .unwrap();

    // For as long as the webhook is away, whoever may create pods says that it works.
    for number in 0..20 {
        let mut forged = shop.pod(&format!("forged-{number}"));
        forged["metadata"]["labels"] = json!({"tokenscope.io/reviewed": "granted"});
        forged["metadata"]["annotations"] =
            json!({"tokenscope.io/reviewed": "granted", "tokenscope.io/role-arn": ADMIN});
        // Admitted or not: where it is refused, there is nothing to believe.
        create_pod(&shop.client, &forged).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for name in ["missed-1", "missed-2", "missed-3"] {
        let pod = get_json(&shop.client, &shop.path(&format!("pods/{name}"))).await;
        let pod = pod.unwrap_or_else(|error| panic!("{name} was evicted while the webhook is away: {error}"));
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
    }
}
