//! What the measurements of all sidecars share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokenscope_e2e::process::processor_time_in;

pub(super) const AUDIENCE: &str = "sts.amazonaws.com";

/// What SPIRE may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How often the start is measured.
pub(super) const STARTS: usize = 15;

/// How often a program that ends by itself is started. Processor time is counted in hundredths of a second over all.
const SHORT_STARTS: u32 = 200;

/// What one start of a program costs that ends by itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StartCost {
    /// Milliseconds from its start to its end, the median.
    pub(super) ms: f64,
    /// Microseconds of its processor time.
    pub(super) processor_us: f64,
}

/// Starts a program many times with these arguments and this environment alone.
pub(super) fn start_cost(
    program: &Path,
    arguments: &[&str],
    environment: &BTreeMap<String, String>,
) -> Result<StartCost> {
    let before = processor_time_of_children()?;
    let mut times = Vec::new();
    for _ in 0..SHORT_STARTS {
        let started = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(status.success(), "{arguments:?} ended with {status}");
    }
    let used = processor_time_of_children()?.saturating_sub(before);
    Ok(StartCost {
        ms: median(times),
        processor_us: used.as_secs_f64() * 1e6 / f64::from(SHORT_STARTS),
    })
}

/// Processor time of the processes that this one has started and waited for.
fn processor_time_of_children() -> Result<Duration> {
    processor_time_in(&fs::read_to_string("/proc/self/stat")?, 16)
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Counts how often a process wakes from idleness, until it ends.
pub(super) async fn wake_ups(pid: u32) -> Result<u64> {
    let mut count = 0;
    let (mut last, mut idle) = (waits(pid)?, true);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let Ok(now) = waits(pid) else {
            return Ok(count);
        };
        count += u64::from(now > last && idle);
        (idle, last) = (now == last, now);
    }
}

/// How often the threads of a process have waited for something.
pub(super) fn waits(pid: u32) -> Result<u64> {
    let mut count = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count += line.context("a thread counts its waits")?.trim().parse::<u64>()?;
    }
    Ok(count)
}
