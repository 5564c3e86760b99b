//! What the lock leaves possible, as the README says: a new token of a locked audience comes only by a policy's grant, no more.

use serde_json::json;
use tokenscope_e2e::Environment;
use tokenscope_e2e::fixtures::{ACCOUNT, ORDERS, Shop, orders_may, sts, who_is};

use super::{DENYING, LOCKED, acting_as, editor, shop_and_editor, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_may_choose_the_service_account_and_the_labels_that_a_policy_selects() {
    let (shop, editor) = shop_and_editor("choosing").await;
    let mut spec = orders_may(&[ORDERS]);
    spec["subjects"][0]["podSelector"] = json!({"matchLabels": {"app": "orders"}});
    shop.policy("orders", spec).await.unwrap();
    let mut pod = shop.asking("chosen", ORDERS);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    shop.granted(&pod).await.unwrap();
    pod["metadata"]["name"] = json!("by-the-editor");
    let answer = tokenscope_e2e::admission::create_pod(&editor, &pod).await.unwrap();
    assert!(answer.accepted(), "{}", answer.message());

    // It gets the role at a strict STS, with the SDK as it is.
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let sts = sts(shop.control_plane, &[LOCKED], &[(ORDERS, &trust)]).await.unwrap();
    let arn = who_is(shop.control_plane, &sts, "choosing", "by-the-editor", "app")
        .await
        .unwrap();
    assert!(
        arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/")),
        "{arn}"
    );
    sts.stop().await;
}

#[tokio::test]
async fn who_may_edit_the_namespace_of_a_listed_service_account_may_act_as_it() {
    let Environment { control_plane, .. } = DENYING.environment().await;
    let shop = Shop::open(control_plane, "listed-too", &[]).await.unwrap();
    control_plane
        .create_service_account("listed-too", "vault", &[])
        .await
        .unwrap();
    let own = editor(&shop).await;
    assert!(!token(&own, "listed-too", "default", &[LOCKED]).await.accepted());
    let acting = acting_as(&shop, "vault").await;
    assert!(token(&acting, "listed-too", "default", &[LOCKED]).await.accepted());
}
