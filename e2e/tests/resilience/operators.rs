//! The operator is killed or replaced, and the API server goes away for a while.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::json;
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, orders_may, reviewed, variable};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{eventually, get_json};

use crate::{SOON, Scenario, is_back, is_ready, policy_when};

/// Long enough that waiting for it to pass can be told from not waiting, on a machine that stands still for some seconds meanwhile.
const LEASE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn another_operator_takes_over_and_all_go_on_when_the_api_server_was_away() {
    let options = Options {
        operators: 2,
        operator_arguments: vec![format!("--lease-duration={}", LEASE.as_secs())],
        ..Options::default()
    };
    // An API server that can't stream lists, as older ones: every watch begins with a list in pages.
    let scenario = Scenario::start_with(&["--feature-gates=WatchList=false"], options).await;
    let (control_plane, installed) = (&scenario.control_plane, &scenario.installed);
    let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
    shop.policy("first", orders_may(&[ORDERS])).await.unwrap();
    policy_when(&shop, "first", SOON, is_ready).await.unwrap();

    let leader = holder(&shop.client).await.unwrap();
    let successor = the_leader_crashes(&scenario, &shop, leader).await;
    the_next_one_is_terminated(&scenario, &shop, successor, leader).await;
    scenario.holds(&[]);

    // The API server goes away and comes back: nobody ends, and what changes afterwards is seen by all watches.
    let pids = || -> Vec<u32> { installed.processes().map(|process| process.pid().unwrap()).collect() };
    control_plane.apiserver().kill().unwrap();
    let before = pids();
    control_plane.apiserver().restart().unwrap();
    is_back(control_plane, installed).await;
    let since = jiff::Timestamp::now();
    a_new_policy_is_seen(&shop).await;
    service_accounts_are_seen(&shop).await;
    the_namespaces_new_label_is_seen(&shop).await;
    assert_eq!(before, pids());

    // While it starts, an API server knows no roles yet and refuses what is allowed.
    let refused = control_plane
        .audit_events(|event| {
            let at = event["requestReceivedTimestamp"].as_str().unwrap_or_default();
            event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                && at.parse::<jiff::Timestamp>().is_ok_and(|at| at > since)
        })
        .unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    scenario.holds_but_for_rights(&[]);
}

/// Its Lease must run out first. Returns the operator that holds it then.
async fn the_leader_crashes(scenario: &Scenario, shop: &Shop<'_>, leader: usize) -> usize {
    let installed = &scenario.installed;
    installed.operator(leader).kill().unwrap();
    shop.policy("second", orders_may(&[CARTS])).await.unwrap();
    policy_when(shop, "second", LEASE + SOON, is_ready).await.unwrap();
    let successor = holder(&shop.client).await.unwrap();
    assert_ne!(successor, leader);
    installed.operator(leader).restart().unwrap();
    installed
        .operator(leader)
        .wait_ready(Duration::from_secs(180))
        .await
        .unwrap();
    successor
}

/// It gives its Lease back, and nobody waits.
async fn the_next_one_is_terminated(scenario: &Scenario, shop: &Shop<'_>, successor: usize, leader: usize) {
    let installed = &scenario.installed;
    let status = installed
        .operator(successor)
        .terminate(Duration::from_secs(60))
        .await
        .unwrap();
    assert!(status.success(), "the operator has ended with {status}");
    let terminated = Instant::now();
    eventually(LEASE + SOON, "the other operator holds the Lease", async || {
        ensure!(holder(&shop.client).await? == leader, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let waited = terminated.elapsed();
    assert!(waited < LEASE * 2 / 3, "the Lease was not given back: {waited:?}");
    shop.policy("third", orders_may(&[CARTS])).await.unwrap();
    policy_when(shop, "third", SOON, is_ready).await.unwrap();
    installed.operator(successor).restart().unwrap();
    installed
        .operator(successor)
        .wait_ready(Duration::from_secs(180))
        .await
        .unwrap();
}

async fn a_new_policy_is_seen(shop: &Shop<'_>) {
    shop.policy("fourth", orders_may(&["arn:aws:iam::111122223333:role/new"]))
        .await
        .unwrap();
    policy_when(shop, "fourth", SOON, is_ready).await.unwrap();
    shop.granted(&shop.asking("fourth", "arn:aws:iam::111122223333:role/new"))
        .await
        .unwrap();
}

/// A new one, and a changed one.
async fn service_accounts_are_seen(shop: &Shop<'_>) {
    shop.control_plane
        .create_service_account("shop", "late", &[("tokenscope.io/role-arn", ORDERS)])
        .await
        .unwrap();
    shop.policy(
        "late",
        json!({"subjects": [{"serviceAccounts": ["late"]}], "roles": {"allowed": [ORDERS, CARTS]}}),
    )
    .await
    .unwrap();
    let mut of_late = shop.pod("late");
    of_late["spec"]["serviceAccountName"] = json!("late");
    shop.granted(&of_late).await.unwrap();
    let change = json!({"metadata": {"annotations": {"tokenscope.io/role-arn": CARTS}}});
    tokenscope_e2e::merge(&shop.client, &shop.path("serviceaccounts/late"), &change)
        .await
        .unwrap();
    of_late["metadata"]["name"] = json!("changed");
    eventually(SOON, "the ServiceAccount's new role is seen", async || {
        let answer = try_pod(&shop.client, &of_late).await?;
        let role = variable(&answer.body, "app", "AWS_ROLE_ARN");
        ensure!(role.as_deref() == Some(CARTS), "{role:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn the_namespaces_new_label_is_seen(shop: &Shop<'_>) {
    let change = json!({"metadata": {"labels": {"tokenscope.io/warn": "true"}}});
    tokenscope_e2e::merge(&shop.client, "/api/v1/namespaces/shop", &change)
        .await
        .unwrap();
    eventually(SOON, "the namespace's new label is seen", async || {
        let answer = create_pod(
            &shop.client,
            &shop.asking("warned", "arn:aws:iam::111122223333:role/other"),
        )
        .await?;
        ensure!(answer.accepted(), "{}", answer.message());
        ensure!(
            reviewed(&answer.body) == Some("refused") && !answer.warnings.is_empty(),
            "{answer:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// The number of the operator that holds the Lease.
async fn holder(client: &Client) -> Result<usize> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/tokenscope-operator");
    let lease = get_json(client, &path).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let number = (0..2).find(|number| holder.starts_with(&format!("tokenscope-operator-{number}")));
    number.ok_or_else(|| anyhow::anyhow!("the holder is {holder:?}"))
}
