//! The status of policies, Events, and that nothing is written without a reason.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::control_plane::ISSUER;
use tokenscope_e2e::fixtures::{CARTS, ORDERS, PROPAGATION, Shop, orders_may};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, delete, eventually, get_json, merge, post};

use crate::{OPERATOR, SHARED, counts, message, of_replica_set, ready, reasons, unreviewed, when};

#[tokio::test]
async fn a_status_is_true_within_seconds_and_has_the_trust_policies() {
    let shop = Shop::open(&SHARED.environment().await.control_plane, "status", &[])
        .await
        .unwrap();
    let spec = json!({
        "subjects": [{"serviceAccounts": ["orders", "batch-*"]}],
        "roles": {"allowed": [ORDERS, CARTS, "arn:aws:iam::111122223333:role/other/*"], "default": CARTS},
        "audiences": {"allowed": ["sts.amazonaws.com"]},
    });
    shop.policy("orders", spec).await.unwrap();
    let pod = shop.granted(&shop.pod("by-default")).await.unwrap().body;
    assert!(pod["spec"].to_string().contains(CARTS));

    let policy = when(&shop, "orders", |status| counts(status, [1, 1, 0, 0]))
        .await
        .unwrap();
    let status = &policy["status"];
    assert_eq!(reasons(status), ["Valid", "InForce", "UpToDate"]);
    assert_eq!(status["roles"], CARTS);
    assert_eq!(status["generationObservedAt"], policy["metadata"]["creationTimestamp"]);
    let trust = status["trustPolicies"].as_array().unwrap();
    let roles: Vec<&str> = trust.iter().filter_map(|entry| entry["roleArn"].as_str()).collect();
    assert_eq!(roles, [CARTS, ORDERS], "the pattern has no trust policy of its own");
    let document: Value = serde_json::from_str(trust[0]["document"].as_str().unwrap()).unwrap();
    let provider = ISSUER.strip_prefix("https://").unwrap();
    let expected = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": format!("arn:aws:iam::111122223333:oidc-provider/{provider}")},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {
                "StringEquals": {format!("{provider}:aud"): "sts.amazonaws.com"},
                "StringLike": {format!("{provider}:sub"): [
                    "system:serviceaccount:status:batch-*", "system:serviceaccount:status:orders",
                ]},
            },
        }],
    });
    assert_eq!(document, expected);

    // A new generation is observed, and pods that have what it said before are outdated.
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let policy = when(&shop, "orders", |status| counts(status, [0, 0, 0, 1]))
        .await
        .unwrap();
    assert_eq!(policy["status"]["observedGeneration"], 2);
    assert_eq!(reasons(&policy["status"]), ["Valid", "InForce", "OutdatedPods"]);
    assert_eq!(policy["status"]["trustPolicies"].as_array().unwrap().len(), 1);
    delete(&shop.client, &shop.path("pods/by-default")).await.unwrap();
    when(&shop, "orders", |status| counts(status, [0, 0, 0, 0]))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_not_true_of_a_policy_vanishes_from_its_status_and_conditions_keep_their_times() {
    let environment = SHARED.environment().await;
    let shop = Shop::open(&environment.control_plane, "vanish", &[]).await.unwrap();
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let is_ready = |status: &Value| ready(status, "True", "UpToDate");
    let before = when(&shop, "orders", is_ready).await.unwrap();

    // As the operator of 0.1 wrote it: a merge patch in the name of its user agent, here of what is true no longer.
    let path = format!(
        "{}/namespaces/vanish/tokenscopepolicies/orders/status?fieldManager=tokenscope-operator",
        crate::POLICIES
    );
    let stale = json!({
        "lockedTokenCsiDrivers": ["gone.example"],
        "trustPolicies": [{"roleArn": CARTS, "document": "{}"}],
        "missedPods": 3,
    });
    merge(&shop.client, &path, &json!({"status": stale})).await.unwrap();
    let after = when(&shop, "orders", |status| {
        ensure!(status["lockedTokenCsiDrivers"].is_null(), "a field is still there");
        ensure!(status["missedPods"] == 0, "a count is still there");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(after["status"], before["status"], "and conditions have their times");
    let managers = after["metadata"]["managedFields"].as_array().unwrap();
    let owners: Vec<&Value> = managers
        .iter()
        .filter(|entry| entry["subresource"] == "status")
        .collect();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(owners[0]["manager"], "tokenscope-operator");
    assert!(
        !owners[0].to_string().contains("f:lockedTokenCsiDrivers"),
        "{}",
        owners[0]
    );
}

#[tokio::test]
async fn a_conflict_shows_on_both_policies_before_a_pod_meets_it() {
    let shop = Shop::open(&SHARED.environment().await.control_plane, "conflict", &[])
        .await
        .unwrap();
    let with_default = |role: &str| json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}});
    shop.policy("one", with_default(ORDERS)).await.unwrap();
    shop.policy("two", with_default(CARTS)).await.unwrap();
    for (name, other) in [("one", "two"), ("two", "one")] {
        let policy = when(&shop, name, |status| ready(status, "False", "Conflict"))
            .await
            .unwrap();
        let message = message(&policy["status"], "Ready");
        for part in [ORDERS, CARTS, &format!("TokenScopePolicy conflict/{other}")] {
            assert!(message.contains(part), "{message}");
        }
    }
    shop.delete_policy("two").await.unwrap();
    when(&shop, "one", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_missed_pod_has_an_event_and_its_owner_too_and_is_counted() {
    let environment = Environment::start(Options::default()).await.unwrap();
    let shop = Shop::open(&environment.control_plane, "missed", &[]).await.unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
    unreviewed(&environment, &shop, &of_replica_set(&shop, "missed-1"))
        .await
        .unwrap();
    unreviewed(&environment, &shop, &of_replica_set(&shop, "missed-2"))
        .await
        .unwrap();

    let policy = when(&shop, "orders", |status| counts(status, [2, 0, 2, 0]))
        .await
        .unwrap();
    assert_eq!(reasons(&policy["status"])[2], "MissedPods");
    for (kind, name) in [("Pod", "missed-1"), ("Pod", "missed-2"), ("ReplicaSet", "orders")] {
        let events = eventually(PROPAGATION, format!("there is an Event on {name}"), async || {
            let events = shop.events_about(kind, name).await?;
            ensure!(!events.is_empty(), "none");
            Ok(events)
        })
        .await
        .unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (&events[0]["reason"], &events[0]["type"]),
            (&json!("CredentialsMissed"), &json!("Warning"))
        );
        let message = events[0]["message"].as_str().unwrap();
        assert!(
            message.contains("TokenScopePolicy missed/orders") && message.contains(ORDERS),
            "{message}"
        );
    }
    eventually(PROPAGATION, "the metrics say so", async || {
        let (_, text) = environment.installed.operator(0).observe("/metrics").await?;
        ensure!(text.contains("tokenscope_operator_pods{state=\"missed\"} 2"), "{text}");
        ensure!(text.contains("tokenscope_operator_leader 1"), "{text}");
        Ok(())
    })
    .await
    .unwrap();
    // What was there before an operator started, it has not seen.
    environment.installed.operator(0).kill().unwrap();
    environment.installed.operator(0).restart().unwrap();
    when(&shop, "orders", |status| {
        counts(status, [2, 0, 0, 2])?;
        ready(status, "False", "MaybeMissedPods")
    })
    .await
    .unwrap();
    for pod in ["missed-1", "missed-2"] {
        delete(&shop.client, &shop.path(&format!("pods/{pod}"))).await.unwrap();
    }
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
}

#[tokio::test]
async fn f05_pods_that_run_when_a_label_selects_their_namespace_are_outdated_and_not_missed() {
    let shop = Shop::open(&SHARED.environment().await.control_plane, "relabelled", &[])
        .await
        .unwrap();
    let path = format!("{}/clustertokenscopepolicies", crate::POLICIES);
    let policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "relabelled"},
        "spec": {"namespaceSelector": {"matchLabels": {"relabelled": "yes"}}, "subjects": [{}], "roles": {"default": ORDERS}},
    });
    post(&shop.client, &path, &policy).await.unwrap();
    create_pod(&shop.client, &shop.pod("before")).await.unwrap();
    let label = json!({"metadata": {"labels": {"relabelled": "yes"}}});
    merge(&shop.client, "/api/v1/namespaces/relabelled", &label)
        .await
        .unwrap();
    let status = eventually(PROPAGATION, "the pod counts", async || {
        let policy = get_json(&shop.client, &format!("{path}/relabelled")).await?;
        ensure!(policy["status"]["matchedPods"] == 1, "{}", policy["status"]);
        Ok(policy["status"].clone())
    })
    .await
    .unwrap();
    counts(&status, [1, 0, 0, 1]).unwrap();
    assert_eq!(reasons(&status)[2], "OutdatedPods");
    let document = status["trustPolicies"][0]["document"].as_str().unwrap();
    assert!(document.contains("system:serviceaccount:relabelled:*"), "{document}");
    delete(&shop.client, &format!("{path}/relabelled")).await.unwrap();
}

/// Waits until the Event of the missed pod is there, and then until nothing was written for as long as two resyncs.
async fn all_is_written(shop: &Shop<'_>, writes: impl Fn() -> usize) {
    eventually(PROPAGATION, "the Event of the missed pod is written", async || {
        ensure!(!shop.events_about("Pod", "missed").await?.is_empty(), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    eventually(PROPAGATION, "nothing is left to be written", async || {
        let before = writes();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let more = writes() - before;
        ensure!(more == 0, "{more} writes within 5 s");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_quiet_cluster_is_written_to_no_more() {
    let environment = Environment::start(Options {
        operators: 2,
        operator_arguments: vec!["--resync=2".to_owned()],
        ..Options::default()
    })
    .await
    .unwrap();
    let control_plane = &environment.control_plane;
    let shop = Shop::open(control_plane, "quiet", &[]).await.unwrap();
    let spec = json!({"subjects": [{}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    shop.policy("over", {
        let mut spec = orders_may(&[CARTS]);
        spec["activeSchedule"] = json!({"cron": "0 0 1 1 *", "duration": "1h", "timeZone": "UTC"});
        spec
    })
    .await
    .unwrap();
    shop.granted(&shop.pod("injected")).await.unwrap();
    unreviewed(&environment, &shop, &shop.pod("missed")).await.unwrap();
    when(&shop, "orders", |status| counts(status, [2, 1, 1, 0]))
        .await
        .unwrap();
    when(&shop, "over", |status| ready(status, "True", "NotInForce"))
        .await
        .unwrap();

    let writes = || {
        let of_operator = |event: &Value| {
            event["user"]["username"] == OPERATOR
                && !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"))
                && event["objectRef"]["resource"] != "leases"
        };
        control_plane.audit_events(of_operator).unwrap().len()
    };
    all_is_written(&shop, writes).await;
    let before = writes();
    assert!(
        before >= 5,
        "two Secrets, the configuration and two policies were written: {before}"
    );
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (after, written) = (
        writes(),
        control_plane
            .audit_events(|event| event["user"]["username"] == OPERATOR)
            .unwrap(),
    );
    let last = &written[written.len() - (after - before).min(written.len())..];
    assert_eq!(after, before, "{last:?}");
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}
