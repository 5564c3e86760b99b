//! The sidecar's own code, thousands of times at once, against an issuer that has just been restarted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokenscope_core::Audience;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::install::Installed;
use tokenscope_sidecar::exchange::{self, DEADLINE, Exchanger, IssuerSettings};
use tokenscope_sidecar::retry::{self, Kind};
use tokenscope_xtask::progress::Step;
use tokio::task::JoinSet;

use super::cluster::Caller;
use super::{Arguments, PATIENCE, STS};

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Crowd {
    sidecars: u32,
    /// Those with an error that no retry cures, or without a token in the end.
    pub(super) failed: u32,
    /// Of the sidecars, those that have their token.
    ratio: f64,
    /// Failures after which they asked again.
    retries: u32,
    /// Seconds from the restart until half of them had their token.
    p50_s: f64,
    /// The same for 99 of 100.
    p99_s: f64,
    /// The same for the last.
    last_s: f64,
    /// One of the errors that no retry cures.
    error: Option<String>,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sidecars at once after a restart: {} failed, {} retries, half had a token after {:.1} s, 99 % after {:.1} s, all after {:.1} s",
            self.sidecars, self.failed, self.retries, self.p50_s, self.p99_s, self.last_s
        )?;
        self.error.iter().try_for_each(|error| writeln!(f, "  {error}"))
    }
}

/// Each sidecar has a connection of its own, and so has the issuer.
pub(super) fn allow_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("can't raise the limit of open files")
}

/// Restarts the issuer and lets all of them ask.
pub(super) async fn measure(
    arguments: &Arguments,
    control_plane: &ControlPlane,
    installed: &Installed,
    authorities: &str,
    callers: &[Caller],
) -> Result<Crowd> {
    let step = Step::start(&format!("{} sidecars ask at once", arguments.sidecars), None);
    let files = subject_files(control_plane.folder(), callers)?;
    let (process, port) = installed.issuer(0);
    let trusted = exchange::authorities(authorities).map_err(anyhow::Error::msg)?;
    process.kill()?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..arguments.sidecars as usize {
        let settings = IssuerSettings {
            endpoint: format!("https://127.0.0.1:{port}").parse()?,
            authorities: Arc::clone(&trusted),
            subject_token: files[number % files.len()].clone(),
            lifetime: None,
        };
        tasks.spawn(until_token(Exchanger::new(settings, DEADLINE), number, started));
    }
    process.restart()?;
    let mut times = Vec::new();
    let (mut retries, mut error) = (0, None);
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok((tries, took)) => {
                retries += tries;
                times.push(took.as_secs_f64());
            }
            Err(reason) => error = Some(format!("{reason:#}")),
        }
    }
    step.done("");
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let second = |percent| at(percent).copied().unwrap_or(f64::NAN);
    Ok(Crowd {
        sidecars: arguments.sidecars,
        failed: arguments.sidecars - u32::try_from(times.len())?,
        ratio: times.len() as f64 / f64::from(arguments.sidecars),
        retries,
        p50_s: second(50),
        p99_s: second(99),
        last_s: second(100),
        error,
    })
}

/// Asks as the sidecar does until there is a token: the number of failures before it, and when it came.
async fn until_token(exchanger: Exchanger, number: usize, started: Instant) -> Result<(u32, Duration)> {
    let audience: Audience = STS.parse()?;
    let mut failures = 0;
    loop {
        let Err(error) = exchanger.token(&audience).await else {
            return Ok((failures, started.elapsed()));
        };
        anyhow::ensure!(error.kind() == Kind::Passing, "no retry cures it: {error}");
        anyhow::ensure!(started.elapsed() < PATIENCE, "still without a token: {error}");
        failures += 1;
        let chosen = retry::wait(error.kind(), failures, None, draw(number, failures));
        tokio::time::sleep(retry::after(error.retry_after(), chosen)).await;
    }
}

/// From 0 to 1, another for each try of each sidecar.
fn draw(number: usize, failures: u32) -> f64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ u64::from(failures).wrapping_mul(0xD1B5_4A32_D192_ED03);
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The pods' own tokens as files, as the kubelet brings them.
fn subject_files(folder: &Path, callers: &[Caller]) -> Result<Vec<PathBuf>> {
    let folder = folder.join("subjects");
    std::fs::create_dir_all(&folder)?;
    let write = |(number, caller): (usize, &Caller)| {
        let path = folder.join(number.to_string());
        std::fs::write(&path, &caller.subject)?;
        Ok(path)
    };
    callers.iter().enumerate().map(write).collect()
}
