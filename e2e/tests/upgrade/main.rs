//! Upgrades and the way back with the real programs and charts of earlier releases, while pods are created all the time.
//!
//! Each step is what helm and a rolling update do: objects are applied and removed, new processes start beside the old
//! ones, connections go to both, and the old ones drain. `admission::upgrade` looks at single objects and single answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod helm;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ORDERS, Shop, variable};
use tokenscope_e2e::forward::Forward;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::{Installed, Options, install};
use tokenscope_e2e::process::free_port;
use tokenscope_e2e::{eventually, get_json};
use tokenscope_xtask::releases::{Built, MARK_IS_A_LABEL, Release, VERSION_0_1_0};

/// How long both versions serve side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);
/// How long a process may take to answer its last reviews and end.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the operator may take to count the pods after it became leader.
const COUNTED: Duration = Duration::from_secs(60);

/// Creates pods until it is told to end, and keeps what went wrong.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    granted: AtomicUsize,
    created: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    async fn run(&self, client: &Client, pod: &Value, asks: bool) {
        while !self.over.load(Ordering::Relaxed) {
            match create_pod(client, pod).await.and_then(|answer| judge(&answer, asks)) {
                Ok(()) => {
                    self.created.fetch_add(1, Ordering::Relaxed);
                    self.granted.fetch_add(usize::from(asks), Ordering::Relaxed);
                }
                Err(error) => self.wrong.lock().unwrap().push(format!("{error:#}")),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What went wrong so far.
    fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

/// Whether a pod was admitted, with its role if it asked for one.
fn judge(answer: &Answer, asks: bool) -> Result<()> {
    ensure!(answer.accepted(), "refused: {} {}", answer.status, answer.message());
    let role = variable(&answer.body, "app", "AWS_ROLE_ARN");
    ensure!(
        role.is_some() == asks,
        "admitted with the role {role:?}: {}",
        answer.body
    );
    Ok(())
}

/// A cluster, the address that stands for the webhook's Service, and what is installed.
struct Cluster {
    control_plane: ControlPlane,
    service: Forward,
    installed: Installed,
}

/// The options of an installation over another one.
fn over(prefix: &'static str, service: &Forward) -> Options {
    Options {
        service: Some(service.clone()),
        upgrade: true,
        prefix,
        ..Options::default()
    }
}

impl Cluster {
    /// Installs a release into a new cluster.
    async fn start(release: &Built) -> Self {
        let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
        let service = Forward::listen(free_port().unwrap()).unwrap();
        let options = Options {
            charts: Some(release.charts.clone()),
            programs: Some(release.programs.clone()),
            upgrade: false,
            ..over("first-", &service)
        };
        Self {
            installed: install(&control_plane, options).await.unwrap(),
            control_plane,
            service,
        }
    }

    /// Replaces what is installed, as helm and the Deployments do.
    async fn replace(&mut self, options: Options) {
        let next = install(&self.control_plane, options).await.unwrap();
        let old = std::mem::replace(&mut self.installed, next);
        self.remove(&old);
        tokio::time::sleep(SIDE_BY_SIDE).await;
        self.service.remove(old.webhook_port(0));
        for process in old.processes() {
            process.terminate(DRAIN).await.unwrap();
        }
        self.installed.wait_ready(&self.control_plane).await.unwrap();
    }

    /// Removes the objects that the release before had and this one has not.
    fn remove(&self, old: &Installed) {
        let key = |object: &Value| (object["kind"].clone(), object["metadata"]["name"].clone());
        let kept: Vec<_> = self.installed.objects().iter().map(key).collect();
        for object in old.objects().iter().filter(|object| !kept.contains(&key(object))) {
            let arguments = [
                "delete",
                "--ignore-not-found",
                "--namespace",
                NAMESPACE,
                "--filename",
                "-",
            ];
            self.control_plane.kubectl(&arguments, &object.to_string()).unwrap();
        }
    }

    /// What the API server says of calls of the webhook that failed, the last five: each is a pod without a review.
    fn failed_calls(&self) -> Vec<String> {
        let log = self.control_plane.apiserver().log();
        let failed = log.lines().rev().filter(|line| line.contains("ailed calling webhook"));
        failed.take(5).map(str::to_owned).collect()
    }

    /// Waits until the operator has counted every pod that was granted a role, and none as missed or outdated.
    async fn every_pod_is_as_it_should_be(&self, shop: &Shop<'_>, load: &Load) {
        let path = format!(
            "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/orders",
            shop.namespace
        );
        eventually(COUNTED, "the operator counts every pod as injected", async || {
            let policy = get_json(&shop.client, &path).await?;
            let count = |name: &str| policy["status"][name].as_u64().unwrap_or_default();
            let least = load.granted.load(Ordering::Relaxed) as u64;
            ensure!(
                count("injectedPods") + 5 >= least && count("missedPods") == 0 && count("outdatedPods") == 0,
                "of {least}: {}",
                policy["status"]
            );
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// From a release to the present state and back, under load.
async fn to_the_present_and_back(release: Release) {
    let Some(built) = release.build().unwrap() else { return };
    let mut cluster = Cluster::start(&built).await;
    let (load, tasks);
    {
        let shop = Shop::open(&cluster.control_plane, "shop", &[]).await.unwrap();
        let strict = Shop::open(&cluster.control_plane, "strict", &[("tokenscope.io/required", "true")]).await;
        shop.allow_orders().await.unwrap();
        eventually(COUNTED, "a pod is granted its role", async || {
            judge(&create_pod(&shop.client, &shop.asking("first", ORDERS)).await?, true)
        })
        .await
        .unwrap();
        (load, tasks) = begin(&shop, &strict.unwrap());
    }
    let next = over("next-", &cluster.service);
    cluster.replace(next).await;
    let shop = Shop {
        client: cluster.control_plane.client().await.unwrap(),
        namespace: "shop".to_owned(),
        control_plane: &cluster.control_plane,
    };
    cluster.every_pod_is_as_it_should_be(&shop, &load).await;
    assert_eq!(
        load.wrong(),
        [""; 0],
        "after the upgrade from {}: {:#?}",
        release.name,
        cluster.failed_calls()
    );

    let back = Options {
        charts: Some(built.charts),
        programs: Some(built.programs),
        ..over("back-", &cluster.service)
    };
    cluster.replace(back).await;
    load.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    // The old chart's entries have other names and so no caBundle until the operator has written it, as at their first
    // installation: pods that need a review are refused for that moment. None is admitted without one.
    let mut wrong = load.wrong();
    if release == VERSION_0_1_0 {
        wrong.retain(|problem| !problem.starts_with("refused: "));
    }
    assert_eq!(
        wrong,
        [""; 0],
        "on the way back to {}: {:#?}",
        release.name,
        cluster.failed_calls()
    );
    let created = load.created.load(Ordering::Relaxed);
    assert!(created > 100, "only {created} pods were created");
}

/// Starts to create pods that ask, pods that ask nothing, and pods that must be reviewed.
fn begin(shop: &Shop<'_>, strict: &Shop<'_>) -> (Arc<Load>, Vec<tokio::task::JoinHandle<()>>) {
    let load = Arc::new(Load::default());
    let pods = [
        (shop.asking("x", ORDERS), true),
        (shop.pod("x"), false),
        (strict.pod("x"), false),
    ];
    let mut tasks = Vec::new();
    for (mut pod, asks) in pods {
        pod["metadata"]["name"].take();
        pod["metadata"]["generateName"] = json!("pod-");
        let (load, client) = (Arc::clone(&load), shop.client.clone());
        tasks.push(tokio::spawn(async move { load.run(&client, &pod, asks).await }));
    }
    (load, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_version_0_1_0_refuses_nothing_and_no_pod_gets_past_on_the_way_back() {
    to_the_present_and_back(VERSION_0_1_0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_a_state_with_the_same_mark_and_back_refuses_and_loses_nothing() {
    to_the_present_and_back(MARK_IS_A_LABEL).await;
}
