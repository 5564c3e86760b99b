//! A namespace whose share of the webhook is used up: the real webhook can't judge its pods, nothing gets past it for that, and the status of
//! its policies says why.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, orders_may, reviewed};
use tokenscope_e2e::{Environment, delete, eventually, get_json, install, post};

use crate::MARK;
use crate::failures::{DRIVER, marks, needing_a_review};
use crate::lock::add_driver;

/// One more than the webhook keeps of one namespace; `index/src/webhook_bounds.rs`.
const TOO_MANY_POLICIES: usize = 1001;

/// How many are written at a time.
const AT_A_TIME: usize = 16;

/// How long the operator may take to write the statuses of all policies of two such namespaces.
const WRITTEN: Duration = Duration::from_secs(400);

#[tokio::test(flavor = "multi_thread")]
async fn with_the_share_of_its_namespace_used_up_no_pod_that_needs_a_review_is_admitted_without_one() {
    let options = install::Options {
        values: json!({"lock": {"mode": "deny", "csiDrivers": [DRIVER]}}),
        ..install::Options::default()
    };
    let environment = Environment::start(options).await.unwrap();
    let control_plane = &environment.control_plane;
    let crowded = Shop::open(control_plane, "crowded", &[]).await.unwrap();
    let labels = [("tokenscope.io/required", "true")];
    let strict = Shop::open(control_plane, "crowded-too", &labels).await.unwrap();
    let beside = Shop::open(control_plane, "beside", &[]).await.unwrap();
    add_driver(&crowded.client, DRIVER, "sts.amazonaws.com").await;
    for shop in [&crowded, &strict] {
        use_up_the_share(shop).await;
        let why = format!("the TokenScopePolicies of namespace {} take", shop.namespace);
        shop.refused(&shop.asking("is-it-used-up", ORDERS), &why).await.unwrap();
    }

    let (_, metrics) = environment.installed.webhook(0).observe("/metrics").await.unwrap();
    assert!(metrics.contains("tokenscope_namespaces_over_share 2"), "{metrics}");

    let mut admitted = Vec::new();
    let pods = needing_a_review(&crowded, &strict);
    let pods = pods.into_iter().flat_map(|(kind, pod)| marks(&kind, &pod));
    for (number, (kind, mut pod)) in pods.enumerate() {
        pod["metadata"]["name"] = json!(format!("pod-{number}"));
        let answer = create_pod(&crowded.client, &pod).await.unwrap();
        if !answer.accepted() {
            continue;
        }
        // A pod that opts out and holds no token has nothing to be judged by policies, so it was reviewed like any other of its namespace.
        let metadata = &answer.body["metadata"];
        let by_review =
            metadata["labels"][MARK] == "asks-nothing" && metadata["annotations"]["tokenscope.io/grant"].is_null();
        if !(kind.starts_with("required, opted out") && by_review) {
            admitted.push(format!("{kind}: {metadata}"));
        }
    }
    assert_eq!(admitted, [""; 0]);

    // Nobody else is held up by it.
    beside.allow_orders().await.unwrap();
    let granted = beside.granted(&beside.asking("granted", ORDERS)).await.unwrap();
    assert_eq!(reviewed(&granted.body), Some("granted"));
    let ready = async || not_ready(&beside, "orders").await;
    eventually(WRITTEN, "the policy beside is ready", async || {
        let why = ready().await?;
        ensure!(why.is_empty(), "{why}");
        Ok(())
    })
    .await
    .unwrap();
    the_status_says_so_until_there_are_fewer(&crowded).await;
}

/// Each policy says in its status that the webhook doesn't keep all of its namespace, what the bound is and what to do; and no longer once
/// one policy less is there.
async fn the_status_says_so_until_there_are_fewer(shop: &Shop<'_>) {
    for policy in ["policy-0", "policy-500", "policy-1000"] {
        eventually(WRITTEN, format!("the status of {policy} says why"), async || {
            let said = not_ready(shop, policy).await?;
            let parts = [
                "NamespaceOverShare: the webhook does not keep all policies of this namespace",
                "1000 in number and 3072 KiB in size",
                "delete policies that are not needed, or make them smaller",
                "it can judge no new pod here",
            ];
            for part in parts {
                ensure!(said.contains(part), "{part:?} is not in {said:?}");
            }
            Ok(())
        })
        .await
        .unwrap();
    }
    delete(&shop.client, &policy_path(shop, "policy-7")).await.unwrap();
    eventually(WRITTEN, "the status says it no longer", async || {
        let why = not_ready(shop, "policy-0").await?;
        ensure!(why.is_empty(), "{why}");
        Ok(())
    })
    .await
    .unwrap();
    // The webhook reads its list anew by itself, and judges again: no policy is about this ServiceAccount.
    let said = shop
        .refused(&shop.asking("judged-again", ORDERS), "no policy")
        .await
        .unwrap();
    assert!(!said.contains("share"), "{said}");
}

/// The reason and the message of a policy that is not ready; empty for one that is.
async fn not_ready(shop: &Shop<'_>, policy: &str) -> Result<String> {
    let object = get_json(&shop.client, &policy_path(shop, policy)).await?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|found| found["type"] == "Ready");
    let Some(ready) = ready else {
        return Ok("no status yet".to_owned());
    };
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    Ok(match &*text("status") {
        "True" => String::new(),
        _ => format!("{}: {}", text("reason"), text("message")),
    })
}

fn policy_path(shop: &Shop<'_>, policy: &str) -> String {
    format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/{policy}",
        shop.namespace
    )
}

/// Writes more policies than the webhook keeps of one namespace, none of which is about the ServiceAccount `orders`.
async fn use_up_the_share(shop: &Shop<'_>) {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies",
        shop.namespace
    );
    let mut spec = orders_may(&[CARTS]);
    spec["subjects"] = json!([{"serviceAccounts": ["nobody"]}]);
    let policy = |number: usize| -> Value {
        json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": format!("policy-{number}")}, "spec": spec,
        })
    };
    stream::iter((0..TOO_MANY_POLICIES).map(|number| Ok::<_, kube::Error>(policy(number))))
        .try_for_each_concurrent(AT_A_TIME, async |policy| {
            post(&shop.client, &path, &policy).await.map(drop)
        })
        .await
        .unwrap();
}
