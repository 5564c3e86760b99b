//! Upgrades and the way back with the real programs and charts of earlier releases, while pods are created all the time.
//!
//! Each step is what helm and a rolling update do: objects are applied and removed, new processes start beside the old
//! ones, connections go to both, and the old ones drain. [`together`] lets both versions run for longer, each leading once; [`issuing`] follows
//! pods with the sidecar of either version, and their tokens.
//! `admission::upgrade` looks at single objects and single answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod helm;
mod issuing;
mod kinds;
mod together;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokenscope_e2e::admission::{Answer, create_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ORDERS, Shop, variable};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::rollout::{Judge, Load, Rollout};
use tokenscope_e2e::{eventually, get_json};
use tokenscope_xtask::releases::{Built, MARK_IS_A_LABEL, Release, VERSION_0_1_0};

/// How long both versions serve side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);
/// How long the operator may take to count the pods after it became leader.
const COUNTED: Duration = Duration::from_secs(120);
/// How many pods are created at least while both versions serve.
const MEANWHILE: usize = 60;

/// Says what is wrong unless a pod was admitted, with this role if it is to have one.
fn admitted_with(role: Option<&'static str>) -> Judge {
    Arc::new(move |answer| judge(answer, role))
}

fn judge(answer: &Answer, role: Option<&str>) -> Result<()> {
    ensure!(answer.accepted(), "refused: {} {}", answer.status, answer.message());
    let found = variable(&answer.body, "app", "AWS_ROLE_ARN");
    ensure!(
        found.as_deref() == role,
        "admitted with the role {found:?}: {}",
        answer.body
    );
    Ok(())
}

/// The options of an installation of a release.
fn options_of(release: &Built) -> Options {
    Options {
        charts: Some(release.charts.clone()),
        programs: Some(release.programs.clone()),
        ..Options::default()
    }
}

/// What the API server says of calls of the webhook that failed, the last five: each is a pod without a review.
fn failed_calls(control_plane: &ControlPlane) -> Vec<String> {
    let log = control_plane.apiserver().log();
    let failed = log.lines().rev().filter(|line| line.contains("ailed calling webhook"));
    failed.take(5).map(str::to_owned).collect()
}

/// The status of a policy of a namespace.
async fn status_of(shop: &Shop<'_>, policy: &str) -> Result<Value> {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/{policy}",
        shop.namespace
    );
    Ok(get_json(&shop.client, &path).await?["status"].take())
}

/// Waits until the operator has counted every pod that was granted a role until now, and none as missed or outdated.
async fn every_pod_is_as_it_should_be(shop: &Shop<'_>, load: &Load) {
    let least = load.granted() as u64;
    eventually(COUNTED, "the operator counts every pod as injected", async || {
        let status = status_of(shop, "orders").await?;
        let count = |name: &str| status[name].as_u64().unwrap_or_default();
        ensure!(
            count("injectedPods") >= least && count("missedPods") == 0 && count("outdatedPods") == 0,
            "of {least}: {status}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// Both versions serve side by side, and pods are created meanwhile, on a machine however busy.
async fn both_serve(load: &Load) {
    tokio::time::sleep(SIDE_BY_SIDE).await;
    load.goes_on(MEANWHILE).await.unwrap();
}

/// From a release to the present state and back, under load.
async fn to_the_present_and_back(release: Release) {
    let Some(built) = release.build().unwrap() else { return };
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let mut rollout = Rollout::start(&control_plane, options_of(&built)).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    let strict = Shop::open(&control_plane, "strict", &[("tokenscope.io/required", "true")]).await;
    shop.allow_orders().await.unwrap();
    eventually(COUNTED, "a pod is granted its role", async || {
        judge(
            &create_pod(&shop.client, &shop.asking("first", ORDERS)).await?,
            Some(ORDERS),
        )
    })
    .await
    .unwrap();
    let pods = vec![
        (shop.asking("x", ORDERS), admitted_with(Some(ORDERS))),
        (shop.pod("x"), admitted_with(None)),
        (strict.unwrap().pod("x"), admitted_with(None)),
    ];
    let load = Load::begin(&shop.client, pods, Duration::from_millis(20));

    let leaving = rollout
        .begin(&control_plane, "next-", Options::default())
        .await
        .unwrap();
    both_serve(&load).await;
    rollout.end(&control_plane, leaving).await.unwrap();
    every_pod_is_as_it_should_be(&shop, &load).await;
    assert_eq!(
        load.wrong(),
        [""; 0],
        "after the upgrade from {}: {:#?}",
        release.name,
        failed_calls(&control_plane)
    );

    let leaving = rollout
        .begin(&control_plane, "back-", options_of(&built))
        .await
        .unwrap();
    both_serve(&load).await;
    rollout.end(&control_plane, leaving).await.unwrap();
    // The old chart's entries have other names and so no caBundle until the operator has written it, as at their first
    // installation: pods that need a review are refused for that moment. None is admitted without one.
    let mut wrong = load.end().await;
    if release == VERSION_0_1_0 {
        wrong.retain(|problem| !problem.starts_with("refused: "));
    }
    assert_eq!(
        wrong,
        [""; 0],
        "on the way back to {}: {:#?}",
        release.name,
        failed_calls(&control_plane)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_version_0_1_0_refuses_nothing_and_no_pod_gets_past_on_the_way_back() {
    to_the_present_and_back(VERSION_0_1_0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_a_state_with_the_same_mark_and_back_refuses_and_loses_nothing() {
    to_the_present_and_back(MARK_IS_A_LABEL).await;
}
