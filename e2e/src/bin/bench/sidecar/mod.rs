//! The sidecar beside a real SPIRE: its size, what it takes of memory and processor, and how soon it has its first token.
//! With spiffe-helper beside it in the same run, for the same tokens. And the sidecar that serves credentials,
//! asked with requests as SDKs send them. And the init container of config files.

mod config_file;
mod ground;
mod served;
mod target;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{fmt, fs};

use anyhow::Result;
use serde::Serialize;
use tokenscope_e2e::eventually;
use tokenscope_e2e::spire::{Options, Spire};
use tokenscope_sidecar::workload_api::{Client, DEADLINE};
use tokenscope_xtask::images;
use tokenscope_xtask::progress::Step;

use self::config_file::ConfigFileCost;
use self::ground::{AUDIENCE, PATIENCE, STARTS, mebibytes, median};
use self::served::Served;
use self::target::Target;
use crate::outcome::{self, Aims, Output};
use crate::report::Budget;

/// The options of a run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many times each token is renewed; an hour of 5-minute tokens has about 22
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=1000))]
    refreshes: u32,
    /// How long a token is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(6..=3600))]
    life: u32,
    /// A spiffe-helper to measure too
    #[arg(long, value_name = "PATH")]
    spiffe_helper: Option<PathBuf>,
    /// The sidecar to measure [default: built as its image carries it]
    #[arg(long, value_name = "PATH")]
    sidecar: Option<PathBuf>,
    /// The sidecar that serves credentials [default: built as its image carries it]
    #[arg(long, value_name = "PATH")]
    endpoint_sidecar: Option<PathBuf>,
    /// How many times served credentials are renewed, one in ten seconds
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=1000))]
    renewals: u32,
    /// Measure one of the two alone
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// End with a failure if an aim is missed
    #[arg(long)]
    check: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The sidecar that keeps tokens of SPIFFE, whose program writes config files too
    Spiffe,
    /// The sidecar that serves credentials
    Endpoint,
}

/// Everything that one run measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Seconds that a token is valid.
    life: u32,
    /// Milliseconds of the agent's own answer, the median.
    agent_ms: f64,
    targets: Vec<Measured>,
    config_file: Option<ConfigFileCost>,
    endpoint: Option<Served>,
    budgets: Vec<Budget>,
}

/// One program.
#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    /// Bytes of the program.
    size: u64,
    /// Bytes resident after the last refresh.
    resident: u64,
    /// The most that was resident, in bytes.
    peak: u64,
    /// How many times the token was renewed.
    refreshes: u64,
    /// How often it woke from idleness, for each refresh; what follows within some 50 ms is the same.
    wake_ups: f64,
    /// How often its threads waited for something, for each refresh: also for the agent's answer, and for the disk.
    waits: f64,
    /// Microseconds of processor time for each refresh, to 10 ms in the whole run.
    processor_us: f64,
    /// Milliseconds from its start to the token's file, without the agent's own answer; the median.
    start_ms: f64,
    /// Reads of an absent, empty or torn file by a workload that read all the time.
    torn: u64,
    /// Reads of an expired token.
    expired: u64,
}

/// Measures and prints.
pub(crate) fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let endpoint = program(
        arguments,
        Part::Endpoint,
        arguments.endpoint_sidecar.as_ref(),
        "tokenscope-sidecar-endpoint",
    )?;
    let spiffe = program(
        arguments,
        Part::Spiffe,
        arguments.sidecar.as_ref(),
        "tokenscope-sidecar",
    )?;
    let measuring = measure(arguments, spiffe.as_deref(), endpoint.as_deref());
    outcome::report(measuring, arguments.output, arguments.check)
}

/// The program of a part that is measured: the given one, else a copy of what is built, since images have programs of one name.
fn program(arguments: &Arguments, part: Part, given: Option<&PathBuf>, image: &str) -> Result<Option<PathBuf>> {
    if arguments.only.is_some_and(|only| only != part) {
        return Ok(None);
    }
    if let Some(path) = given {
        return Ok(Some(path.clone()));
    }
    let built = images::compile(image, images::RELEASE_PROFILE)?.0;
    let copy = built.with_file_name(format!("bench-{image}"));
    fs::copy(built, &copy)?;
    Ok(Some(copy))
}

async fn measure(arguments: &Arguments, spiffe: Option<&Path>, endpoint: Option<&Path>) -> Result<Report> {
    let step = Step::start("starting SPIRE", None);
    let spire = Spire::start(Options::default()).await?;
    step.done("");
    let mut report = Report {
        life: arguments.life,
        ..Report::default()
    };
    if let Some(program) = endpoint {
        let seconds = arguments.renewals * 10 + 60;
        let step = Step::start("serving credentials", Some(&format!("about {seconds} s")));
        let served = served::measure(&spire, program, arguments.renewals).await?;
        step.done("");
        report.budgets.extend(served::budgets(&served));
        report.endpoint = Some(served);
    }
    if let Some(program) = spiffe {
        // In memory, as in a pod.
        let folder = Path::new("/dev/shm").join(format!("tokenscope-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let cost = tokio::task::block_in_place(|| config_file::measure(program, &folder));
        fs::remove_dir_all(&folder)?;
        let cost = cost?;
        report.budgets.push(cost.budget());
        report.config_file = Some(cost);
        (report.agent_ms, report.targets) = measure_spiffe(&spire, arguments, program).await?;
        report
            .budgets
            .extend(report.targets.first().map(budgets).unwrap_or_default());
    }
    Ok(report)
}

/// Milliseconds of the agent's own answer, the median, and what the programs take that keep its tokens.
async fn measure_spiffe(spire: &Spire, arguments: &Arguments, sidecar: &Path) -> Result<(f64, Vec<Measured>)> {
    spire.register("bench", "", arguments.life)?;
    let client = Client::new(spire.socket(), DEADLINE);
    eventually(PATIENCE, "the agent knows the entry", async || {
        Ok(client.jwt_svids(AUDIENCE, "").await?)
    })
    .await?;

    let mut targets = vec![Target::sidecar(spire, sidecar)?];
    if let Some(program) = &arguments.spiffe_helper {
        targets.push(Target::spiffe_helper(spire, program)?);
    }

    let step = Step::start("starting each many times", None);
    let (agent_ms, starts) = measure_starts(spire, &targets).await?;
    step.done("");

    let step = Step::start(
        &format!("{} refreshes of {} s tokens", arguments.refreshes, arguments.life),
        Some(&format!("about {} s", arguments.refreshes * arguments.life * 6 / 10)),
    );
    let mut running = Vec::new();
    for target in &targets {
        running.push(target.keep(spire).await?);
    }
    let mut measured = Vec::new();
    for ((target, running), times) in targets.iter().zip(running).zip(starts) {
        measured.push(running.until(target, arguments, median(times) - agent_ms).await?);
    }
    step.done("");
    Ok((agent_ms, measured))
}

/// Milliseconds: the agent's own answer, the median, and those of each target's starts. They take turns, so that whatever
/// else the machine does falls on all of them.
async fn measure_starts(spire: &Spire, targets: &[Target]) -> Result<(f64, Vec<Vec<f64>>)> {
    let mut answers = Vec::new();
    let mut starts: Vec<Vec<f64>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..STARTS {
        // With a connection of its own, as a program that has just started.
        let client = Client::new(spire.socket(), DEADLINE);
        let asked = Instant::now();
        client.jwt_svids(AUDIENCE, "").await?;
        answers.push(asked.elapsed().as_secs_f64() * 1e3);
        for (target, times) in targets.iter().zip(&mut starts) {
            times.push(target.start_once()?);
        }
    }
    Ok((median(answers), starts))
}

/// The sidecar's aims.
fn budgets(ours: &Measured) -> Vec<Budget> {
    vec![
        Budget::at_most("MB of the program".to_owned(), ours.size as f64 / 1e6, 2.0),
        Budget::at_most(
            "MiB resident after the refreshes".to_owned(),
            mebibytes(ours.resident),
            3.0,
        ),
        Budget::at_most(
            "wake-ups for each refresh".to_owned(),
            ours.wake_ups,
            1.5, // the keys are followed, too, and change by themselves now and then
        ),
        Budget::at_most(
            "ms from start to token beyond the agent's answer".to_owned(),
            ours.start_ms,
            50.0,
        ),
        Budget::at_most(
            "torn and expired reads".to_owned(),
            (ours.torn + ours.expired) as f64,
            0.0,
        ),
    ]
}

impl Aims for Report {
    fn budgets(&self) -> &[Budget] {
        &self.budgets
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            endpoint.fmt(f)?;
        }
        if let Some(cost) = &self.config_file {
            cost.fmt(f)?;
        }
        if !self.targets.is_empty() {
            self.write_targets(f)?;
        }
        for budget in &self.budgets {
            let mark = if budget.pass { "✓" } else { "✗" };
            writeln!(
                f,
                "{mark} {}: {:.2}, aim at most {}",
                budget.what, budget.measured, budget.limit
            )?;
        }
        if self.budgets.iter().any(|budget| !budget.pass) {
            writeln!(f, "not every aim is reached")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_targets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Beside a real SPIRE with tokens of {} s; the agent itself answers in {:.1} ms.\n",
            self.life, self.agent_ms
        )?;
        writeln!(
            f,
            "{:<14} {:>8} {:>9} {:>9} {:>10} {:>13} {:>10} {:>12} {:>10} {:>7} {:>8}",
            "PROGRAM",
            "SIZE MB",
            "RSS MiB",
            "PEAK MiB",
            "REFRESHES",
            "WAKE-UPS EACH",
            "WAITS EACH",
            "CPU µs EACH",
            "START ms",
            "TORN",
            "EXPIRED"
        )?;
        for one in &self.targets {
            writeln!(
                f,
                "{:<14} {:>8.2} {:>9.2} {:>9.2} {:>10} {:>13.1} {:>10.1} {:>12.0} {:>10.1} {:>7} {:>8}",
                one.name,
                one.size as f64 / 1e6,
                mebibytes(one.resident),
                mebibytes(one.peak),
                one.refreshes,
                one.wake_ups,
                one.waits,
                one.processor_us,
                one.start_ms,
                one.torn,
                one.expired
            )?;
        }
        writeln!(
            f,
            "\nSTART: from the program's start to its end with one token, without the agent's own answer; the median."
        )?;
        writeln!(
            f,
            "TORN: what a workload found that opened the file all the time: absent, empty or half a token.\n"
        )
    }
}
