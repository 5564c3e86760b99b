//! Inline volumes of CSI drivers that get tokens of a locked audience.

use anyhow::ensure;
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, create_pod, try_pod};
use tokenscope_e2e::fixtures::{PROPAGATION, Shop, reviewed};
use tokenscope_e2e::{Environment, eventually, get_json, install, post, put};

use super::{LOCKED, editor, refused, shop_and_editor};
use crate::{MARK, opted_out, with_driver, with_label};

/// A driver that `lock.csiDrivers` names, and one that it doesn't.
const LISTED: &str = "listed.csi.example.com";
const OTHER: &str = "other.csi.example.com";

/// Registers a driver whose inline volumes hold a token of this audience.
pub(crate) async fn add_driver(client: &Client, name: &str, audience: &str) {
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": name},
        "spec": {"volumeLifecycleModes": ["Ephemeral"], "tokenRequests": [{"audience": audience, "expirationSeconds": 3600}]},
    });
    post(client, "/apis/storage.k8s.io/v1/csidrivers", &driver)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_volume_of_a_csi_driver_that_gets_locked_tokens_needs_a_policy() {
    let (shop, editor) = shop_and_editor("by-driver").await;
    add_driver(&shop.client, "aws.csi.example.com", LOCKED).await;
    add_driver(&shop.client, "vault.csi.example.com", "vault").await;
    let stolen = with_driver(shop.pod("stolen"), "aws.csi.example.com");
    eventually(PROPAGATION, "the driver is known", async || {
        let answer = try_pod(&editor, &stolen).await?;
        ensure!(!answer.accepted(), "accepted: {}", answer.body["spec"]["volumes"]);
        ensure!(answer.message().contains("aws.csi.example.com"), "{}", answer.message());
        Ok(())
    })
    .await
    .unwrap();
    assert!(!create_pod(&editor, &stolen).await.unwrap().accepted());
    let answer = create_pod(&editor, &with_driver(shop.pod("vault"), "vault.csi.example.com"))
        .await
        .unwrap();
    assert!(answer.accepted(), "{}", answer.message());
    shop.allow_orders().await.unwrap();
    eventually(PROPAGATION, "the policy is known", async || {
        let answer = create_pod(&editor, &stolen).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn while_the_webhook_is_away_an_inline_volume_of_a_listed_csi_driver_is_refused_like_a_locked_token() {
    let options = install::Options {
        values: json!({"lock": {"mode": "deny", "csiDrivers": [LISTED]}}),
        ..install::Options::default()
    };
    let Environment {
        control_plane,
        installed,
    } = Environment::start(options).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    let editor_of_shop = editor(&shop).await;

    // This driver gets no token, so nobody needs a policy: the review is all that the guard wants to see.
    let pod = accepts(&editor_of_shop, &with_driver(shop.pod("listed"), LISTED))
        .await
        .unwrap();
    assert_eq!(reviewed(&pod), Some("untouched"));
    let pod = accepts(&editor_of_shop, &with_driver(shop.pod("other"), OTHER))
        .await
        .unwrap();
    assert_eq!(reviewed(&pod), None);
    an_ephemeral_container_may_not_mount_it(&shop).await;

    let out = Shop::open(&control_plane, "out", &[("tokenscope.io/inject", "false")])
        .await
        .unwrap();
    let answer = create_pod(&editor(&out).await, &with_driver(out.pod("listed"), LISTED))
        .await
        .unwrap();
    refused(
        &answer,
        &format!("a CSI driver that lock.csiDrivers names ({LISTED}), more than 256 volumes"),
    );
    assert!(
        answer.message().contains("reviews no pods of this namespace"),
        "{}",
        answer.message()
    );
    let mut exempt = with_driver(shop.pod("listed"), LISTED);
    exempt["metadata"]["namespace"] = json!("kube-system");
    exempt["spec"]["serviceAccountName"] = json!("default");
    assert_eq!(reviewed(&accepts(&shop.client, &exempt).await.unwrap()), None);

    installed.webhook(0).kill().unwrap();
    let away = with_driver(shop.pod("away"), LISTED);
    for pod in [away.clone(), opted_out(away.clone())] {
        let answer = create_pod(&editor_of_shop, &pod).await.unwrap();
        refused(&answer, "'tokenscope-guard'");
        assert!(answer.message().contains(LISTED), "{}", answer.message());
    }
    let forged = create_pod(&editor_of_shop, &with_label(away, MARK, "granted"))
        .await
        .unwrap();
    assert!(!forged.accepted(), "{}", forged.body);
    accepts(&editor_of_shop, &with_driver(shop.pod("other-away"), OTHER))
        .await
        .unwrap();
}

/// Not even if an administrator adds it who is not listed.
async fn an_ephemeral_container_may_not_mount_it(shop: &Shop<'_>) {
    for (name, says) in [("listed", Some(LISTED)), ("other", None)] {
        let mut pod: Value = get_json(&shop.client, &shop.path(&format!("pods/{name}")))
            .await
            .unwrap();
        pod["spec"]["ephemeralContainers"] =
            json!([{"name": "shell", "image": "app", "volumeMounts": [{"name": "inline", "mountPath": "/inline"}]}]);
        let path = shop.path(&format!("pods/{name}/ephemeralcontainers"));
        let message = put(&shop.client, &path, &pod)
            .await
            .err()
            .map(|error| error.to_string());
        match says {
            Some(part) => assert!(
                message.as_ref().is_some_and(|message| message.contains(part)),
                "{message:?}"
            ),
            None => assert_eq!(message, None),
        }
    }
}
