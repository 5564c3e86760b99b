//! Certificates that cert-manager makes: the operator has no right over them and needs none.

use anyhow::ensure;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokenscope_tests::admission::create;
use tokenscope_tests::control_plane::{ControlPlane, Options};
use tokenscope_tests::fixtures::{ORDERS, Shop};
use tokenscope_tests::helm::NAMESPACE;
use tokenscope_tests::install::{self, install};
use tokenscope_tests::pki::Authority;
use tokenscope_tests::{eventually, get_json, merge, put};

use crate::SOON;

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// A kind of cert-manager, so far as that the chart's objects can be stored.
fn definition(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cert-manager.io")},
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// Does what cert-manager and its cainjector would do with the chart's objects.
async fn certify(control_plane: &ControlPlane) {
    let authority = Authority::new("cert-manager").unwrap();
    let names = ["127.0.0.1", "tokenscope-webhook.tokenscope-system.svc"];
    let identity = authority.server(&names).unwrap();
    let client = control_plane.client().await.unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "tokenscope-webhook-tls"},
        "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key, "ca.crt": authority.certificate()},
    });
    let created = create(&client, &format!("/api/v1/namespaces/{NAMESPACE}/secrets"), &secret)
        .await
        .unwrap();
    assert!(created.accepted(), "{}", created.message());
    eventually(SOON, "the caBundle is injected", async || {
        let mut configuration = get_json(&client, CONFIGURATION).await?;
        let from = &configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
        ensure!(from == &format!("{NAMESPACE}/tokenscope-webhook"), "it is from {from}");
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"]["caBundle"] = json!(BASE64_STANDARD.encode(authority.certificate()));
        }
        Ok(put(&client, CONFIGURATION, &configuration).await?)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn with_cert_manager_pods_are_granted_and_the_operator_has_no_right_over_certificates() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
    let kinds = [
        definition("Certificate", "certificates"),
        definition("Issuer", "issuers"),
    ];
    control_plane.apply(&kinds, NAMESPACE).await.unwrap();
    let options = install::Options {
        values: json!({"certificates": {"provider": "cert-manager"}}),
        ..install::Options::default()
    };
    let (installed, ()) = tokio::join!(install(&control_plane, options), certify(&control_plane));
    let _installed = installed.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();
    assert_eq!(control_plane.forbidden().unwrap(), [""; 0], "it didn't even try");

    let operator = control_plane.client_as(NAMESPACE, "tokenscope-operator").await.unwrap();
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokenscope-ca"}});
    assert_eq!(create(&operator, &secrets, &secret).await.unwrap().status, 403);
    get_json(&operator, &format!("{secrets}/tokenscope-webhook-tls"))
        .await
        .unwrap_err();
    merge(&operator, CONFIGURATION, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap_err();
}
