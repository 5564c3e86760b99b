//! What the operator keeps true, on a real API server and with the rights of the chart.
//!
//! - [`status`]: the status of policies, and Events;
//! - [`boundaries`]: the most that policies of a namespace may grant;
//! - [`certificates`]: made, healed and replaced;
//! - [`evictions`]: which running pods go;
//! - [`scale`]: what many policies and pods cost.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod boundaries;
mod certificates;
mod evictions;
mod scale;
mod status;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::accepts;
use tokenscope_e2e::fixtures::{PROPAGATION, Shop, reviewed};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, Shared, eventually, get_json};

const POLICIES: &str = "/apis/tokenscope.io/v1alpha1";
const OPERATOR: &str = "system:serviceaccount:tokenscope-system:tokenscope-operator";

static SHARED: Shared = Shared::new(Options::default);

/// Creates a pod while the webhook is away, in a later second than what was there before: only what is older by the second is older
/// for certain.
async fn unreviewed(environment: &Environment, shop: &Shop<'_>, pod: &Value) -> Result<()> {
    let webhook = environment.installed.webhook(0);
    webhook.kill()?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let created = accepts(&shop.client, pod).await?;
    ensure!(reviewed(&created).is_none(), "it was reviewed: {created}");
    webhook.restart()?;
    webhook.wait_ready(Duration::from_secs(180)).await
}

fn of_replica_set(shop: &Shop<'_>, name: &str) -> Value {
    let mut pod = shop.pod(name);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "uid": "a-replica-set", "controller": true,
    }]);
    pod
}

/// A policy once its status is about what it says now, and `wanted` is true of the status.
async fn when(shop: &Shop<'_>, name: &str, wanted: impl Fn(&Value) -> Result<()>) -> Result<Value> {
    let path = format!("{POLICIES}/namespaces/{}/tokenscopepolicies/{name}", shop.namespace);
    eventually(PROPAGATION, format!("{name} has the right status"), async || {
        let policy = get_json(&shop.client, &path).await?;
        ensure!(
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"],
            "it is not observed"
        );
        wanted(&policy["status"]).with_context(|| policy["status"].to_string())?;
        Ok(policy)
    })
    .await
}

/// Matched, injected, missed and outdated pods.
fn counts(status: &Value, wanted: [i64; 4]) -> Result<()> {
    let found = ["matchedPods", "injectedPods", "missedPods", "outdatedPods"].map(|field| status[field].as_i64());
    ensure!(found == wanted.map(Some), "the counts are {found:?}");
    Ok(())
}

fn ready(status: &Value, is: &str, reason: &str) -> Result<()> {
    let found = condition(status, "Ready");
    ensure!(found["status"] == is && found["reason"] == reason, "Ready is {found}");
    Ok(())
}

fn reasons(status: &Value) -> [&str; 3] {
    ["Accepted", "Active", "Ready"].map(|kind| condition(status, kind)["reason"].as_str().unwrap_or_default())
}

fn message<'a>(status: &'a Value, kind: &str) -> &'a str {
    condition(status, kind)["message"].as_str().unwrap_or_default()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}
