//! The issuer on a real API server: exchanges a second beside a constant answer of the same stack, its memory, and a crowd of
//! sidecars that ask at once after a restart.

mod agent;
mod cluster;
mod crowd;
mod exchanges;
mod in_process;
mod rows;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use tokenscope_core::Algorithm;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::install::{self, Installed, install};
use tokenscope_e2e::issuer::authority;
use tokenscope_issuer::keys::algorithm_name;
use tokenscope_xtask::progress::Step;

use self::cluster::Caller;
use self::crowd::Crowd;
use self::exchanges::Servers;
use self::in_process::InProcess;
use self::rows::{Exchanges, Target};
use crate::outcome::{self, Aims, Output, warn_of_debug_build};
use crate::report::{Budget, MemoryUse, budgets_table, memory_rows, row, table};
use crate::setup::Baseline;

/// The issuer of the run. Nobody resolves the name.
const URL: &str = "https://tokens.tokenscope.test/bench";
const STS: &str = "sts.amazonaws.com";
/// The options of a run.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How many pods the cluster has whose admission the issuer remembers
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pods: u32,
    /// How many policies it has
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    policies: u32,
    /// How many of the pods exchange their tokens; a pod may do so 60 times at once, so they bound a round
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(30..=10_000))]
    callers: u32,
    /// How long each server is measured under each load, at most
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How many connections are used at once; one table line each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,32", value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: Vec<u16>,
    /// How many sidecars ask at once after a restart
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    sidecars: u32,
    /// Exit with status 1 if an aim is missed
    #[arg(long)]
    check: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Everything that one run measured.
#[derive(Debug, Serialize)]
struct Report {
    pods: u32,
    policies: u32,
    /// What it was built with.
    build: &'static str,
    exchanges: Vec<Exchanges>,
    memory: Vec<MemoryUse>,
    crowd: Crowd,
    budgets: Vec<Budget>,
}

/// Measures and prints.
pub(crate) fn bench(arguments: &Arguments) -> Result<ExitCode> {
    warn_of_debug_build();
    crowd::allow_open_files()?;
    outcome::report(measure(arguments), arguments.output, arguments.check)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let step = Step::start("starting a real API server and tokenscope", None);
    let (control_plane, installed) = start().await?;
    let constant = Baseline::start(&control_plane).await?;
    step.done("");

    let callers = cluster::fill(&control_plane, arguments).await?;
    let authorities = authority(&control_plane.client().await?).await?;
    let issuer = exchanges::server(installed.issuer(0).1, &authorities)?;
    exchanges::wait_until_known(&issuer, &callers).await?;
    let mut memory = vec![memory_of("with all pods and policies", &installed)?];

    let exchanges = {
        let spire = agent::start().await;
        let servers = Servers {
            issuer: &issuer,
            constant: &constant.server()?,
            in_process: &InProcess::of(&control_plane.client().await?, &callers).await?,
            spire: spire.as_ref(),
        };
        tokio::task::block_in_place(|| exchanges::measure(arguments, &servers, &callers))?
    };
    memory.push(memory_of("after the exchanges", &installed)?);
    let crowd = crowd::measure(arguments, &control_plane, &installed, &authorities, &callers).await?;
    memory.push(memory_of("after the crowd", &installed)?);

    Ok(Report {
        pods: arguments.pods,
        policies: arguments.policies,
        build: if cfg!(debug_assertions) { "debug" } else { "dist" },
        budgets: budgets(&exchanges, &crowd),
        exchanges,
        memory,
        crowd,
    })
}

async fn start() -> Result<(ControlPlane, Installed)> {
    let control_plane = ControlPlane::start(control_plane::Options {
        audit: false,
        ..control_plane::Options::default()
    })
    .await?;
    let algorithms = Algorithm::ALL.map(algorithm_name);
    let options = install::Options {
        values: serde_json::json!({"issuer": {"enabled": true, "url": URL, "keys": {"algorithms": algorithms}}}),
        issuers: 1,
        ..install::Options::default()
    };
    let installed = install(&control_plane, options).await?;
    Ok((control_plane, installed))
}

fn memory_of(when: &'static str, installed: &Installed) -> Result<MemoryUse> {
    let memory = installed.issuer(0).0.memory().context("the issuer runs")?;
    Ok(MemoryUse {
        when,
        resident: memory.resident,
        anonymous: memory.anonymous,
        peak: memory.peak,
    })
}

/// The aims: RS256 against what the cores can sign, the others against a constant answer, and no sidecar without a token.
fn budgets(exchanges: &[Exchanges], crowd: &Crowd) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for line in exchanges.iter().filter(|line| line.target == Target::Issuer) {
        let load = format!(
            "{}, {} connections",
            line.algorithm.unwrap_or_default(),
            line.connections
        );
        if line.algorithm == Some(algorithm_name(Algorithm::RS256)) {
            let what = format!("{load}: of the bare signing rate");
            budgets.push(Budget::at_least(what, line.of_bare_signing.unwrap_or_default(), 0.7));
        } else {
            let what = format!("{load}: of the constant answer's rate");
            budgets.push(Budget::at_least(what, line.ratio, 0.6));
        }
    }
    let what = "sidecars with an error that no retry cures".to_owned();
    budgets.push(Budget::at_most(what, f64::from(crowd.failed), 0.0));
    budgets
}

impl Aims for Report {
    fn budgets(&self) -> &[Budget] {
        &self.budgets
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![row(Exchanges::TITLES)];
        rows.extend(self.exchanges.iter().map(Exchanges::row));
        writeln!(
            f,
            "Exchanges over TLS, HTTP/1.1 with connections kept open ({} build); ratio: of the constant answers a second. What needs no \
             connection runs on as many threads, as far as there are cores\n{}",
            self.build,
            table(&rows, &[0, 1])
        )?;
        writeln!(
            f,
            "Memory of tokenscope-issuer at {} pods and {} policies\n{}",
            self.pods,
            self.policies,
            table(&memory_rows(&self.memory), &[0])
        )?;
        f.write_str(&self.crowd.to_string())?;
        f.write_str(&budgets_table(&self.budgets))
    }
}

/// A deadline for whatever waits on this machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The callers of an algorithm.
fn of(callers: &[Caller], algorithm: Algorithm) -> impl Iterator<Item = &Caller> {
    callers.iter().filter(move |caller| caller.algorithm == algorithm)
}
