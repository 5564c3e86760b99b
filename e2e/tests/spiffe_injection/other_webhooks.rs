//! Beside another webhook, which puts a container first or replaces the ServiceAccount.

use serde_json::json;
use tokenscope_e2e::admission::accepts;
use tokenscope_e2e::fixtures::{CARTS, ORDERS, init_containers, mounted_at, variable, volume};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook, put_mesh_first};

use crate::{MOUNT, SIDECAR, SOCKET_VOLUME, VOLUME, from_spiffe, shop, within_rights};

#[tokio::test]
async fn the_sidecar_stays_first_whatever_another_webhook_puts_before_it() {
    let shop = shop("pushed", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "pushed", put_mesh_first)
            .await
            .unwrap();
        let name = format!("pod-{order:?}").to_lowercase();
        let pod = accepts(&shop.client, &shop.asking(&name, ORDERS)).await.unwrap();
        assert_eq!(init_containers(&pod), [SIDECAR, "mesh-init"], "{order:?}");
        assert_eq!(variable(&pod, "mesh-init", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
        assert_eq!(mounted_at(&pod, "mesh-init", VOLUME), Some(MOUNT));
        assert_eq!(mounted_at(&pod, "mesh-init", SOCKET_VOLUME), None);
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn what_was_added_for_a_service_account_is_redone_for_the_one_that_another_webhook_sets() {
    let shop = shop("accounts", &[]).await;
    for (account, role, spiffe) in [
        ("old", ORDERS, Some(json!({"spiffeId": "spiffe://example.org/old"}))),
        ("new", CARTS, Some(json!({"spiffeId": "spiffe://example.org/new"}))),
        ("by-cluster", CARTS, None),
    ] {
        let annotations = [("tokenscope.io/role-arn", role)];
        shop.control_plane
            .create_service_account("accounts", account, &annotations)
            .await
            .unwrap();
        let mut spec = json!({"subjects": [{"serviceAccounts": [account]}], "roles": {"allowed": [role]}});
        if let Some(spiffe) = spiffe {
            spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
        }
        shop.policy(account, spec).await.unwrap();
    }
    let of = |name: &str, account: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    for account in ["old", "new", "by-cluster"] {
        shop.granted(&of(account, account)).await.unwrap();
    }
    for to in ["new", "by-cluster"] {
        let second = SecondWebhook::start(shop.control_plane, Order::After, "accounts", move |pod| {
            let path = "/spec/serviceAccountName";
            let is_old = pod["spec"]["serviceAccountName"] == "old";
            is_old
                .then(|| json!({"op": "replace", "path": path, "value": to}))
                .into_iter()
                .chain(is_old.then(|| json!({"op": "add", "path": "/spec/serviceAccount", "value": to})))
                .collect()
        })
        .await
        .unwrap();
        let pod = accepts(&shop.client, &of(&format!("changed-{to}"), "old"))
            .await
            .unwrap();
        assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
        if to == "new" {
            let id = variable(&pod, SIDECAR, "TOKENSCOPE_SPIFFE_ID");
            assert_eq!(id.as_deref(), Some("spiffe://example.org/new"));
        } else {
            assert!(init_containers(&pod).is_empty());
            assert!(volume(&pod, SOCKET_VOLUME).is_none());
            assert!(volume(&pod, VOLUME).unwrap()["projected"].is_object());
        }
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}
