//! Runs test programs beside each other; `order` says which one is next.
//!
//! Each writes to a file of its own below `target/test-output`, which is shown in one piece when the program has ended.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokenscope_xtask::progress::say;

use super::environment;
use super::order::{Compilation, Optimised, in_order, next};
use super::programs::Program;
use super::report::{Totals, begun_and_not_ended, ended_so_far, failures, totals_of};
use super::selection::Selection;
use crate::run::{Profile, target};

/// The time between two lines about what runs.
const PROGRESS: Duration = Duration::from_secs(30);

/// The time between two looks at what has been compiled.
const LOOK: Duration = Duration::from_millis(500);

/// How long a program may run on without a test that ends. The longest test takes a few minutes where it has the machine for itself, and
/// may have to build the probes of all SDKs before. Every wait within a test has a deadline of its own; this ends what has none.
const STUCK: Duration = Duration::from_secs(45 * 60);

/// The same with `--nightly`, whose longest tests take the best part of an hour.
const STUCK_NIGHTLY: Duration = Duration::from_secs(2 * 60 * 60);

/// A program that runs.
#[derive(Debug)]
struct Running {
    program: Program,
    log: PathBuf,
    /// The number of its process.
    process: u32,
    started: Instant,
    /// The number of tests that had ended at the last look, and the time since which there are no more.
    progressed: (usize, Instant),
    /// Whether it was killed because no test of it ended any more.
    is_stuck: bool,
}

/// A program that has ended: its name, and whether it succeeded.
type Ended = (String, bool);

/// Runs the programs and prints what each has printed. An error is of the runner, not of a test.
pub(super) fn run(
    programs: Vec<Program>,
    selection: &Selection,
    compilation: impl Fn() -> Compilation,
) -> Result<Totals> {
    let began = Instant::now();
    let mut runner = Runner::new(programs, selection)?;
    loop {
        let compilation = compilation();
        if !runner.start_what_may(compilation)? {
            break;
        }
        runner.wait(compilation);
    }
    for line in runner.failed {
        println!("{line}");
    }
    say(&format!(
        "✓ the test programs have ended ({:.1} s)",
        began.elapsed().as_secs_f64()
    ));
    Ok(runner.totals)
}

/// The programs that wait and run, and what has come of the others.
struct Runner<'a> {
    selection: &'a Selection,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    waiting: VecDeque<Program>,
    running: Vec<Running>,
    ends: Sender<Ended>,
    ended: Receiver<Ended>,
    said: Instant,
    totals: Totals,
    failed: Vec<String>,
}

impl<'a> Runner<'a> {
    fn new(programs: Vec<Program>, selection: &'a Selection) -> Result<Self> {
        let folder = target(Profile::Debug)?.with_file_name("test-output");
        fs::create_dir_all(&folder)?;
        let (ends, ended) = channel();
        Ok(Self {
            selection,
            folder,
            environment: environment(selection)?,
            waiting: in_order(programs),
            running: Vec::new(),
            ends,
            ended,
            said: Instant::now(),
            totals: Totals::default(),
            failed: Vec::new(),
        })
    }

    /// Starts every program that may start now. False if none runs and none ever will.
    fn start_what_may(&mut self, compilation: Compilation) -> Result<bool> {
        while let Some(program) = next(
            &mut self.waiting,
            self.running.iter().map(|running| running.program.beside),
            compilation,
        ) {
            let log = self.folder.join(format!("{}.log", program.name.replace('/', "-")));
            let child = start(&program, self.selection, &self.environment, &log)?;
            let (process, now) = (child.id(), Instant::now());
            watch(child, program.name.clone(), self.ends.clone());
            self.running.push(Running {
                program,
                log,
                process,
                started: now,
                progressed: (0, now),
                is_stuck: false,
            });
        }
        if !self.running.is_empty() || compilation.goes_on {
            return Ok(true);
        }
        for program in self.waiting.drain(..) {
            self.totals.failed += 1;
            self.failed.push(format!(
                "  {}: not run, because it needs the optimised programs",
                program.name
            ));
        }
        Ok(false)
    }

    /// Waits until a program has ended, or for a moment.
    fn wait(&mut self, compilation: Compilation) {
        let mut moment = PROGRESS.saturating_sub(self.said.elapsed());
        if compilation.goes_on {
            moment = moment.min(LOOK);
        }
        // It is never disconnected while this holds a sender.
        if let Ok((name, succeeded)) = self.ended.recv_timeout(moment) {
            if let Some(index) = self.running.iter().position(|running| running.program.name == name) {
                let ended = self.running.remove(index);
                self.count(&ended, succeeded);
            }
        } else if self.said.elapsed() >= PROGRESS {
            self.said = Instant::now();
            say(&progress(&self.running, self.waiting.len(), compilation));
            let limit = if self.selection.nightly { STUCK_NIGHTLY } else { STUCK };
            for running in &mut self.running {
                if end_if_stuck(running, limit) {
                    let (name, minutes) = (&running.program.name, limit.as_secs() / 60);
                    say(&format!(
                        "✗ {name} is ended, because no test of it has ended for {minutes} minutes"
                    ));
                }
            }
        }
    }

    fn count(&mut self, ended: &Running, succeeded: bool) {
        let output = read(ended);
        let found = report(ended, &output, succeeded, self.selection);
        if found.failed > 0 {
            let (name, log) = (&ended.program.name, ended.log.display());
            self.failed
                .push(format!("  {name}: {} failed, see {log}", found.failed));
            let tests = failures(&output).into_iter().map(|test| format!("    {test}"));
            self.failed.extend(tests);
            if ended.is_stuck {
                let tests = begun_and_not_ended(&output).join(", ");
                self.failed.push(format!(
                    "    it was ended, because no test of it ended any more; begun and not ended: {tests}"
                ));
            }
        }
        self.totals += found;
    }
}

/// Starts a program as `cargo test` does, but for its outputs, which both go to a file.
fn start(
    program: &Program,
    selection: &Selection,
    environment: &[(&'static str, String)],
    log: &PathBuf,
) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    let (path, arguments) = program.command.split_first().context("a program has a path")?;
    Command::new(path)
        .args(arguments)
        .args(&selection.filter)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        // A message names its place; the frames of the test harness around each would bury it.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("can't run {}", path.display()))
}

/// Kills a program of which no test has ended for so long; answers whether it did. Its servers end with it.
fn end_if_stuck(running: &mut Running, limit: Duration) -> bool {
    let (before, since) = running.progressed;
    let now = ended_so_far(&read(running));
    if now != before {
        running.progressed = (now, Instant::now());
    } else if since.elapsed() > limit && !running.is_stuck {
        running.is_stuck = true;
        // One that has ended by itself meanwhile is no failure.
        let _ = Command::new("kill")
            .args(["-KILL", &running.process.to_string()])
            .status();
        return true;
    }
    false
}

/// Tells when a program has ended.
fn watch(mut child: Child, name: String, ends: Sender<Ended>) {
    std::thread::spawn(move || {
        let succeeded = child.wait().is_ok_and(|status| status.success());
        let _ = ends.send((name, succeeded)); // fails only if the runner has given up
    });
}

/// Prints all that a program has printed, unless the filter left nothing of it to run.
fn report(running: &Running, output: &str, succeeded: bool, selection: &Selection) -> Totals {
    let totals = totals_of(output, succeeded);
    let Totals { passed, failed } = totals;
    if selection.filter.is_some() && passed + failed == 0 {
        return totals;
    }
    let mark = if failed == 0 { "✓" } else { "✗" };
    let seconds = running.started.elapsed().as_secs_f64();
    let name = &running.program.name;
    println!("\n──── {name}\n{}", output.trim());
    println!("{mark} {name}: {passed} passed, {failed} failed ({seconds:.1} s)");
    totals
}

/// What runs, for how long, and how far it is.
fn progress(running: &[Running], waiting: usize, compilation: Compilation) -> String {
    let each = running.iter().map(|running| {
        let seconds = running.started.elapsed().as_secs();
        format!(
            "{} {seconds} s, {} tests ended",
            running.program.name,
            ended_so_far(&read(running))
        )
    });
    let compiled = match compilation {
        Compilation { goes_on: false, .. } => None,
        Compilation {
            optimised: Optimised::Pending,
            ..
        } => Some("programs are being optimised".to_owned()),
        _ => Some("the lints run".to_owned()),
    };
    format!(
        "  running: {}; {waiting} programs wait",
        each.chain(compiled).collect::<Vec<_>>().join("; ")
    )
}

fn read(running: &Running) -> String {
    let bytes = fs::read(&running.log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::rules::Beside;
    use super::*;

    #[test]
    fn a_program_is_killed_once_no_test_of_it_has_ended_for_the_limit() {
        let log = std::env::temp_dir().join(format!("tokenscope-stuck-{}.log", std::process::id()));
        fs::write(&log, "test a ... ok\n").unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let now = Instant::now();
        let mut running = Running {
            program: Program {
                name: "a".to_owned(),
                command: Vec::new(),
                folder: PathBuf::new(),
                beside: Beside::Any,
                needs_optimised: false,
            },
            log: log.clone(),
            process: child.id(),
            started: now,
            progressed: (0, now),
            is_stuck: false,
        };
        assert!(!end_if_stuck(&mut running, Duration::ZERO));
        assert!(!running.is_stuck, "a test has ended since the last look");
        assert!(!end_if_stuck(&mut running, Duration::from_secs(3600)));
        assert!(!running.is_stuck, "the limit isn't reached");
        assert!(child.try_wait().unwrap().is_none());
        assert!(end_if_stuck(&mut running, Duration::ZERO));
        assert!(running.is_stuck);
        assert!(!child.wait().unwrap().success());
        fs::remove_file(log).unwrap();
    }
}
