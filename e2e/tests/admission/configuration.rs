//! Somebody changes or deletes the webhook configuration, and pods bring marks: what needs a review and got none is never admitted.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, try_pod};
use tokenscope_e2e::fixtures::{ORDERS, Shop};
use tokenscope_e2e::{delete, eventually, get_json, put};

use crate::failures::{DRIVER, marks, needing_a_review};
use crate::stand_in::Way;
use crate::{Door, MARK, SOON, chart_for, with_label};

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// What refuses a pod that asks and brings a mark, while the configuration's authority is wiped, and while the entry for forged
/// marks is not in force.
struct Refusals {
    by_the_entry: &'static str,
    without_the_entry: &'static str,
    /// What the webhook answers to reviews meanwhile.
    reviews: Way,
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_configuration_or_its_authority_no_pod_is_admitted_by_a_forged_mark() {
    let values = json!({"lock": {"mode": "deny", "csiDrivers": [DRIVER]}});
    let refusals = Refusals {
        by_the_entry: "'tokenscope-guard'",
        without_the_entry: "'tokenscope-guard'",
        // A mark that was taken away leaves an honest pod, which a working webhook would review.
        reviews: Way::Status(500),
    };
    let door = Door::open(&values).await;
    let objects = chart_for(&door.control_plane, &values);
    nothing_gets_past_a_changed_configuration(door, objects, refusals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_before_mutating_policies() {
    let values = json!({"lock": {"mode": "deny", "csiDrivers": [DRIVER]}});
    let refusals = Refusals {
        by_the_entry: "forged-marks.tokenscope.io",
        without_the_entry: "'tokenscope-guard-marks'",
        reviews: Way::Works,
    };
    let door = Door::open_before_mutating_policies(&values).await;
    let objects = chart_for(&door.control_plane, &values);
    nothing_gets_past_a_changed_configuration(door, objects, refusals).await;
}

async fn nothing_gets_past_a_changed_configuration(door: Door, objects: Vec<Value>, refusals: Refusals) {
    let shop = door.shop("shop", &[]).await;
    let strict = door.shop("strict", &[("tokenscope.io/required", "true")]).await;
    let healthy = get_json(&door.client, CONFIGURATION).await.unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut configuration = healthy.clone();
        configuration["webhooks"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(change);
        configuration
    };
    let wiped = changed(&|entry| entry["clientConfig"]["caBundle"] = Value::Null);
    let ignoring = changed(&|entry| entry["failurePolicy"] = json!("Ignore"));
    let without_entry = {
        let mut configuration = healthy.clone();
        configuration["webhooks"]
            .as_array_mut()
            .unwrap()
            .retain(|entry| entry["name"] != "forged-marks.tokenscope.io");
        configuration
    };
    for (what, configuration, says) in [
        ("its authority is wiped", Some(wiped), refusals.by_the_entry),
        ("failures are ignored", Some(ignoring), refusals.without_the_entry),
        ("the entry is gone", Some(without_entry), refusals.without_the_entry),
        ("it is deleted", None, refusals.without_the_entry),
    ] {
        change_configuration(&door, configuration).await;
        door.stand_in.answers(refusals.reviews, Way::Works);
        let forged = with_label(shop.asking("forged", ORDERS), MARK, "granted");
        eventually(SOON, format!("{what}, and a forged mark is refused"), async || {
            let message = try_pod(&door.client, &forged).await?.message().to_owned();
            ensure!(message.contains(says), "{message}");
            Ok(())
        })
        .await
        .unwrap();
        // Each entry of a configuration is known at the same moment, but an informer of policies may be a moment behind.
        tokio::time::sleep(Duration::from_secs(1)).await;
        no_marked_pod_is_admitted(&door, &shop, &strict, what).await;
        // The stand-in marks every pod; ours leaves alone what nothing concerns.
        door.stand_in.answers(Way::Allows, Way::Works);
        accepts(&door.client, &shop.pod(&format!("plain-{}", what.replace(' ', "-"))))
            .await
            .unwrap();
        door.stand_in.answers(Way::Works, Way::Works);
    }
    let unmarked = try_pod(&door.client, &shop.asking("asking", ORDERS)).await.unwrap();
    assert!(unmarked.message().contains("'tokenscope-guard'"), "{}", unmarked.body);

    door.apply(objects).await.unwrap();
    eventually(SOON, "an honest pod is admitted again", async || {
        accepts(&door.client, &shop.asking("honest", ORDERS)).await
    })
    .await
    .unwrap();
}

/// What remains possible: before Kubernetes 1.36 a mark is as true as the registration of the webhook. Whoever may edit that is
/// to be trusted as the webhook is, unless `protectConfiguration.enabled` refuses that.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_edits_the_entries_selectors_or_address_gets_a_forged_mark_past_only_before_mutating_policies() {
    let values = json!({"lock": {"mode": "deny"}});
    for older in [true, false] {
        let door = if older {
            Door::open_before_mutating_policies(&values).await
        } else {
            Door::open(&values).await
        };
        let shop = door.shop("shop", &[]).await;
        let healthy = get_json(&door.client, CONFIGURATION).await.unwrap();
        let nobody = json!({"matchLabels": {"kubernetes.io/metadata.name": "nobody"}});
        let selectors: &dyn Fn(&mut Value) = &|entry| entry["namespaceSelector"] = nobody.clone();
        // Another server, which allows everything.
        let taken_over: &dyn Fn(&mut Value) = &|_| door.stand_in.answers(Way::Allows, Way::Allows);
        for (what, change) in [("selectors", selectors), ("address", taken_over)] {
            let mut configuration = healthy.clone();
            let entries = configuration["webhooks"].as_array_mut().unwrap();
            entries.iter_mut().for_each(change);
            change_configuration(&door, Some(configuration)).await;
            let forged = with_label(shop.asking("forged", ORDERS), MARK, "granted");
            eventually(SOON, format!("{what}, older: {older}"), async || {
                let answer = try_pod(&door.client, &forged).await?;
                ensure!(answer.accepted() == older, "{}", answer.body);
                Ok(())
            })
            .await
            .unwrap();
            door.stand_in.answers(Way::Works, Way::Works);
            change_configuration(&door, Some(healthy.clone())).await;
        }
    }
}

/// Puts the configuration in the place of the present one, or deletes that.
async fn change_configuration(door: &Door, configuration: Option<Value>) {
    match configuration {
        Some(mut changed) => {
            let now = get_json(&door.client, CONFIGURATION).await.unwrap();
            changed["metadata"] = now["metadata"].clone();
            put(&door.client, CONFIGURATION, &changed).await.unwrap();
        }
        None => {
            delete(&door.client, CONFIGURATION).await.unwrap();
        }
    }
}

/// Without a mark, a pod is reviewed by an entry that is still there and works.
async fn no_marked_pod_is_admitted(door: &Door, shop: &Shop<'_>, strict: &Shop<'_>, what: &str) {
    for (kind, pod) in needing_a_review(shop, strict) {
        for (mark, pod) in marks(&kind, &pod)
            .into_iter()
            .filter(|(mark, _)| mark.contains("label"))
        {
            let answer = try_pod(&door.client, &pod).await.unwrap();
            assert!(!answer.accepted(), "{what}: {mark}: {}", answer.body["metadata"]);
        }
    }
}
