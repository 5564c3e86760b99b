//! SPIRE's agent under the same load: JWT-SVIDs for an audience that it remembers a token for, and for new ones.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokenscope_e2e::eventually;
use tokenscope_e2e::spire::{Options, Spire};
use tokenscope_sidecar::workload_api::{Client, DEADLINE};
use tokenscope_xtask::progress::{Step, say};
use tokio::task::JoinSet;

use super::rows::Round;
use super::{PATIENCE, STS};
use crate::load::nanoseconds;

/// Starts SPIRE with an entry for this process, where it runs at all.
pub(super) async fn start() -> Option<Spire> {
    let step = Step::start("starting SPIRE", None);
    match try_start().await {
        Ok(spire) => {
            step.done("");
            Some(spire)
        }
        Err(error) => {
            say(&format!("  SPIRE is left out: {error:#}"));
            None
        }
    }
}

async fn try_start() -> Result<Spire> {
    let spire = Spire::start(Options {
        limits: false,
        ..Options::default()
    })
    .await?;
    spire.register("ns/shop/sa/orders", "", 3600)?;
    let client = Client::new(spire.socket(), DEADLINE);
    eventually(PATIENCE, "the agent knows the entry", async || {
        let svids = client.jwt_svids(STS, "").await.context("no JWT-SVID")?;
        ensure!(!svids.is_empty());
        Ok(())
    })
    .await?;
    Ok(spire)
}

/// Asks on each of some connections until the time is over.
pub(super) async fn ask(socket: &Path, connections: u16, signed: bool, length: Duration) -> Result<Round> {
    static AUDIENCES: AtomicUsize = AtomicUsize::new(0);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = Client::new(socket.to_owned(), DEADLINE);
        client.jwt_svids(STS, "").await?;
        clients.push(client);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < length {
                let number = AUDIENCES.fetch_add(1, Ordering::Relaxed);
                let audience = if signed {
                    format!("audience-{number}")
                } else {
                    STS.to_owned()
                };
                let sent = Instant::now();
                let svids = client.jwt_svids(&audience, "").await?;
                latencies.push(nanoseconds(sent.elapsed()));
                ensure!(!svids.is_empty(), "an answer without a token");
            }
            anyhow::Ok(latencies)
        });
    }
    Round::of(tasks, started).await
}
