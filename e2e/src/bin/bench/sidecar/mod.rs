//! The sidecar beside a real SPIRE: its size, what it takes of memory and processor, and how soon it has its first token.
//! With spiffe-helper beside it in the same run, for the same tokens.

mod contestant;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokenscope_e2e::eventually;
use tokenscope_e2e::spire::{Options, Spire};
use tokenscope_sidecar::workload_api::{Client, DEADLINE};
use tokenscope_xtask::images;
use tokenscope_xtask::progress::{Step, say};

use self::contestant::Contestant;
use crate::Output;
use crate::report::Budget;

const AUDIENCE: &str = "sts.amazonaws.com";

/// What SPIRE may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the start is measured.
const STARTS: usize = 15;

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
    /// End with a failure if an aim is missed
    #[arg(long)]
    check: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Everything that one run measured.
#[derive(Debug, Serialize)]
struct Report {
    /// Seconds that a token is valid.
    life: u32,
    /// Milliseconds of the agent's own answer, the median.
    agent_ms: f64,
    contestants: Vec<Measured>,
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
    let sidecar = match &arguments.sidecar {
        Some(path) => path.clone(),
        None => images::compile("tokenscope-sidecar", images::RELEASE_PROFILE)?.0,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments, &sidecar))?;
    match arguments.output {
        Output::Table => print(&report),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let failed = arguments.check && report.budgets.iter().any(|budget| !budget.pass);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(arguments: &Arguments, sidecar: &Path) -> Result<Report> {
    let step = Step::start("starting SPIRE", None);
    let spire = Spire::start(Options::default()).await?;
    spire.register("bench", "", arguments.life)?;
    let client = Client::new(spire.socket(), DEADLINE);
    eventually(PATIENCE, "the agent knows the entry", async || {
        Ok(client.jwt_svids(AUDIENCE, "").await?)
    })
    .await?;
    step.done("");

    let mut contestants = vec![Contestant::sidecar(&spire, sidecar)?];
    if let Some(program) = &arguments.spiffe_helper {
        contestants.push(Contestant::spiffe_helper(&spire, program)?);
    }

    let step = Step::start("starting each many times", None);
    let (agent_ms, starts) = measure_starts(&spire, &contestants).await?;
    step.done("");

    let step = Step::start(
        &format!("{} refreshes of {} s tokens", arguments.refreshes, arguments.life),
        Some(&format!("about {} s", arguments.refreshes * arguments.life * 6 / 10)),
    );
    let mut running = Vec::new();
    for contestant in &contestants {
        running.push(contestant.keep(&spire).await?);
    }
    let mut measured = Vec::new();
    for ((contestant, running), times) in contestants.iter().zip(running).zip(starts) {
        measured.push(running.until(contestant, arguments, median(times) - agent_ms).await?);
    }
    step.done("");

    Ok(Report {
        life: arguments.life,
        agent_ms,
        budgets: measured.first().map(budgets).unwrap_or_default(),
        contestants: measured,
    })
}

/// Milliseconds: the agent's own answer, the median, and those of each contestant's starts. They take turns, so that whatever
/// else the machine does falls on all of them.
async fn measure_starts(spire: &Spire, contestants: &[Contestant]) -> Result<(f64, Vec<Vec<f64>>)> {
    let mut answers = Vec::new();
    let mut starts: Vec<Vec<f64>> = contestants.iter().map(|_| Vec::new()).collect();
    for _ in 0..STARTS {
        // With a connection of its own, as a program that has just started.
        let client = Client::new(spire.socket(), DEADLINE);
        let asked = Instant::now();
        client.jwt_svids(AUDIENCE, "").await?;
        answers.push(asked.elapsed().as_secs_f64() * 1e3);
        for (contestant, times) in contestants.iter().zip(&mut starts) {
            times.push(contestant.start_once()?);
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
            ours.resident as f64 / f64::from(1 << 20),
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(report: &Report) {
    println!(
        "\nBeside a real SPIRE with tokens of {} s; the agent itself answers in {:.1} ms.\n",
        report.life, report.agent_ms
    );
    println!(
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
    );
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for one in &report.contestants {
        println!(
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
        );
    }
    println!(
        "\nSTART: from the program's start to its end with one token, without the agent's own answer; the median."
    );
    println!("TORN: what a workload found that opened the file all the time: absent, empty or half a token.\n");
    for budget in &report.budgets {
        let mark = if budget.pass { "✓" } else { "✗" };
        println!(
            "{mark} {}: {:.2}, aim at most {}",
            budget.what, budget.measured, budget.limit
        );
    }
    if report.budgets.iter().any(|budget| !budget.pass) {
        say("not every aim is reached");
    }
}
