//! Pods of hostile shapes: what a review of theirs costs the webhook, and a create the API server. And a hostile namespace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::install::Installed;
use tokenscope_e2e::post;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::shapes::{SHAPES, review};
use tokio::task::JoinSet;

use crate::SHOP;
use crate::load::{self, Connection, TlsServer};
use crate::report::{Hostile, MemoryUse};
use crate::reviews::Recorded;
use crate::via_apiserver::{api_server, namespace_of};

/// How often a create of one shape is measured.
const CREATES: u32 = 3;

/// How long reviews of one shape are sent, and how many at least: processor time is told in hundredths of a second.
const REVIEWS_LAST: Duration = Duration::from_millis(1500);
const FEWEST_REVIEWS: u32 = 3;

/// Some of the shapes take an API server long, with or without us.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long a webhook may take to start.
const READY: Duration = Duration::from_secs(60);

/// What follows from a first list has settled by then.
const SETTLES: Duration = Duration::from_secs(3);

/// The API server's processor time for a create of each shape in a namespace, as things are.
pub(crate) async fn creates(control_plane: &ControlPlane, namespace: &str) -> Result<Vec<Duration>> {
    let server = api_server(control_plane)?;
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let mut times = Vec::new();
    for shape in SHAPES {
        let request = load::post("127.0.0.1", &path, (shape.pod)(namespace, "hostile").as_bytes());
        let before = control_plane.apiserver().processor_time()?;
        for _ in 0..CREATES {
            // A connection each: the API server may close one after a request that it refuses.
            exchange(&mut Connection::open(&server).await?, &request).await?;
        }
        let used = control_plane.apiserver().processor_time()?.saturating_sub(before);
        times.push(used / CREATES);
    }
    Ok(times)
}

/// Each shape, after an honest review. `without` is what creates took before tokenscope was installed.
pub(crate) async fn measure(
    control_plane: &ControlPlane,
    installed: &Installed,
    server: &TlsServer,
    without: &[Duration],
) -> Result<Vec<Hostile>> {
    let honest = Recorded::read(10)?;
    let honest_cost = processor_time(installed, server, honest.body()).await?;
    let per_byte = honest_cost.as_secs_f64() / honest.body().len() as f64;
    let with = creates(control_plane, SHOP).await?;
    let constant = creates(control_plane, &namespace_of("constant")).await?;
    let mut lines = Vec::new();
    for (((shape, without), with), constant) in SHAPES.iter().zip(without).zip(with).zip(constant) {
        let body = review(SHOP, &(shape.pod)(SHOP, "hostile"));
        let peak = peak_of_the_first(installed, server, honest.body(), body.as_bytes()).await?;
        let used = processor_time(installed, server, body.as_bytes()).await?;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        lines.push(Hostile {
            shape: shape.name,
            review_bytes: body.len(),
            processor_us: microseconds(used),
            processor_ratio: used.as_secs_f64() / (per_byte * body.len() as f64),
            peak,
            peak_ratio: peak as f64 / body.len() as f64,
            without_us: microseconds(*without),
            constant_us: microseconds(constant),
            apiserver_us: microseconds(with),
            apiserver_ratio: with.as_secs_f64() / without.as_secs_f64(),
        });
    }
    Ok(lines)
}

/// The memory that a webhook takes when it starts, without and with a namespace beside whose ServiceAccounts have long
/// annotations.
pub(crate) async fn memory_beside_a_crowd(
    control_plane: &ControlPlane,
    installed: &Installed,
) -> Result<[MemoryUse; 2]> {
    const WORKERS: usize = 8;
    const EACH: usize = 25;
    let before = start(installed, "after a start").await?;
    control_plane.create_namespace("crowd", &[]).await?;
    let client = control_plane.client().await?;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let client = client.clone();
        workers.spawn(async move {
            for number in 0..EACH {
                let annotations = json!({"tokenscope.io/audience": "a".repeat(250_000)});
                let account =
                    json!({"metadata": {"name": format!("large-{worker}-{number}"), "annotations": annotations}});
                post(&client, "/api/v1/namespaces/crowd/serviceaccounts", &account).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let after = start(installed, "after a start beside 50 MB of annotations").await?;
    Ok([before, after])
}

async fn start(installed: &Installed, when: &'static str) -> Result<MemoryUse> {
    let webhook = installed.webhook(0);
    webhook.restart()?;
    webhook.wait_ready(READY).await?;
    tokio::time::sleep(SETTLES).await;
    let memory = webhook.memory()?;
    Ok(MemoryUse {
        when,
        resident: memory.resident,
        anonymous: memory.anonymous,
        peak: memory.peak,
    })
}

/// A fresh process has nothing left over from other reviews, and an honest one has warmed it.
async fn peak_of_the_first(installed: &Installed, server: &TlsServer, honest: &[u8], body: &[u8]) -> Result<u64> {
    let webhook = installed.webhook(0);
    webhook.restart()?;
    webhook.wait_ready(READY).await?;
    let mut connection = Connection::open(server).await?;
    exchange(&mut connection, &request(server, honest)).await?;
    forget_peak(webhook)?;
    let before = webhook.memory()?.resident;
    exchange(&mut connection, &request(server, body)).await?;
    Ok(webhook.memory()?.peak.saturating_sub(before))
}

async fn processor_time(installed: &Installed, server: &TlsServer, body: &[u8]) -> Result<Duration> {
    let webhook = installed.webhook(0);
    let request = request(server, body);
    let mut connection = Connection::open(server).await?;
    exchange(&mut connection, &request).await?;
    let (started, before) = (Instant::now(), webhook.processor_time()?);
    let mut reviews = 0;
    while reviews < FEWEST_REVIEWS || started.elapsed() < REVIEWS_LAST {
        exchange(&mut connection, &request).await?;
        reviews += 1;
    }
    Ok(webhook.processor_time()?.saturating_sub(before) / reviews)
}

fn request(server: &TlsServer, body: &[u8]) -> std::sync::Arc<[u8]> {
    load::post(&server.address.to_string(), "/mutate?timeout=2s", body)
}

/// Whatever the answer is: it was paid for.
async fn exchange(connection: &mut Connection, request: &[u8]) -> Result<u16> {
    let answer = tokio::time::timeout(DEADLINE, connection.exchange(request)).await;
    let (status, _) = answer.context("a hostile request is not answered")??;
    Ok(status)
}

fn forget_peak(process: &ServerProcess) -> Result<()> {
    std::fs::write(format!("/proc/{}/clear_refs", process.pid()?), "5")
        .context("can't reset the peak of resident memory")
}
