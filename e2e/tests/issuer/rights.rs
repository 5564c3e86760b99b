//! What the issuer and its neighbours may and may not do.

use tokenscope_e2e::helm::NAMESPACE;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_was_forbidden_nothing_and_its_neighbours_do_not_read_the_keys() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "rights").await;
    let (_, port) = environment.installed.issuer(0);
    exchanged(port, &tenant.shop.client, &tenant.pod("orders-1").await.unwrap())
        .await
        .unwrap();
    let keys = format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-issuer-keys");
    assert!(get_json(&tenant.shop.client, &keys).await.is_ok());
    for other in ["tokenscope-webhook", "tokenscope-operator"] {
        let client = environment.control_plane.client_as(NAMESPACE, other).await.unwrap();
        assert!(get_json(&client, &keys).await.is_err(), "{other} reads the keys");
    }
    let mut forbidden = environment.control_plane.forbidden().unwrap();
    forbidden.retain(|line| line.contains(":tokenscope-issuer "));
    assert_eq!(forbidden, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_can_write_no_secret_but_that_of_its_keys_and_no_token_of_an_account() {
    let environment = SHARED.environment().await;
    let control_plane = &environment.control_plane;
    let client = control_plane.client_as(NAMESPACE, "tokenscope-issuer").await.unwrap();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let annotations = json!({"kubernetes.io/service-account.name": "tokenscope-operator"});
    for secret in [
        json!({"metadata": {"name": "mine"}, "type": "Opaque"}),
        json!({"metadata": {"name": "tokenscope-ca"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
        json!({"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}),
    ] {
        let error = post(&client, &path, &secret).await.unwrap_err().to_string();
        assert!(
            error.contains("may write the Secret tokenscope-issuer-keys only"),
            "{error}"
        );
    }
}
