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
use tokenscope_e2e::{delete, eventually, get_json, merge};

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
const CERTIFICATES: &str = "/apis/cert-manager.io/v1/namespaces/tokenscope-system/certificates";
const SECRETS: &str = "/api/v1/namespaces/tokenscope-system/secrets";
const WEBHOOK: &str = "tokenscope-webhook-tls";

/// How long cert-manager may take for a certificate on a busy machine.
const ISSUED: Duration = Duration::from_secs(180);

/// Asks for a new certificate before its time, as `cmctl renew` does.
async fn renew(client: &Client, name: &str) -> Result<()> {
    let path = format!("{CERTIFICATES}/{name}");
    let certificate = get_json(client, &path).await?;
    let mut conditions = certificate["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions.push(json!({
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "asked for by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": certificate["metadata"]["generation"],
    }));
    let status = json!({"status": {"conditions": conditions}});
    merge(client, &format!("{path}/status"), &status).await?;
    Ok(())
}

/// The member of a Secret, as the API server shows it.
async fn secret(client: &Client, name: &str, member: &str) -> Result<Value> {
    let path = format!("{SECRETS}/{name}");
    Ok(get_json(client, &path).await?["data"][member].clone())
}

/// Waits until a member of a Secret is another one than before.
async fn replaced(client: &Client, name: &str, member: &str, before: &Value) {
    eventually(ISSUED, "the Secret is another", async || {
        let now = secret(client, name, member).await?;
        ensure!(now.is_string() && now != *before, "{name} has the same {member}");
        Ok(())
    })
    .await
    .unwrap();
}

/// As docs/runbooks.md says: to renew keeps the key of the issuer's authority, and to delete its Secret, and then that of the certificate,
/// replaces both.
async fn the_issuers_authority_gets_another_key_only_by_deleting_its_secret(client: &Client) {
    let (authority, serving) = ("tokenscope-issuer-ca", "tokenscope-issuer-tls");
    replaced(client, serving, "tls.crt", &Value::Null).await;
    let [certificate, key, leaf] = [
        secret(client, authority, "tls.crt").await.unwrap(),
        secret(client, authority, "tls.key").await.unwrap(),
        secret(client, serving, "tls.crt").await.unwrap(),
    ];
    renew(client, authority).await.unwrap();
    replaced(client, authority, "tls.crt", &certificate).await;
    assert_eq!(secret(client, authority, "tls.key").await.unwrap(), key);
    eventually(ISSUED, "the authority has another key", async || {
        // cert-manager may still write, from what it has in memory, what was deleted: then it is deleted again.
        if secret(client, authority, "tls.key").await? == key {
            delete(client, &format!("{SECRETS}/{authority}")).await?;
        }
        let now = secret(client, authority, "tls.key").await?;
        ensure!(now.is_string() && now != key, "{authority} has the same tls.key");
        Ok(())
    })
    .await
    .unwrap();
    delete(client, &format!("{SECRETS}/{serving}")).await.unwrap();
    replaced(client, serving, "tls.crt", &leaf).await;
    let present = secret(client, authority, "tls.crt").await.unwrap();
    assert_eq!(secret(client, serving, "ca.crt").await.unwrap(), present);
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
            "issuer": {"enabled": true, "url": "https://tokens.tokenscope.test"},
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
    let authority = secret(&client, WEBHOOK, "ca.crt").await.unwrap();
    let configuration = get_json(&client, CONFIGURATION).await.unwrap();
    for webhook in configuration["webhooks"].as_array().unwrap() {
        assert_eq!(webhook["clientConfig"]["caBundle"], authority, "{}", webhook["name"]);
    }

    let before = secret(&client, WEBHOOK, "tls.crt").await.unwrap();
    renew(&client, "tokenscope-webhook").await.unwrap();
    replaced(&client, WEBHOOK, "tls.crt", &before).await;
    installed.wait_ready(&control_plane).await.unwrap();
    shop.granted(&shop.asking("after", ORDERS)).await.unwrap();
    assert_eq!(
        control_plane.forbidden().unwrap(),
        [""; 0],
        "the operator didn't even try"
    );

    the_issuers_authority_gets_another_key_only_by_deleting_its_secret(&client).await;
    let operator = control_plane.client_as(NAMESPACE, "tokenscope-operator").await.unwrap();
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokenscope-ca"}});
    assert_eq!(create(&operator, SECRETS, &other).await.unwrap().status, 403);
    get_json(&operator, &format!("{SECRETS}/{WEBHOOK}")).await.unwrap_err();
    merge(&operator, CONFIGURATION, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap_err();
}
