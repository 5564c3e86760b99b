//! docs/migrating-from-eks.md, walked with its own commands and its own policy in a cluster with the EKS webhook's pods.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

mod document;
mod pod_identity;
mod pods;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::fixtures::{PROPAGATION, Shop, sts, who_is};
use tokenscope_e2e::rollout::{Judge, Load};
use tokenscope_e2e::second_webhook::SecondWebhook;
use tokenscope_e2e::{eventually, get_json};

use crate::document::{Block, blocks, has_jq, needs_jq, sections};
use crate::pods::ORDERS;
use crate::walk::Walk;

/// The pause behind each pod of a kind that is created meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// From the first step to the last, with the other webhook's configuration removed in the second, or left in place as on EKS.
async fn walk(keeps_theirs: bool) {
    let sections = sections();
    assert_eq!(sections.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let mut walk = Walk::begin().await;
    walk.nothing_changes(0).await;
    let admitted: Judge = Arc::new(|answer| {
        ensure!(answer.accepted(), "refused: {} {}", answer.status, answer.message());
        Ok(())
    });
    let pods = walk.kinds.iter().map(|pod| (pod.clone(), Arc::clone(&admitted)));
    walk.load = Some(Load::begin(&walk.client, pods.collect(), PAUSE));

    for (step, section) in &sections {
        for block in blocks(section) {
            match block {
                Block::Command(command) => {
                    let is_removal = command.starts_with("kubectl delete");
                    if is_removal && keeps_theirs {
                        continue;
                    }
                    walk.run(&command).await;
                    if is_removal {
                        let theirs = walk.theirs.take().unwrap();
                        assert!(theirs.calls() > 0);
                        gone(&walk, &theirs).await;
                    }
                }
                Block::Yaml(policy) => {
                    let of_carts = policy.replace("orders", "carts");
                    walk.control_plane.apply_yaml(&policy).await.unwrap();
                    walk.control_plane.apply_yaml(&of_carts).await.unwrap();
                    decided_by_policy(&walk).await;
                }
            }
        }
        walk.nothing_changes(*step).await;
        if *step >= 3 {
            walk.nothing_is_missed(*step, !keeps_theirs).await;
        }
    }
    the_sdk_finds_its_credentials(&walk).await;
    let wrong = walk.load.take().unwrap().end().await;
    assert_eq!(wrong, [""; 0]);
    assert_eq!(walk.control_plane.forbidden().unwrap(), [""; 0]);
}

/// The API server calls the removed webhook no more, which it would for this pod.
async fn gone(walk: &Walk, theirs: &SecondWebhook) {
    let mut pod = walk.kinds[0].clone();
    pod["metadata"]["name"] = json!("is-the-other-webhook-gone");
    eventually(PROPAGATION, "the other webhook is called no more", async || {
        let before = theirs.calls();
        try_pod(&walk.client, &pod).await?;
        ensure!(theirs.calls() == before, "it was called again");
        Ok(())
    })
    .await
    .unwrap();
}

/// The operator has accepted both policies.
async fn decided_by_policy(walk: &Walk) {
    let path = "/apis/tokenscope.io/v1alpha1/namespaces/shop/tokenscopepolicies";
    eventually(PROPAGATION, "the operator accepts the policies", async || {
        let policies = get_json(&walk.client, path).await?;
        let policies = policies["items"].as_array().cloned().unwrap_or_default();
        for policy in &policies {
            let conditions = policy["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let accepted = conditions
                .iter()
                .any(|it| it["type"] == "Accepted" && it["status"] == "True");
            ensure!(accepted, "{}", policy["status"]);
        }
        ensure!(policies.len() == 2, "{} policies", policies.len());
        Ok(())
    })
    .await
    .unwrap();
}

/// The unmodified SDK in a pod of the first step and one of the last is who the policy says, by the trust policy of the policy's status.
async fn the_sdk_finds_its_credentials(walk: &Walk) {
    let shop = Shop {
        control_plane: &walk.control_plane,
        client: walk.client.clone(),
        namespace: "shop".to_owned(),
    };
    let trust = shop.trust_policy("orders-from-eks", ORDERS).await.unwrap();
    let sts = sts(&walk.control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    for step in ["orders-0-", "orders-6-"] {
        let pod = walk.created.keys().find(|name| name.starts_with(step)).unwrap();
        let arn = who_is(&walk.control_plane, &sts, "shop", pod, "app").await.unwrap();
        assert!(
            arn.starts_with("arn:aws:sts::111122223333:assumed-role/orders/"),
            "{arn}"
        );
    }
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_the_document_change_no_pod_and_refuse_none() {
    walk(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_where_the_other_webhook_stays() {
    walk(true).await;
}

/// What the document's commands find in a cluster: the pods that tokenscope treats in another way on purpose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_second_step_list_what_is_to_be_looked_at() {
    if !has_jq() {
        return;
    }
    let mut walk = Walk::begin().await;
    let theirs = walk.theirs.take().unwrap();
    theirs.remove(&walk.control_plane).await.unwrap();
    let token =
        json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "mine"}});
    let mount = |name: &str, path: &str| json!([{"name": "app", "image": "app", "volumeMounts": [{"name": name, "mountPath": path}]}]);
    let folder = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
    for (name, volume, containers) in [
        (
            "other-file",
            json!({"name": "aws-iam-token", "projected": {"sources": [token]}}),
            mount("aws-iam-token", folder),
        ),
        (
            "other-kind",
            json!({"name": "aws-iam-token", "emptyDir": {}}),
            mount("aws-iam-token", folder),
        ),
        (
            "other-name",
            json!({"name": "mine", "projected": {"sources": [token]}}),
            mount("mine", folder),
        ),
    ] {
        let pod = json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"serviceAccountName": "plain", "volumes": [volume], "containers": containers},
        });
        assert!(create_pod(&walk.client, &pod).await.unwrap().accepted());
    }
    let bad = [("eks.amazonaws.com/role-arn", "app")];
    walk.control_plane
        .create_service_account("shop", "bad", &bad)
        .await
        .unwrap();

    let sections = sections();
    let lists: Vec<_> = blocks(&sections[&2])
        .into_iter()
        .filter_map(|block| match block {
            Block::Command(command) if needs_jq(&command) => Some(command),
            _ => None,
        })
        .collect();
    let found: Vec<_> = lists.iter().map(|command| walk.shell(command).unwrap()).collect();
    let [annotations, pods] = found.as_slice() else {
        panic!("two lists: {lists:?}")
    };
    assert!(
        annotations.contains("ServiceAccount\tshop\tbad\teks.amazonaws.com/role-arn\tapp"),
        "{annotations}"
    );
    let mut pods: Vec<_> = pods.lines().collect();
    pods.sort_unstable();
    assert_eq!(pods, ["shop\tother-file", "shop\tother-kind", "shop\tother-name"]);
}
