//! Both versions at once, for as long as it takes: webhooks of both answer, and the operator of each leads once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{Shop, annotation};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::rollout::{Load, Rollout};
use tokenscope_e2e::{eventually, get_json};
use tokenscope_xtask::releases::LAST_PUBLISHED;
use tokio::task::JoinHandle;

use crate::kinds::{self, POLICIES, kinds};
use crate::{COUNTED, SIDE_BY_SIDE, failed_calls, options_of, status_of};

/// The pause after each pod of a kind that is created.
const PAUSE: Duration = Duration::from_millis(60);
/// How long each version answers before it is the other's turn.
const TURN: Duration = Duration::from_millis(300);
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
/// How long an operator may take to end.
const END: Duration = Duration::from_secs(120);
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

/// Sends reviews to one webhook and to the other in turn. A connection of the API server's stays with whom it has, so with a Service alone the
/// old ones would answer nearly all.
struct Turns {
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Turns {
    fn begin(shop: &Shop<'_>, ports: [u16; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (client, is_over) = (shop.client.clone(), Arc::clone(&over));
        let task = tokio::spawn(async move {
            for port in ports.into_iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                call(&client, port).await.unwrap();
                tokio::time::sleep(TURN).await;
            }
        });
        Self { over, task }
    }

    /// Ends, and leaves reviews to whoever is behind this port.
    async fn end(self, shop: &Shop<'_>, port: u16) {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        call(&shop.client, port).await.unwrap();
    }
}

/// Has the API server call the webhooks on this port.
async fn call(client: &Client, port: u16) -> Result<()> {
    let configuration = get_json(client, CONFIGURATION).await?;
    let entries = configuration["webhooks"].as_array().context("webhooks is a list")?;
    let changes = entries.iter().enumerate().map(|(index, entry)| {
        let url = entry["clientConfig"]["url"].as_str().unwrap_or_default();
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let url = format!("https://127.0.0.1:{port}/{path}");
        json!({"op": "replace", "path": format!("/webhooks/{index}/clientConfig/url"), "value": url})
    });
    let changes = changes.collect::<Value>().to_string();
    let request = http::Request::patch(CONFIGURATION).header("content-type", "application/json-patch+json");
    client.request::<Value>(request.body(changes.into_bytes())?).await?;
    Ok(())
}

/// How many reviews a webhook has answered.
async fn reviews(webhook: &ServerProcess) -> u64 {
    let (_, metrics) = webhook.observe("/metrics").await.unwrap();
    let lines = metrics
        .lines()
        .filter(|line| line.contains("_reviews") && line.contains("outcome="));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Ends the operator that leads, so that the other one does.
async fn hands_over(operator: &ServerProcess) {
    operator.terminate(END).await.unwrap();
}

/// Creates a pod of each kind, as soon as the policies are known; the versions of those in `shop`, by name.
async fn first_versions(shop: &Shop<'_>, strict: &Shop<'_>) -> BTreeMap<String, Value> {
    let mut first = BTreeMap::new();
    for (pod, judge) in kinds(shop, strict) {
        // What a policy assigns is not missed by a pod that is only tried.
        eventually(COUNTED, "a pod is reviewed by the policies", async || {
            judge(&try_pod(&shop.client, &pod).await?)
        })
        .await
        .unwrap();
        judge(&create_pod(&shop.client, &pod).await.unwrap()).unwrap();
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
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_at_once_refuse_nothing_and_no_operator_finds_fault_with_the_others_pods() {
    let Some(built) = LAST_PUBLISHED.build().unwrap() else {
        return;
    };
    let values = kinds::values();
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let old = Options {
        values: values.clone(),
        knows_issuer: true,
        ..options_of(&built)
    };
    let mut rollout = Rollout::start(&control_plane, old.clone()).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    let strict = Shop::open(&control_plane, "strict", &[("tokenscope.io/required", "true")])
        .await
        .unwrap();
    kinds::prepare(&shop).await.unwrap();
    let first = first_versions(&shop, &strict).await;
    let load = Load::begin(&shop.client, kinds(&shop, &strict), PAUSE);
    nothing_is_lost(&shop, &first, &load, "before the upgrade").await;

    // New webhooks beside old ones, and the old operator leads: it counts what both have granted.
    let next = Options {
        values,
        knows_issuer: true,
        ..Options::default()
    };
    let leaving = rollout.begin(&control_plane, "next-", next).await.unwrap();
    let (old_webhook, new_webhook) = (leaving.installed().webhook(0), rollout.installed().webhook(0));
    let before = (reviews(old_webhook).await, reviews(new_webhook).await);
    let ports = [leaving.installed().webhook_port(0), rollout.installed().webhook_port(0)];
    let turns = Turns::begin(&shop, ports);
    tokio::time::sleep(SIDE_BY_SIDE).await;
    nothing_is_lost(&shop, &first, &load, "while the old operator leads").await;
    // The new one leads, and old webhooks still answer.
    hands_over(leaving.installed().operator(0)).await;
    nothing_is_lost(&shop, &first, &load, "while the new operator leads").await;
    // And the old one once more, as where a new pod can't be scheduled.
    leaving.installed().operator(0).restart().unwrap();
    hands_over(rollout.installed().operator(0)).await;
    nothing_is_lost(&shop, &first, &load, "while the old operator leads again").await;
    eventually(COUNTED, "webhooks of both versions have answered reviews", async || {
        let after = (reviews(old_webhook).await, reviews(new_webhook).await);
        ensure!(
            after.0 > before.0 + 50 && after.1 > before.1 + 50,
            "{before:?} {after:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
    turns.end(&shop, rollout.installed().port()).await;
    rollout.installed().operator(0).restart().unwrap();
    rollout.end(&control_plane, leaving).await.unwrap();
    nothing_is_lost(&shop, &first, &load, "after the upgrade").await;

    rollout
        .replace(&control_plane, "back-", old, SIDE_BY_SIDE)
        .await
        .unwrap();
    nothing_is_lost(&shop, &first, &load, "after the way back").await;
    load.goes_on(20).await.unwrap();
    assert_eq!(load.end().await, [""; 0], "{:#?}", failed_calls(&control_plane));
}
