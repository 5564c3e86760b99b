//! Certificates are exchanged and webhooks come and go while pods are created all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::fixtures::{ORDERS, Shop, reviewed};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::{Installed, Options};
use tokenscope_e2e::webhook_only::{first_certificate, review, shown_certificate};
use tokenscope_e2e::{eventually, get_json, merge};
use tokio::task::JoinHandle;

use crate::{Scenario, bundles};

/// How long a step of a rotation may take on a busy machine, the overlap included.
const ROTATED: Duration = Duration::from_secs(120);
const AUTHORITY: &str = "tokenscope-ca";
const SERVING: &str = "tokenscope-webhook-tls";

#[tokio::test]
async fn under_a_load_of_creates_certificates_are_rotated_and_webhooks_replaced_without_one_failure() {
    let scenario = Scenario::start(Options {
        webhooks: 2,
        webhook_arguments: vec!["--drain=2".to_owned()],
        // Long enough to be seen by whoever looks every now and then, on a machine that stands still for some seconds.
        operator_arguments: vec!["--rotation-overlap=12".to_owned()],
        ..Options::default()
    })
    .await;
    let (control_plane, installed) = (&scenario.control_plane, &scenario.installed);
    let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let pod = shop.asking("orders", ORDERS);
    shop.granted(&pod).await.unwrap();
    let client = &shop.client;
    each_webhook_grants(client, installed, &pod).await;
    let load = Load::start(control_plane, &pod).await.unwrap();

    let serving = secret(client, SERVING).await.unwrap();
    let renewed = rotate_the_serving_certificate(client, installed, &serving).await;
    load.goes_on().await;
    let renewed = rotate_the_authority(client, installed, &renewed).await;
    assert_ne!(renewed.certificate, serving.certificate);
    load.goes_on().await;

    // Each webhook is replaced, as a rolling update does it.
    for number in 0..2 {
        let webhook = installed.webhook(number);
        let status = webhook.terminate(Duration::from_secs(60)).await.unwrap();
        assert!(status.success(), "{} has ended with {status}", webhook.name());
        load.goes_on().await;
        webhook.restart().unwrap();
        webhook.wait_ready(Duration::from_secs(180)).await.unwrap();
        load.goes_on().await;
    }

    let (created, failures) = load.end().await;
    assert!(
        failures.is_empty(),
        "{} of {created} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    println!("{created} pods were created meanwhile");

    distrust_the_authority(client).await;
    shop.granted(&shop.asking("after-the-leak", ORDERS)).await.unwrap();
    scenario.holds(&[]);
}

/// Waits until both webhooks know the policy, each by a watch of its own.
async fn each_webhook_grants(client: &Client, installed: &Installed, pod: &Value) {
    let trusted = secret(client, SERVING).await.unwrap().trusted;
    for number in 0..2 {
        eventually(ROTATED, "the webhook grants the pod its role", async || {
            let response = review(installed.webhook_port(number), &trusted, pod).await?;
            ensure!(
                response["allowed"] == true && response["patch"].is_string(),
                "{response}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The serving certificate alone.
async fn rotate_the_serving_certificate(
    client: &Client,
    installed: &Installed,
    serving: &Certificates,
) -> Certificates {
    let authority = secret(client, AUTHORITY).await.unwrap();
    annotate(client, SERVING, "tokenscope.io/rotate").await.unwrap();
    let renewed = rotated(client, installed, serving).await.unwrap();
    assert_eq!(renewed.trusted, serving.trusted, "the authority stays");
    assert_eq!(secret(client, AUTHORITY).await.unwrap(), authority);
    renewed
}

/// The authority, and with it the serving certificate.
async fn rotate_the_authority(client: &Client, installed: &Installed, serving: &Certificates) -> Certificates {
    let authority = secret(client, AUTHORITY).await.unwrap();
    annotate(client, AUTHORITY, "tokenscope.io/rotate").await.unwrap();
    let both = eventually(ROTATED, "both authorities are trusted", async || {
        let now = secret(client, AUTHORITY).await?;
        ensure!(now.certificate != authority.certificate, "the authority is the same");
        ensure!(
            now.trusted.matches("BEGIN CERTIFICATE").count() == 2,
            "trusted is {}",
            now.trusted
        );
        Ok(now)
    })
    .await
    .unwrap();
    assert!(both.trusted.contains(authority.certificate.trim()) && both.trusted.contains(both.certificate.trim()));
    let renewed = rotated(client, installed, serving).await.unwrap();
    eventually(ROTATED, "only the new authority is trusted", async || {
        let now = secret(client, AUTHORITY).await?;
        ensure!(
            now.trusted.trim() == both.certificate.trim(),
            "trusted is {}",
            now.trusted
        );
        for bundle in bundles(client).await? {
            ensure!(
                BASE64_STANDARD.decode(bundle)? == now.trusted.as_bytes(),
                "the caBundle is another"
            );
        }
        Ok(())
    })
    .await
    .unwrap();
    renewed
}

/// A leaked authority can't wait for that.
async fn distrust_the_authority(client: &Client) {
    let leaked = secret(client, AUTHORITY).await.unwrap();
    annotate(client, AUTHORITY, "tokenscope.io/distrust").await.unwrap();
    eventually(ROTATED, "only a new authority is trusted", async || {
        for bundle in bundles(client).await? {
            let bundle = String::from_utf8(BASE64_STANDARD.decode(bundle)?)?;
            ensure!(bundle.matches("BEGIN CERTIFICATE").count() == 1, "trusted is {bundle}");
            ensure!(bundle.trim() != leaked.certificate.trim(), "the leaked one is trusted");
        }
        Ok(())
    })
    .await
    .unwrap();
}

/// Creates pods (dry runs, which call webhooks and the guard like any other) until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    async fn start(control_plane: &ControlPlane, pod: &Value) -> Result<Self> {
        let (stop, count) = (Arc::default(), Arc::default());
        let mut tasks = Vec::new();
        for number in 0..2 {
            let client = control_plane.client().await?;
            let mut pod = pod.clone();
            pod["metadata"]["name"] = json!(format!("load-{number}"));
            let (stop, count): (Arc<AtomicBool>, Arc<std::sync::atomic::AtomicUsize>) =
                (Arc::clone(&stop), Arc::clone(&count));
            tasks.push(tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match try_pod(&client, &pod).await {
                        Ok(answer) if reviewed(&answer.body) == Some("granted") => {}
                        Ok(answer) => failures.push(format!("{} {}", answer.status, answer.body)),
                        Err(error) => failures.push(format!("{error:#}")),
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                failures
            }));
        }
        Ok(Self { stop, count, tasks })
    }

    /// Waits until some more pods have been created.
    async fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        eventually(ROTATED, "more pods are created", async || {
            let more = self.count.load(Ordering::Relaxed) - before;
            ensure!(more >= 20, "only {more}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        (self.count.load(Ordering::Relaxed), failures)
    }
}

/// A Secret of ours, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Certificates {
    certificate: String,
    trusted: String,
}

async fn secret(client: &Client, name: &str) -> Result<Certificates> {
    let secret = get_json(client, &format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")).await?;
    let text = |key: &str| -> Result<String> {
        let encoded = secret["data"][key]
            .as_str()
            .with_context(|| format!("{name} has {key}"))?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
    };
    Ok(Certificates {
        certificate: text("tls.crt")?,
        trusted: text("ca.crt")?,
    })
}

/// As an administrator asks for it: `kubectl annotate`.
async fn annotate(client: &Client, name: &str, wish: &str) -> Result<()> {
    let value = jiff::Timestamp::now().to_string();
    let change = json!({"metadata": {"annotations": {wish: value}}});
    merge(
        client,
        &format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}"),
        &change,
    )
    .await?;
    Ok(())
}

/// Waits until there is another serving certificate and every webhook shows it.
async fn rotated(client: &Client, installed: &Installed, before: &Certificates) -> Result<Certificates> {
    let now = eventually(ROTATED, "there is a new serving certificate", async || {
        let now = secret(client, SERVING).await?;
        ensure!(now.certificate != before.certificate, "it is the same");
        Ok(now)
    })
    .await?;
    let leaf = first_certificate(&now.certificate)?;
    for number in 0..2 {
        eventually(ROTATED, "the webhook shows the new certificate", async || {
            let shown = shown_certificate(installed.webhook_port(number), &now.trusted).await?;
            ensure!(shown == leaf, "it shows another one");
            Ok(())
        })
        .await?;
    }
    Ok(now)
}
