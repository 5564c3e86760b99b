//! The sidecar that serves credentials (`delivery.type: Endpoint`), with the strict stand-in for STS behind it, over plain HTTP, and tokens
//! of SPIRE.

mod around;
mod asks;
mod probe;
mod relay;
mod report;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tokenscope_e2e::eventually;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::spire::Spire;

use self::around::Bench;
pub(super) use self::report::{Served, budgets};
use super::ground::{PATIENCE, STARTS, median, waits, wake_ups};

/// How many connections ask at a time; one line each.
const CONNECTIONS: [usize; 2] = [1, 8];
/// How long the sidecar and the constant are asked with each number of connections.
const ASKING: Duration = Duration::from_secs(6);
/// How long it is watched while nothing is to be done.
const IDLE: Duration = Duration::from_secs(15);
/// The seconds of a session while renewals are counted: there is one every ten seconds then.
const SHORT_LIFE: i64 = 20;

/// Measures the sidecar at this path, for so many renewals.
pub(super) async fn measure(spire: &Spire, program: &Path, renewals: u32) -> Result<Served> {
    let bench = Bench::prepare(spire, program).await?;
    let (start_ms, sts_ms, sts_calls_per_hour) = bench.starts().await?;

    let running = bench.start("served")?;
    bench.first_credentials(&running)?;
    let request = bench.request()?;
    let answers = CONNECTIONS
        .map(|connections| tokio::task::block_in_place(|| asks::measure(bench.address, &request, connections, ASKING)));
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let idle_waits_per_minute = idle_waits(&running).await?;
    let probe = tokio::task::block_in_place(|| probe::measure(&bench.program, &bench.environment))?;
    let after_answers = running.memory()?;
    drop(running);

    let renewed = bench.renewals(renewals).await?;
    Ok(Served {
        size: fs::metadata(&bench.program)?.len(),
        resident: after_answers.resident.max(renewed.resident),
        peak: after_answers.peak,
        answers,
        sts_ms,
        start_ms,
        sts_calls_per_hour,
        idle_waits_per_minute,
        renewals: renewed.count,
        wake_ups: renewed.wake_ups,
        waits: renewed.waits,
        processor_us: renewed.processor_us,
        probe,
    })
}

/// How often the process's threads wait in a minute in which nothing is to be done.
async fn idle_waits(running: &ServerProcess) -> Result<f64> {
    // What belongs to the requests is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = waits(running.pid()?)?;
    tokio::time::sleep(IDLE).await;
    let count = waits(running.pid()?)? - before;
    Ok(count as f64 * 60.0 / IDLE.as_secs_f64())
}

/// The renewals of one process.
struct Renewals {
    count: usize,
    resident: u64,
    wake_ups: f64,
    waits: f64,
    processor_us: f64,
}

impl Bench<'_> {
    /// Starts it many times: milliseconds to the first credentials without STS's own answer, and of that; and the calls of STS in an hour.
    async fn starts(&self) -> Result<(f64, f64, f64)> {
        // Until STS can reach SPIRE's keys.
        let first = self.start("served-first")?;
        self.first_credentials(&first)?;
        drop(first);
        let (mut starts, mut of_sts, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..STARTS {
            let asked_before = self.relay.answers().len();
            let started = Instant::now();
            let running = self.start(&format!("served-start-{number}"))?;
            self.first_credentials(&running)?;
            let elapsed = started.elapsed().as_secs_f64() * 1e3;
            let wait = eventually(PATIENCE, "the time of the renewal is logged", async || {
                renewal(&running)
            })
            .await?;
            let answers = self.relay.answers();
            ensure!(answers.len() == asked_before + 1, "STS was asked more than once");
            let answer = answers.last().map_or(0.0, |answer| answer.as_secs_f64() * 1e3);
            starts.push(elapsed - answer);
            of_sts.push(answer);
            seconds.push(wait);
        }
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        Ok((median(starts), median(of_sts), 3600.0 / mean))
    }

    /// Watches one process through so many renewals of short sessions.
    async fn renewals(&self, wanted: u32) -> Result<Renewals> {
        self.relay.shorten(SHORT_LIFE);
        let running = self.start("served-renewals")?;
        self.first_credentials(&running)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pid = running.pid()?;
        let (waits_before, processor_before) = (waits(pid)?, running.processor_time()?);
        let before = self.relay.answers().len();
        let woken = tokio::spawn(wake_ups(pid));
        let limit = PATIENCE + Duration::from_secs(u64::from(wanted) * 15);
        let count = eventually(limit, "the credentials were renewed", async || {
            let count = self.relay.answers().len() - before;
            ensure!(count >= wanted as usize, "{count} renewals");
            Ok(count)
        })
        .await
        .with_context(|| running.log_tail(10))?;
        // The renewal that was counted last ends, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let of_each = |total: f64| total / count as f64;
        let (waited, used) = (
            waits(pid)? - waits_before,
            running.processor_time()?.saturating_sub(processor_before),
        );
        let resident = running.memory()?.resident;
        drop(running);
        Ok(Renewals {
            count,
            resident,
            wake_ups: of_each(woken.await?? as f64),
            waits: of_each(waited as f64),
            processor_us: of_each(used.as_secs_f64() * 1e6),
        })
    }
}

/// The seconds until the renewal that the process has chosen.
fn renewal(running: &ServerProcess) -> Result<f64> {
    let log = running.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines = lines.filter(|line| line["message"] == "credentials are there");
    let line = lines.next().context("nothing is logged yet")?;
    let time = |field: &str| -> Result<Timestamp> { Ok(line[field].as_str().context("a time is a text")?.parse()?) };
    Ok(time("next")?.duration_since(time("timestamp")?).as_secs_f64())
}
