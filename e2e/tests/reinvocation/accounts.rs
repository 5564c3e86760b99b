//! Another webhook replaces the ServiceAccount that ours has decided for.

use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, rejects};
use tokenscope_e2e::fixtures::{CARTS, ORDERS, annotation, reviewed, variable};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};

use crate::{comparable, shop, suffix, within_rights};

#[tokio::test]
async fn edits_for_a_service_account_that_another_webhook_replaces_are_redone_for_the_new_one() {
    let shop = shop("accounts").await;
    for (account, role) in [("old", ORDERS), ("new", CARTS)] {
        shop.control_plane
            .create_service_account("accounts", account, &[("tokenscope.io/role-arn", role)])
            .await
            .unwrap();
        let aws = if account == "old" {
            json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"})
        } else {
            json!({})
        };
        let spec = json!({
            "subjects": [{"serviceAccounts": [account]}], "roles": {"allowed": [role]}, "aws": aws,
            "token": {"expirationSeconds": if account == "old" { 7200 } else { 900 }},
        });
        shop.policy(account, spec).await.unwrap();
    }
    let of_account = |name: &str, account: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    let old = shop.granted(&of_account("old", "old")).await.unwrap().body;
    assert_eq!(variable(&old, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    assert_eq!(variable(&old, "app", "AWS_REGION").as_deref(), Some("eu-central-1"));
    let new = shop.granted(&of_account("new", "new")).await.unwrap().body;
    assert_eq!(variable(&new, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    assert_eq!(variable(&new, "app", "AWS_REGION"), None);

    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "accounts", |pod| {
            replace_account(pod, "old", "new")
        })
        .await
        .unwrap();
        let changed = accepts(&shop.client, &of_account(&format!("changed-{}", suffix(order)), "old"))
            .await
            .unwrap();
        assert_eq!(changed["spec"]["serviceAccountName"], "new");
        assert_eq!(
            comparable(&changed["spec"]),
            comparable(&new["spec"]),
            "nothing is left of what was injected for the old account"
        );
        for key in ["tokenscope.io/grant", "tokenscope.io/reviewed"] {
            assert_eq!(annotation(&changed, key), annotation(&new, key));
        }

        // A pod that names its role itself: the policy of the new account doesn't allow it.
        let mut asking = shop.asking(&format!("asking-{}", suffix(order)), ORDERS);
        asking["spec"]["serviceAccountName"] = json!("old");
        let message = rejects(&shop.client, &asking).await.unwrap();
        assert!(
            message.contains("new does not allow") && message.contains(ORDERS),
            "{message}"
        );
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn edits_for_a_service_account_are_taken_back_when_another_webhook_sets_one_without_a_role() {
    let shop = shop("plain-accounts").await;
    shop.control_plane
        .create_service_account("plain-accounts", "old", &[("tokenscope.io/role-arn", ORDERS)])
        .await
        .unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["old"]}], "roles": {"allowed": [ORDERS]}});
    shop.policy("old", spec).await.unwrap();
    let of_old = |name: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("old");
        pod
    };
    shop.granted(&of_old("old")).await.unwrap();

    let mut plain = shop.pod("plain");
    plain["spec"]["serviceAccountName"] = json!("default");
    let plain = shop.untouched(&plain).await.unwrap().body;
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "plain-accounts", |pod| {
            replace_account(pod, "old", "default")
        })
        .await
        .unwrap();
        let changed = accepts(&shop.client, &of_old(&format!("changed-{}", suffix(order))))
            .await
            .unwrap();
        assert_eq!(changed["spec"]["serviceAccountName"], "default");
        assert_eq!(comparable(&changed["spec"]), comparable(&plain["spec"]));
        assert_eq!(annotation(&changed, "tokenscope.io/grant"), None);
        assert_ne!(reviewed(&changed), Some("granted"));
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

fn replace_account(pod: &Value, old: &str, new: &str) -> Vec<Value> {
    if pod["spec"]["serviceAccountName"] != old {
        return Vec::new();
    }
    vec![
        json!({"op": "replace", "path": "/spec/serviceAccountName", "value": new}),
        json!({"op": "add", "path": "/spec/serviceAccount", "value": new}),
    ]
}
