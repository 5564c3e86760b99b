//! Another webhook makes a pod ask that did not ask when ours saw it first.

use serde_json::json;
use tokenscope_e2e::Environment;
use tokenscope_e2e::admission::{accepts, rejects};
use tokenscope_e2e::fixtures::{ADMIN, ORDERS, Shop, annotation, mounted_at, reviewed, variable};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};

use crate::{MOUNT, SHARED, VOLUME, shop, suffix, within_rights};

#[tokio::test]
async fn a_pod_that_another_webhook_makes_ask_late_is_reviewed() {
    let shop = shop("late").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("early", ORDERS)).await.unwrap();

    for order in [Order::After, Order::Before] {
        // It asks for the role in the label, as a translator between two annotations would.
        let second = SecondWebhook::start(shop.control_plane, order, "late", |pod| {
            let Some(role) = pod["metadata"]["labels"]["wanted"].as_str() else {
                return Vec::new();
            };
            let arn = if role == "orders" { ORDERS } else { ADMIN };
            if annotation(pod, "tokenscope.io/role-arn").is_some() {
                return Vec::new();
            }
            let mut annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.insert("tokenscope.io/role-arn".to_owned(), json!(arn));
            vec![json!({"op": "add", "path": "/metadata/annotations", "value": annotations})]
        })
        .await
        .unwrap();
        let wanting = |name: &str, role: &str| {
            let mut pod = shop.pod(&format!("{name}-{}", suffix(order)));
            pod["metadata"]["labels"] = json!({"wanted": role});
            pod
        };
        let granted = accepts(&shop.client, &wanting("granted", "orders")).await.unwrap();
        assert_eq!(reviewed(&granted), Some("granted"));
        assert_eq!(variable(&granted, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
        assert_eq!(mounted_at(&granted, "app", VOLUME), Some(MOUNT));

        let message = rejects(&shop.client, &wanting("refused", "admin")).await.unwrap();
        assert!(
            message.contains("orders does not allow") && message.contains(ADMIN),
            "{message}"
        );
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn a_pod_that_another_webhook_makes_ask_late_is_reviewed_in_a_required_namespace_too() {
    let Environment { control_plane, .. } = SHARED.environment().await;
    let labels = [("tokenscope.io/required", "true")];
    let shop = Shop::open(control_plane, "late-required", &labels).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("early", ORDERS)).await.unwrap();
    let second = SecondWebhook::start(control_plane, Order::After, "late-required", |pod| {
        if annotation(pod, "tokenscope.io/role-arn").is_some() {
            return Vec::new();
        }
        vec![json!({"op": "add", "path": "/metadata/annotations/tokenscope.io~1role-arn", "value": ORDERS})]
    })
    .await
    .unwrap();
    let pod = accepts(&shop.client, &shop.pod("late")).await.unwrap();
    assert_eq!(reviewed(&pod), Some("granted"));
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    second.remove(control_plane).await.unwrap();
    within_rights(&shop);
}
