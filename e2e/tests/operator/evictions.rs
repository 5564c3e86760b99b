//! Which running pods the operator evicts, by the Eviction API of a real API server, and which it never does.

use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{CARTS, ORDERS, PROPAGATION, Shop};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, delete, eventually, get_json, merge, post};

use crate::{OPERATOR, counts, of_replica_set, ready, unreviewed, when};

/// A pod whose eviction was refused is tried again after half a minute; two of one namespace are ten seconds apart. The rest is for a busy machine.
const EVICTED: Duration = Duration::from_secs(180);

const BUDGETS: &str = "/apis/policy/v1/namespaces/expiry/poddisruptionbudgets";

#[tokio::test]
async fn missed_pods_are_evicted_where_the_chart_allows_it_and_only_if_a_controller_makes_new_ones() {
    let environment = Environment::start(Options {
        values: json!({"operator": {"evictMissed": true}}),
        ..Options::default()
    })
    .await
    .unwrap();
    let shop = Shop::open(&environment.control_plane, "evict", &[]).await.unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
    unreviewed(&environment, &shop, &of_replica_set(&shop, "made-by-a-controller"))
        .await
        .unwrap();
    unreviewed(&environment, &shop, &shop.pod("alone")).await.unwrap();

    eventually(EVICTED, "the pod is evicted", async || {
        let gone = get_json(&shop.client, &shop.path("pods/made-by-a-controller")).await;
        ensure!(
            matches!(gone, Err(kube::Error::Api(ref status)) if status.is_not_found()),
            "it is still there"
        );
        Ok(())
    })
    .await
    .unwrap();
    when(&shop, "orders", |status| counts(status, [1, 0, 1, 0]))
        .await
        .unwrap();
    get_json(&shop.client, &shop.path("pods/alone")).await.unwrap();
    assert_eq!(environment.control_plane.forbidden().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn when_a_policy_expires_exactly_its_running_pods_are_evicted_and_a_disruption_budget_is_kept() {
    let environment = Environment::start(Options {
        values: json!({"operator": {"evictExpired": true}}),
        ..Options::default()
    })
    .await
    .unwrap();
    let control_plane = &environment.control_plane;
    let _controllers = control_plane.start_controllers(&["disruption-controller"]).unwrap();
    let shop = Shop::open(control_plane, "expiry", &[]).await.unwrap();
    policies_that_evict_keep_and_last(&shop).await;
    pods_of_each_policy_run(&shop).await;

    the_policies_expire_and_not_before(&environment, &shop).await;
    eventually(
        EVICTED,
        "the pod is evicted, and the other one's eviction is refused",
        async || {
            let evictions = evictions(&environment);
            let has = |pod: &str, code: i64| evictions.iter().any(|(name, answer)| name == pod && *answer == code);
            ensure!(has("ending", 201) && has("protected", 429), "{evictions:?}");
            Ok(())
        },
    )
    .await
    .unwrap();
    assert!(is_going(&shop, "ending").await);
    for stays in ["protected", "alone", "keeping", "lasting"] {
        assert!(!is_going(&shop, stays).await, "{stays} is going");
    }

    // Without the budget it goes too. Nobody else was ever asked for.
    delete(&shop.client, &format!("{BUDGETS}/protected")).await.unwrap();
    eventually(EVICTED, "the protected pod is evicted", async || {
        ensure!(is_going(&shop, "protected").await, "it is not");
        Ok(())
    })
    .await
    .unwrap();
    for stays in ["alone", "keeping", "lasting"] {
        assert!(!is_going(&shop, stays).await, "{stays} is going");
    }
    for (pod, _) in evictions(&environment) {
        assert!(["ending", "protected"].contains(&pod.as_str()), "{pod}");
    }
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

/// A policy that evicts the pods of `ending` once it has expired, one that keeps its own, and one that doesn't expire.
async fn policies_that_evict_keep_and_last(shop: &Shop<'_>) {
    let about = |app: &str, role: &str, on_expiry: &str| {
        json!({
            "subjects": [{"podSelector": {"matchLabels": {"app": app}}}],
            "roles": {"default": role}, "onExpiry": on_expiry,
        })
    };
    for (name, role, on_expiry) in [
        ("ending", ORDERS, "Evict"),
        ("keeping", CARTS, "Keep"),
        ("lasting", ORDERS, "Evict"),
    ] {
        shop.policy(name, about(name, role, on_expiry)).await.unwrap();
        when(shop, name, |status| ready(status, "True", "UpToDate"))
            .await
            .unwrap();
    }
}

/// A pod for each policy, one beside it that a budget protects from eviction, and one without a controller.
async fn pods_of_each_policy_run(shop: &Shop<'_>) {
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "protected"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"budget": "yes"}}},
    });
    post(&shop.client, BUDGETS, &budget).await.unwrap();
    for (name, app) in [
        ("ending", "ending"),
        ("protected", "ending"),
        ("keeping", "keeping"),
        ("lasting", "lasting"),
    ] {
        let mut pod = of_replica_set(shop, name);
        pod["metadata"]["labels"] = json!({"app": app, "budget": if name == "protected" { "yes" } else { "no" }});
        // Each has a controller of its own, so that none waits for another one's replacement.
        pod["metadata"]["ownerReferences"][0]["uid"] = json!(format!("replica-set-of-{name}"));
        runs(shop, &pod).await;
    }
    let mut alone = shop.pod("alone");
    alone["metadata"]["labels"] = json!({"app": "ending"});
    runs(shop, &alone).await;
    eventually(PROPAGATION, "the budget counts its pod", async || {
        let status = get_json(&shop.client, &format!("{BUDGETS}/protected")).await?["status"].take();
        ensure!(
            status["currentHealthy"] == 1 && status["disruptionsAllowed"] == 0,
            "{status}"
        );
        Ok(())
    })
    .await
    .unwrap();
    when(shop, "ending", |status| counts(status, [3, 3, 0, 0]))
        .await
        .unwrap();
}

async fn the_policies_expire_and_not_before(environment: &Environment, shop: &Shop<'_>) {
    let end = Timestamp::now() + SignedDuration::from_secs(6);
    for name in ["ending", "keeping"] {
        let path = format!("{}/namespaces/expiry/tokenscopepolicies/{name}", crate::POLICIES);
        merge(&shop.client, &path, &json!({"spec": {"expiresAt": end.to_string()}}))
            .await
            .unwrap();
    }
    loop {
        let found = evictions(environment);
        // What was found after the end may have been asked for after it too.
        if Timestamp::now() >= end {
            break;
        }
        assert_eq!(found, Vec::<(String, i64)>::new(), "before the policy's end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Creates a pod that is granted its role, and says of it what a kubelet says: it is on a node, runs and is ready.
async fn runs(shop: &Shop<'_>, pod: &Value) {
    shop.granted(pod).await.unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": shop.namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": tokenscope_e2e::control_plane::NODE},
    });
    post(&shop.client, &shop.path(&format!("pods/{name}/binding")), &binding)
        .await
        .unwrap();
    let status = json!({"status": {
        "phase": "Running", "startTime": Timestamp::now().to_string(), "conditions": [{"type": "Ready", "status": "True"}],
    }});
    merge(&shop.client, &shop.path(&format!("pods/{name}/status")), &status)
        .await
        .unwrap();
}

/// Whether a pod is gone, or was told to stop and only waits for its kubelet.
async fn is_going(shop: &Shop<'_>, name: &str) -> bool {
    match get_json(&shop.client, &shop.path(&format!("pods/{name}"))).await {
        Ok(pod) => pod["metadata"]["deletionTimestamp"].is_string(),
        Err(error) => {
            assert!(
                matches!(error, kube::Error::Api(ref status) if status.is_not_found()),
                "{error}"
            );
            true
        }
    }
}

/// The evictions that the operator asked for: the pod, and the API server's answer.
fn evictions(environment: &Environment) -> Vec<(String, i64)> {
    let by_operator =
        |event: &Value| event["user"]["username"] == OPERATOR && event["objectRef"]["subresource"] == "eviction";
    let events = environment.control_plane.audit_events(by_operator).unwrap();
    let answer = |event: &Value| {
        let name = event["objectRef"]["name"].as_str()?.to_owned();
        Some((name, event["responseStatus"]["code"].as_i64()?))
    };
    events.iter().filter_map(answer).collect()
}
