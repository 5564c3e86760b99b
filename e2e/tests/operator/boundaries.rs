//! Boundaries: webhook and operator judge by them alike.

use anyhow::ensure;
use serde_json::json;
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, orders_may};
use tokenscope_e2e::{delete, post};

use crate::{POLICIES, SHARED, reasons, when};

#[tokio::test]
async fn a_policy_beyond_its_boundary_grants_nothing_and_its_status_says_so_until_the_boundary_is_gone() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "bounded", &[]).await.unwrap();
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();

    let boundaries = format!("{POLICIES}/tokenscopeboundaries");
    let boundary = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "bounded"},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bounded"}}, "roles": [CARTS]},
    });
    post(&shop.client, &boundaries, &boundary).await.unwrap();

    let message = shop
        .refused(
            &shop.asking("beyond", ORDERS),
            "TokenScopeBoundary bounded does not allow",
        )
        .await
        .unwrap();
    assert!(message.contains(ORDERS) && message.contains(CARTS), "{message}");
    when(&shop, "orders", |status| {
        let found = reasons(status);
        ensure!(found == ["OutsideBoundary", "Unusable", "NotAccepted"], "{found:?}");
        Ok(())
    })
    .await
    .unwrap();

    delete(&shop.client, &format!("{boundaries}/bounded")).await.unwrap();
    shop.granted(&shop.asking("after", ORDERS)).await.unwrap();
    when(&shop, "orders", |status| {
        ensure!(reasons(status)[0] == "Valid", "it is not accepted");
        Ok(())
    })
    .await
    .unwrap();
}
