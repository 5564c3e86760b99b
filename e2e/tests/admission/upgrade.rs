//! An upgrade from version 0.1.0, whose webhook marked pods by an annotation, while pods are created all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create_pod, try_pod};
use tokenscope_e2e::apply::documents;
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, Shop, annotation, with_annotations};
use tokenscope_e2e::helm::{NAMESPACE, patient, template_with};

use crate::stand_in::{StandIn, Way};
use crate::{Door, MARK, SOON};

const BEFORE: &str = include_str!("version_0_1_0.yaml");

/// How long each step of an upgrade is looked at.
const STEP: Duration = Duration::from_millis(400);

/// What helm makes of the chart with this cluster in view, in the order in which it applies it.
fn rendered(control_plane: &ControlPlane) -> Result<Vec<Value>> {
    let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());
    let flags = ["--is-upgrade", "--dry-run=server", &kubeconfig];
    let mut objects = template_with("tokenscope", &flags, &patient(&Value::Null))?;
    objects.retain(|object| object["kind"] != "Deployment");
    Ok(objects)
}

/// What the release before installs, with as much time for reviews as [`patient`] values give.
fn before() -> Vec<Value> {
    let mut objects = documents(BEFORE).unwrap();
    let webhooks = objects
        .iter_mut()
        .filter_map(|object| object.get_mut("webhooks")?.as_array_mut());
    for webhook in webhooks.flatten() {
        webhook["timeoutSeconds"] = patient(&Value::Null)["webhook"]["timeoutSeconds"].clone();
    }
    objects
}

fn entries(objects: &[Value]) -> Vec<String> {
    let configuration = objects
        .iter()
        .find(|object| object["kind"] == "MutatingWebhookConfiguration");
    let webhooks = configuration.and_then(|configuration| configuration["webhooks"].as_array());
    webhooks
        .into_iter()
        .flatten()
        .map(|webhook| webhook["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Says what is wrong with an answer.
type Judge = fn(&Answer) -> Result<()>;

/// What became of the pods that were created meanwhile.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    created: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    async fn run(&self, client: &Client, pod: &Value, judge: Judge) {
        while !self.over.load(Ordering::Relaxed) {
            let answer = create_pod(client, pod).await;
            let judged = answer.and_then(|answer| judge(&answer));
            self.created.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = judged {
                self.wrong.lock().unwrap().push(format!("{error:#}"));
            }
        }
    }
}

fn admitted(answer: &Answer) -> Result<()> {
    ensure!(answer.accepted(), "{} {}", answer.status, answer.message());
    Ok(())
}

/// The mark of the webhook, whatever the pod brought. Version 0.1.0 gave the label no meaning and left it alone.
fn reviewed_or_refused(answer: &Answer) -> Result<()> {
    let own = annotation(&answer.body, MARK) != Some("granted");
    ensure!(
        !answer.accepted() || !own,
        "a forged mark was admitted: {}",
        answer.body["metadata"]["annotations"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_way_back_refuse_no_honest_pod_and_admit_no_forged_mark() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
    let client = control_plane.client().await.unwrap();
    let door = Door {
        stand_in: StandIn::start().await.unwrap(),
        control_plane,
        client,
    };
    let (old, new) = ((Way::WorksAsBefore, Way::Status(404)), (Way::Works, Way::Works));
    door.stand_in.answers(old.0, old.1);
    door.apply(before()).await.unwrap();
    let shop = door.shop("shop", &[]).await;
    let strict = door.shop("strict", &[("tokenscope.io/required", "true")]).await;
    eventually(SOON, "the release before reviews pods", async || {
        for pod in [shop.asking("is-it-reviewed", ORDERS), strict.pod("is-it-reviewed")] {
            let answer = try_pod(&door.client, &pod).await?;
            ensure!(annotation(&answer.body, MARK).is_some(), "{}", answer.body);
        }
        Ok(())
    })
    .await
    .unwrap();

    let load = Arc::new(Load::default());
    let mut tasks = Vec::new();
    for (pod, judge) in pods(&shop, &strict) {
        let (load, client) = (Arc::clone(&load), door.client.clone());
        tasks.push(tokio::spawn(async move { load.run(&client, &pod, judge).await }));
    }

    upgrade_and_go_back(&door, old, new).await;

    eventually(SOON, "pods have been created all the while", async || {
        let created = load.created.load(Ordering::Relaxed);
        ensure!(created > 200, "only {created} pods");
        Ok(())
    })
    .await
    .unwrap();
    load.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let mut wrong = load.wrong.lock().unwrap().clone();
    wrong.dedup();
    wrong.truncate(5);
    assert_eq!(wrong, [""; 0]);
}

/// An upgrade, a second one that ends the transition, and the way back, with both versions of the webhook behind the Service
/// meanwhile.
async fn upgrade_and_go_back(door: &Door, old: (Way, Way), new: (Way, Way)) {
    // New pods of the webhook come while old ones still answer.
    let objects = rendered(&door.control_plane).unwrap();
    assert_eq!(
        entries(&objects),
        [
            "forged-annotations.tokenscope.io",
            "forged-marks.tokenscope.io",
            "pods.tokenscope.io"
        ]
    );
    for object in objects {
        door.apply(vec![object]).await.unwrap();
        for way in [old, new, old, new] {
            door.stand_in.answers(way.0, way.1);
            tokio::time::sleep(STEP / 40).await;
        }
    }
    for _ in 0..20 {
        for way in [old, new] {
            door.stand_in.answers(way.0, way.1);
            tokio::time::sleep(STEP / 10).await;
        }
    }
    // The old ones are gone, and the next upgrade ends the transition.
    door.stand_in.answers(new.0, new.1);
    tokio::time::sleep(STEP).await;
    let objects = rendered(&door.control_plane).unwrap();
    assert_eq!(entries(&objects), ["forged-marks.tokenscope.io", "pods.tokenscope.io"]);
    for object in objects.into_iter().filter(|object| {
        object["kind"]
            .as_str()
            .is_some_and(|kind| kind.contains("Webhook") || kind.contains("Policy"))
    }) {
        door.apply(vec![object]).await.unwrap();
    }
    tokio::time::sleep(STEP * 4).await;
    // And back, as by `helm rollback`: for one release the webhook writes both marks.
    door.apply(before()).await.unwrap();
    tokio::time::sleep(STEP * 4).await;
}

/// What is created all the time, and what must be true of it.
fn pods(shop: &Shop<'_>, strict: &Shop<'_>) -> Vec<(Value, Judge)> {
    let generated = |mut pod: Value| {
        pod["metadata"]["name"].take();
        pod["metadata"]["generateName"] = json!("pod-");
        pod
    };
    let forged = with_annotations(shop.asking("x", ORDERS), &[(MARK, "forged")]);
    let forged_label = crate::with_label(forged.clone(), MARK, "forged");
    vec![
        (generated(shop.asking("x", ORDERS)), admitted),
        (generated(shop.pod("x")), admitted),
        (generated(strict.pod("x")), admitted),
        (generated(forged), reviewed_or_refused),
        (generated(forged_label), reviewed_or_refused),
    ]
}

#[tokio::test]
async fn while_annotations_count_as_marks_one_that_a_pod_brings_does_not() {
    let door = Door::open(&json!({"guard": {"acceptAnnotationMark": true}, "lock": {"mode": "deny"}})).await;
    let shop = door.shop("shop", &[]).await;
    let strict = door.shop("strict", &[("tokenscope.io/required", "true")]).await;
    let bring = |pod: Value| with_annotations(pod, &[(MARK, "granted")]);
    for strip in [Way::Works, Way::Status(404), Way::HangsUp] {
        door.stand_in.answers(Way::Status(500), strip);
        for pod in [
            bring(shop.asking("asks", ORDERS)),
            bring(strict.pod("required")),
            bring(crate::with_token(shop.pod("locked"), "sts.amazonaws.com")),
        ] {
            let answer = create_pod(&door.client, &pod).await.unwrap();
            assert!(!answer.accepted(), "{strip:?}: {}", answer.body);
        }
    }
    door.stand_in.answers(Way::WorksAsBefore, Way::Works);
    for pod in [shop.asking("asks", ORDERS), strict.pod("required")] {
        let answer = create_pod(&door.client, &pod).await.unwrap();
        assert!(answer.accepted(), "marked by the release before: {}", answer.message());
        annotation(&answer.body, MARK).context("it has the mark").unwrap();
    }
}
