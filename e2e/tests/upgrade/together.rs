//! Both versions at once, for as long as it takes: webhooks of both answer, and the operator of each leads once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, annotation, with_annotations};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::rollout::{Load, Rollout};
use tokenscope_e2e::{eventually, get_json};
use tokenscope_xtask::releases::MARK_IS_A_LABEL;

use crate::{COUNTED, SIDE_BY_SIDE, admitted_with, failed_calls, judge, options_of, status_of};

/// The pause behind each pod of a kind that is created.
const PAUSE: Duration = Duration::from_millis(60);
/// How long an operator may take to end.
const END: Duration = Duration::from_secs(30);
/// The policies, each of whose pods are counted.
const POLICIES: [&str; 2] = ["orders", "carts"];

/// A pod of each kind, and the role of its container `app`.
fn kinds(shop: &Shop<'_>, strict: &Shop<'_>) -> Vec<(Value, Option<&'static str>)> {
    let of_carts = |mut pod: Value| {
        pod["spec"]["serviceAccountName"] = json!("carts");
        pod
    };
    let mut many = shop.asking("many", ORDERS);
    many["spec"]["containers"] = json!([{"name": "app", "image": "app"}, {"name": "other", "image": "app"}]);
    many["spec"]["initContainers"] =
        json!([{"name": "init", "image": "app"}, {"name": "mesh", "image": "app", "restartPolicy": "Always"}]);
    let mut by_hand = shop.pod("by-hand");
    let token =
        json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}});
    by_hand["spec"]["volumes"] = json!([{"name": "own", "projected": {"sources": [token]}}]);
    by_hand["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    let shorter = [
        ("tokenscope.io/token-expiration", "900"),
        ("tokenscope.io/role-arn.app", CARTS),
    ];
    vec![
        (shop.asking("asks", ORDERS), Some(ORDERS)),
        (with_annotations(shop.asking("for-one", ORDERS), &shorter), Some(CARTS)),
        (of_carts(shop.pod("by-default")), Some(CARTS)),
        (many, Some(ORDERS)),
        (by_hand, None),
        (shop.pod("plain"), None),
        (strict.pod("required"), None),
    ]
}

/// Every pod that was created is there, as it was, and none of a policy's is missed, outdated or holds a token that it may not.
async fn nothing_is_lost(shop: &Shop<'_>, first: &BTreeMap<String, Value>, load: &Load, when: &str) {
    let pods = get_json(&shop.client, &shop.path("pods")).await.unwrap();
    let pods = pods["items"].as_array().unwrap();
    for (name, version) in first {
        let found = pods.iter().find(|pod| pod["metadata"]["name"] == **name);
        let found = found.map(|pod| &pod["metadata"]["resourceVersion"]);
        assert_eq!(found, Some(version), "{when}: {name} was written to, or is gone");
    }
    let granted = POLICIES.map(|policy| {
        (
            policy,
            pods.iter().filter(|pod| is_granted_by(pod, policy)).count() as u64,
        )
    });
    let what = format!("{when}, the operator finds every pod as it should be");
    let found = eventually(COUNTED, what, async || {
        for (policy, least) in granted {
            let status = status_of(shop, policy).await?;
            let count = |name: &str| status[name].as_u64().unwrap_or_default();
            let wrong = ["missedPods", "outdatedPods", "deniedPods", "ungrantedTokenPods"];
            ensure!(least > 0 && count("injectedPods") >= least, "of {least}: {status}");
            ensure!(wrong.iter().all(|name| count(name) == 0), "{status}");
        }
        Ok(())
    });
    let found = found.await.map_err(|error| format!("{error:#}"));
    let calls = failed_calls(shop.control_plane);
    assert_eq!((found, load.wrong()), (Ok(()), Vec::new()), "{calls:#?}");
}

/// True if the record of a pod says that this policy grants it something.
fn is_granted_by(pod: &Value, policy: &str) -> bool {
    let record = annotation(pod, "tokenscope.io/grant").unwrap_or_default();
    record.contains(&format!("TokenScopePolicy shop/{policy}\""))
}

/// Ends the operator that leads, so that the other one does.
async fn hands_over(operator: &ServerProcess) {
    operator.terminate(END).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_at_once_refuse_nothing_and_no_operator_finds_fault_with_the_others_pods() {
    let Some(built) = MARK_IS_A_LABEL.build().unwrap() else {
        return;
    };
    let values = json!({"lock": {"mode": "deny"}});
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let old = Options {
        values: values.clone(),
        ..options_of(&built)
    };
    let mut rollout = Rollout::start(&control_plane, old.clone()).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    let strict = Shop::open(&control_plane, "strict", &[("tokenscope.io/required", "true")])
        .await
        .unwrap();
    control_plane
        .create_service_account("shop", "carts", &[])
        .await
        .unwrap();
    shop.allow_orders().await.unwrap();
    let by_default =
        json!({"subjects": [{"serviceAccounts": ["carts"]}], "roles": {"allowed": [CARTS], "default": CARTS}});
    shop.policy("carts", by_default).await.unwrap();
    let mut first = BTreeMap::new();
    for (pod, role) in kinds(&shop, &strict) {
        eventually(COUNTED, "a pod is reviewed by the policies", async || {
            judge(&create_pod(&shop.client, &pod).await?, role)
        })
        .await
        .unwrap();
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            pod["metadata"]["namespace"].as_str().unwrap(),
            pod["metadata"]["name"].as_str().unwrap()
        );
        let version = get_json(&shop.client, &path).await.unwrap()["metadata"]["resourceVersion"].take();
        if pod["metadata"]["namespace"] == "shop" {
            first.insert(pod["metadata"]["name"].as_str().unwrap().to_owned(), version);
        }
    }
    let pods = kinds(&shop, &strict).into_iter();
    let pods = pods.map(|(pod, role)| (pod, admitted_with(role))).collect();
    let load = Load::begin(&shop.client, pods, PAUSE);
    nothing_is_lost(&shop, &first, &load, "before the upgrade").await;

    // New webhooks beside old ones, and the old operator leads: it counts what both have granted.
    let next = Options {
        values,
        ..Options::default()
    };
    let leaving = rollout.begin(&control_plane, "next-", next).await.unwrap();
    tokio::time::sleep(SIDE_BY_SIDE).await;
    nothing_is_lost(&shop, &first, &load, "while the old operator leads").await;
    // The new one leads, and old webhooks still answer.
    hands_over(leaving.installed().operator(0)).await;
    nothing_is_lost(&shop, &first, &load, "while the new operator leads").await;
    // And the old one once more, as where a new pod can't be scheduled.
    leaving.installed().operator(0).restart().unwrap();
    hands_over(rollout.installed().operator(0)).await;
    nothing_is_lost(&shop, &first, &load, "while the old operator leads again").await;
    rollout.installed().operator(0).restart().unwrap();
    rollout.end(&control_plane, leaving).await.unwrap();
    nothing_is_lost(&shop, &first, &load, "after the upgrade").await;

    rollout
        .replace(&control_plane, "back-", old, SIDE_BY_SIDE)
        .await
        .unwrap();
    // Nothing is asked of the status now: operators from before fingerprints had a version (ADR 8) find every record of a later one outdated.
    let created = load.created();
    assert_eq!(load.end().await, [""; 0], "{:#?}", failed_calls(&control_plane));
    assert!(created > 200, "only {created} pods were created");
}
