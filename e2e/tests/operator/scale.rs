//! What many policies and pods cost.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::Client;
use serde_json::json;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::fixtures::ORDERS;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, eventually, get_json, post};

use crate::POLICIES;

const NAMESPACES: usize = 100;
const POLICIES_EACH: usize = 100;
const PODS_EACH: usize = 500;

/// Budget: the first full status in under a minute, and an idle cluster for less than a hundredth of a core.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and all of the machine: run it alone, with programs built for release (TOKENSCOPE_TEST_PROGRAMS)"]
async fn ten_thousand_policies_and_fifty_thousand_pods_have_their_status_within_a_minute() {
    let environment = Environment::start(Options {
        programs: std::env::var_os("TOKENSCOPE_TEST_PROGRAMS").map(Into::into),
        ..Options::default()
    })
    .await
    .unwrap();
    let (control_plane, operator) = (&environment.control_plane, environment.installed.operator(0));
    let client = control_plane.client().await.unwrap();
    operator.kill().unwrap();

    let began = Instant::now();
    create_policies(control_plane, &client).await;
    // The webhook has them by then, so that each pod is granted its default role: pods that were missed are looked at again and again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    create_pods(&client).await;
    println!("everything is created after {:?}", began.elapsed());

    let began = Instant::now();
    operator.restart().unwrap();
    operator.wait_ready(Duration::from_secs(300)).await.unwrap();
    println!("it knows and has judged everything after {:?}", began.elapsed());
    let wanted = NAMESPACES * POLICIES_EACH;
    eventually(Duration::from_secs(300), "every status is written", async || {
        let (_, text) = operator.observe("/metrics").await?;
        let mut lines = text.lines();
        let written =
            lines.find_map(|line| line.strip_prefix("tokenscope_operator_status_writes_total{outcome=\"written\"} "));
        let written: usize = written.unwrap_or("0").parse()?;
        ensure!(written >= wanted, "{written} of {wanted}");
        Ok(())
    })
    .await
    .unwrap();
    let took = began.elapsed();
    println!(
        "the first full status took {took:?}, memory {:?}",
        operator.memory().unwrap()
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = operator.processor_time().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let idle = operator.processor_time().unwrap().saturating_sub(before);
    println!("a minute of quiet took {idle:?}");
    let first = get_json(&client, &format!("{POLICIES}/namespaces/n0/tokenscopepolicies/p0")).await;
    let status = first.unwrap()["status"].clone();
    assert_eq!(status["injectedPods"], PODS_EACH / POLICIES_EACH, "{status}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(idle < Duration::from_millis(600), "{idle:?}");
}

/// Policies of as many namespaces, each for the pods of one label.
async fn create_policies(control_plane: &ControlPlane, client: &Client) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..NAMESPACES {
        let namespace = format!("n{number}");
        control_plane.create_namespace(&namespace, &[]).await.unwrap();
        let client = client.clone();
        tasks.spawn(async move {
            for policy in 0..POLICIES_EACH {
                let object = json!({
                    "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
                    "metadata": {"name": format!("p{policy}"), "namespace": namespace},
                    "spec": {
                        "subjects": [{"podSelector": {"matchLabels": {"app": format!("a{policy}")}}}],
                        "roles": {"allowed": [ORDERS], "default": ORDERS},
                    },
                });
                post(
                    &client,
                    &format!("{POLICIES}/namespaces/{namespace}/tokenscopepolicies"),
                    &object,
                )
                .await?;
            }
            anyhow::Ok(())
        });
    }
    ended(tasks).await;
}

async fn create_pods(client: &Client) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..NAMESPACES {
        let namespace = format!("n{number}");
        let client = client.clone();
        tasks.spawn(async move {
            for pod in 0..PODS_EACH {
                let labels = json!({"app": format!("a{}", pod % POLICIES_EACH), "tier": "x"});
                let object = json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{pod}"), "labels": labels},
                    "spec": {"containers": [
                        {"name": "app", "image": "app", "env": [{"name": "A", "value": "b"}]},
                        {"name": "sidecar", "image": "sidecar"},
                    ]},
                });
                post(&client, &format!("/api/v1/namespaces/{namespace}/pods"), &object).await?;
            }
            anyhow::Ok(())
        });
    }
    ended(tasks).await;
}

async fn ended(mut tasks: tokio::task::JoinSet<anyhow::Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}
