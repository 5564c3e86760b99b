//! The authority of the issuer's certificate, which a pod is told of at admission and never again.

use std::time::Duration;

use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::merge;

use super::*;

/// Twice the overlap that these tests have, and the time that watches and replicas need.
const ROTATED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_know_the_authority_before_go_on_exchanging_after_a_rotation() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "rotated").await;
    let client = &tenant.shop.client;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    exchanged(port, client, &subject).await.unwrap();
    let old = authority(client).await.unwrap();

    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-issuer-ca");
    let rotate = json!({"metadata": {"annotations": {"tokenscope.io/rotate": "1"}}});
    merge(client, &secret, &rotate).await.unwrap();
    eventually(ROTATED, "new pods are told of the new authority alone", async || {
        let now = authority(client).await?;
        anyhow::ensure!(now.matches("BEGIN CERTIFICATE").count() == 1 && now != old, "{now}");
        Ok(())
    })
    .await
    .unwrap();
    let new = authority(client).await.unwrap();
    for authorities in [&old, &new] {
        let (status, answer) = exchange(port, authorities, &subject, STS).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
}
