//! The certificates of the webhook: made, healed and replaced.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::fixtures::{ORDERS, Shop, reviewed};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, delete, eventually, get_json, merge};

/// How long the operator may take to heal, with the overlap of two authorities and a busy machine.
const HEALED: Duration = Duration::from_secs(90);

/// What is done to Secrets, to which of them, and the change; none where they are deleted.
type Damage = (&'static str, &'static [&'static str], Option<Value>);

fn damages() -> [Damage; 6] {
    [
        ("the authority is deleted", &["tokenscope-ca"], None),
        ("the serving certificate is deleted", &["tokenscope-webhook-tls"], None),
        ("both are deleted", &["tokenscope-ca", "tokenscope-webhook-tls"], None),
        (
            "the authority is emptied",
            &["tokenscope-ca"],
            Some(json!({"data": {"tls.crt": "", "tls.key": "", "ca.crt": ""}})),
        ),
        (
            "the authority's key is nonsense",
            &["tokenscope-ca"],
            Some(json!({"stringData": {"tls.key": "nonsense"}})),
        ),
        (
            "the serving key is nonsense",
            &["tokenscope-webhook-tls"],
            Some(json!({"stringData": {"tls.key": "nonsense"}})),
        ),
    ]
}

#[tokio::test]
async fn secrets_that_are_deleted_or_damaged_are_healed_and_pods_are_reviewed_all_the_while() {
    let environment = Environment::start(Options {
        // Long enough for watches on a busy machine: API server and webhook learn of each step by their own.
        operator_arguments: vec!["--rotation-overlap=5".to_owned()],
        ..Options::default()
    })
    .await
    .unwrap();
    let control_plane = &environment.control_plane;
    let shop = Shop::open(control_plane, "heal", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();

    for (what, names, damage) in damages() {
        let mut versions = Vec::new();
        for name in names {
            let path = secret_path(name);
            versions.push(get_json(&shop.client, &path).await.unwrap()["metadata"]["resourceVersion"].take());
            match &damage {
                None => delete(&shop.client, &path).await.unwrap(),
                Some(change) => merge(&shop.client, &path, change).await.unwrap(),
            };
        }
        eventually(HEALED, format!("{what}, and healed"), async || {
            // At every moment: whoever looks at the cluster from outside sees nothing of it.
            let answer = try_pod(&shop.client, &shop.asking("meanwhile", ORDERS)).await?;
            assert_eq!(reviewed(&answer.body), Some("granted"), "{what}: {}", answer.message());
            for (name, version) in names.iter().zip(&versions) {
                let secret = get_json(&shop.client, &secret_path(name)).await?;
                ensure!(secret["metadata"]["resourceVersion"] != *version, "{name} is untouched");
                for key in ["tls.crt", "tls.key", "ca.crt"] {
                    ensure!(
                        secret["data"][key].as_str().unwrap_or_default().len() > 200,
                        "{name} has no {key}"
                    );
                }
            }
            let trusted = authorities(&shop.client).await?;
            ensure!(trusted == 1, "{trusted} authorities are trusted");
            Ok(())
        })
        .await
        .unwrap();
    }
    let log = environment.installed.operator(0).log();
    assert!(
        !log.contains("PRIVATE") && !log.contains("LS0tLS1CRUdJTi"),
        "key material is in the log"
    );
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn short_lived_certificates_are_replaced_in_time_again_and_again() {
    let environment = Environment::start(Options {
        // As short as leaves time for a machine that stands still for some seconds: a serving certificate is renewed eight before its end.
        operator_arguments: ["--ca-lifetime=54", "--serving-lifetime=24", "--rotation-overlap=6"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    })
    .await
    .unwrap();
    let shop = Shop::open(&environment.control_plane, "short", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    while seen.len() < 3 {
        let answer = try_pod(&shop.client, &shop.asking("meanwhile", ORDERS)).await.unwrap();
        assert_eq!(reviewed(&answer.body), Some("granted"), "{}", answer.message());
        let secret = get_json(&shop.client, &secret_path("tokenscope-ca")).await.unwrap();
        seen.insert(secret["data"]["tls.crt"].as_str().unwrap().to_owned());
        assert!(began.elapsed() < Duration::from_secs(300), "{} authorities", seen.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, text) = environment.installed.operator(0).observe("/metrics").await.unwrap();
    assert!(
        text.contains("tokenscope_operator_certificate_steps_total{step=\"drop_old_ca\"}"),
        "{text}"
    );
}

fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
}

/// How many certificate authorities are trusted.
async fn authorities(client: &Client) -> Result<usize> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let secret = get_json(client, &secret_path("tokenscope-ca")).await?;
    let bundle = BASE64_STANDARD.decode(secret["data"]["ca.crt"].as_str().unwrap_or_default())?;
    Ok(String::from_utf8(bundle)?.matches("BEGIN CERTIFICATE").count())
}
