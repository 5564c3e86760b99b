//! The sidecar beside a real SPIRE: its size, what it takes of memory and processor, and how soon it has its first token.
//! With spiffe-helper beside it in the same run, for the same tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokenscope_sidecar::workload_api::{Client, DEADLINE};
use tokenscope_tests::eventually;
use tokenscope_tests::process::{Process, Start};
use tokenscope_tests::sidecar::{FILE, Reader};
use tokenscope_tests::spire::{Options, Spire};
use tokenscope_xtask::images;
use tokenscope_xtask::progress::{Step, say};
use tokio::task::JoinHandle;

use crate::Output;
use crate::report::Budget;

const AUDIENCE: &str = "sts.amazonaws.com";

/// What SPIRE may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the start is measured.
const STARTS: usize = 15;

/// What can be varied.
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

    // Turns, so that whatever else the machine does falls on all of them.
    let step = Step::start("starting each many times", None);
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
    let agent_ms = median(answers);
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

    let mut budgets = Vec::new();
    if let Some(ours) = measured.first() {
        budgets.push(Budget::at_most(
            "MB of the program".to_owned(),
            ours.size as f64 / 1e6,
            2.0,
        ));
        budgets.push(Budget::at_most(
            "MiB resident after the refreshes".to_owned(),
            ours.resident as f64 / f64::from(1 << 20),
            3.0,
        ));
        budgets.push(Budget::at_most(
            "wake-ups for each refresh".to_owned(),
            ours.wake_ups,
            1.5, // the keys are followed, too, and change by themselves now and then
        ));
        budgets.push(Budget::at_most(
            "ms from start to token beyond the agent's answer".to_owned(),
            ours.start_ms,
            50.0,
        ));
        budgets.push(Budget::at_most(
            "torn and expired reads".to_owned(),
            (ours.torn + ours.expired) as f64,
            0.0,
        ));
    }
    Ok(Report {
        life: arguments.life,
        agent_ms,
        contestants: measured,
        budgets,
    })
}

/// A program and how it is configured.
struct Contestant {
    name: &'static str,
    program: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    once: Vec<String>,
    always: Vec<String>,
}

impl Contestant {
    fn sidecar(spire: &Spire, program: &Path) -> Result<Self> {
        let directory = spire.folder().join("bench-sidecar");
        fs::create_dir(&directory)?;
        let variables = [
            ("TOKENSCOPE_DIRECTORY", directory.display().to_string()),
            ("TOKENSCOPE_JWT_SVIDS", format!("{FILE}={AUDIENCE}")),
            ("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", spire.socket().display())),
        ];
        Ok(Self {
            name: "tokenscope",
            program: program.to_owned(),
            directory,
            environment: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            once: vec!["--once".to_owned()],
            always: Vec::new(),
        })
    }

    fn spiffe_helper(spire: &Spire, program: &Path) -> Result<Self> {
        let directory = spire.folder().join("bench-helper");
        fs::create_dir(&directory)?;
        let config = spire.folder().join("helper.conf");
        let text = format!(
            "agent_address = \"{}\"\ncert_dir = \"{}\"\n\
             jwt_svids = [{{jwt_audience = \"{AUDIENCE}\", jwt_svid_file_name = \"{FILE}\"}}]\n",
            spire.socket().display(),
            directory.display()
        );
        fs::write(&config, text)?;
        let always = vec!["-config".to_owned(), config.display().to_string()];
        let once = [&always[..], &["-daemon-mode=false".to_owned()]].concat();
        Ok(Self {
            name: "spiffe-helper",
            program: fs::canonicalize(program).with_context(|| format!("no {}", program.display()))?,
            directory,
            environment: BTreeMap::new(),
            once,
            always,
        })
    }

    /// Milliseconds from its start until it has written one token and ended.
    fn start_once(&self) -> Result<f64> {
        let file = self.directory.join(FILE);
        let _ = fs::remove_file(&file);
        let started = Instant::now();
        let status = tokio::task::block_in_place(|| {
            Command::new(&self.program)
                .args(&self.once)
                .env_clear()
                .envs(&self.environment)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        })?;
        let elapsed = started.elapsed();
        ensure!(status.success() && file.exists(), "{} ended with {status}", self.name);
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// Starts it, and a workload that reads its file.
    async fn keep(&self, spire: &Spire) -> Result<Running> {
        let file = self.directory.join(FILE);
        let process = Process::start(
            Start {
                name: self.name.to_owned(),
                program: self.program.clone(),
                arguments: self.always.clone(),
                environment: self.environment.clone(),
                logs: spire.folder().join("logs"),
                observe_port: None,
            },
            spire.watchdog(),
        )?;
        let _ = fs::remove_file(&file);
        eventually(PATIENCE, "there is a token", async || Ok(fs::metadata(&file)?))
            .await
            .with_context(|| process.log_tail(10))?;
        // What belongs to the start is over.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let waits = waits(process.pid()?)?;
        let pid = process.pid()?;
        Ok(Running {
            waits,
            wake_ups: tokio::spawn(wake_ups(pid)),
            processor: process.processor_time()?,
            reader: Reader::start(file),
            process,
        })
    }
}

/// A program that keeps a token.
struct Running {
    process: Process,
    reader: Reader,
    waits: u64,
    wake_ups: JoinHandle<Result<u64>>,
    processor: Duration,
}

impl Running {
    /// Waits for the refreshes.
    async fn until(self, contestant: &Contestant, arguments: &Arguments, start_ms: f64) -> Result<Measured> {
        let wanted = u64::from(arguments.refreshes);
        let limit = PATIENCE + Duration::from_secs(u64::from(arguments.refreshes * arguments.life));
        eventually(
            limit,
            format!("{} has renewed its token", contestant.name),
            async || {
                let tokens = self.reader.tokens();
                ensure!(tokens > wanted, "{tokens} tokens");
                Ok(())
            },
        )
        .await
        .with_context(|| self.process.log_tail(10))?;
        let memory = self.process.memory()?;
        let waits = waits(self.process.pid()?)? - self.waits;
        let processor = self.process.processor_time()?.saturating_sub(self.processor);
        let seen = self.reader.stop()?;
        drop(self.process);
        let wake_ups = self.wake_ups.await??;
        let refreshes = seen.tokens.saturating_sub(1).max(1); // the first one was there
        Ok(Measured {
            name: contestant.name,
            size: fs::metadata(&contestant.program)?.len(),
            resident: memory.resident,
            peak: memory.peak,
            refreshes,
            wake_ups: wake_ups as f64 / refreshes as f64,
            waits: waits as f64 / refreshes as f64,
            processor_us: processor.as_secs_f64() * 1e6 / refreshes as f64,
            start_ms,
            torn: seen.torn,
            expired: seen.expired,
        })
    }
}

/// Counts how often a process wakes from idleness, until it ends.
async fn wake_ups(pid: u32) -> Result<u64> {
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
fn waits(pid: u32) -> Result<u64> {
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
