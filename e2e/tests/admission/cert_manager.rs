//! Certificates that the real cert-manager makes: the operator has no right over them and needs none.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::create;
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::fixtures::{ORDERS, Shop};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::{self, install};
use tokenscope_e2e::{eventually, get_json, merge};

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
const CERTIFICATE: &str = "/apis/cert-manager.io/v1/namespaces/tokenscope-system/certificates/tokenscope-webhook";
const SECRET: &str = "/api/v1/namespaces/tokenscope-system/secrets/tokenscope-webhook-tls";

/// How long cert-manager may take for a certificate on a busy machine.
const ISSUED: Duration = Duration::from_secs(60);

/// Asks for a new certificate before its time, as `cmctl renew` does.
async fn renew(client: &Client) -> Result<()> {
    let certificate = get_json(client, CERTIFICATE).await?;
    let mut conditions = certificate["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions.push(json!({
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "asked for by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": certificate["metadata"]["generation"],
    }));
    let status = json!({"status": {"conditions": conditions}});
    merge(client, &format!("{CERTIFICATE}/status"), &status).await?;
    Ok(())
}

/// The member of the webhook's Secret, as the API server shows it.
async fn secret(client: &Client, member: &str) -> Result<Value> {
    Ok(get_json(client, SECRET).await?["data"][member].clone())
}

#[tokio::test]
async fn with_cert_manager_pods_are_granted_before_and_after_a_renewal_and_the_operator_has_no_right_over_certificates()
{
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let _cert_manager = control_plane.start_cert_manager().await.unwrap();
    let cainjector = "system:serviceaccount:cert-manager:cert-manager-cainjector";
    let options = install::Options {
        values: json!({
            "certificates": {"provider": "cert-manager"},
            "protectConfiguration": {
                "enabled": true, "allowed": {"users": [cainjector], "groups": ["system:masters"]},
            },
        }),
        ..install::Options::default()
    };
    let installed = install(&control_plane, options).await.unwrap();
    let client = control_plane.client().await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();
    let authority = secret(&client, "ca.crt").await.unwrap();
    let configuration = get_json(&client, CONFIGURATION).await.unwrap();
    for webhook in configuration["webhooks"].as_array().unwrap() {
        assert_eq!(webhook["clientConfig"]["caBundle"], authority, "{}", webhook["name"]);
    }

    let before = secret(&client, "tls.crt").await.unwrap();
    renew(&client).await.unwrap();
    eventually(ISSUED, "the certificate is replaced", async || {
        ensure!(secret(&client, "tls.crt").await? != before, "it is the same");
        Ok(())
    })
    .await
    .unwrap();
    installed.wait_ready(&control_plane).await.unwrap();
    shop.granted(&shop.asking("after", ORDERS)).await.unwrap();
    assert_eq!(
        control_plane.forbidden().unwrap(),
        [""; 0],
        "the operator didn't even try"
    );

    let operator = control_plane.client_as(NAMESPACE, "tokenscope-operator").await.unwrap();
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokenscope-ca"}});
    assert_eq!(create(&operator, &secrets, &other).await.unwrap().status, 403);
    get_json(&operator, SECRET).await.unwrap_err();
    merge(&operator, CONFIGURATION, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap_err();
}
