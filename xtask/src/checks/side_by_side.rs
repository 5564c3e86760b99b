//! Runs test programs, two at a time where they allow it.
//!
//! Each writes to a file of its own below `target/test-output`, which is shown in one piece when the program has ended. Programs
//! that start a cluster begin first, because they mostly wait; those that judge times run at the end, each alone.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokenscope_xtask::progress::say;

use super::environment;
use super::programs::{Beside, Program};
use super::report::{Totals, ended_so_far, totals_of};
use super::selection::Selection;
use crate::run::{Profile, target};

/// How many programs run at once. Each runs its own tests on as many threads as there are processors.
const AT_ONCE: usize = 2;

/// How often it is said what runs.
const PROGRESS: Duration = Duration::from_secs(30);

/// A program that runs.
#[derive(Debug)]
struct Running {
    program: Program,
    log: PathBuf,
    started: Instant,
}

/// A program that has ended: its name, and whether it succeeded.
type Ended = (String, bool);

/// Runs the programs and prints what each has printed. An error is of the runner, not of a test.
pub(super) fn run(programs: Vec<Program>, selection: &Selection) -> Result<Totals> {
    let folder = target(Profile::Debug)?.with_file_name("test-output");
    fs::create_dir_all(&folder)?;
    let environment = environment(selection)?;
    let mut waiting = in_order(programs);
    let mut running: Vec<Running> = Vec::new();
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    let (ends, ended) = channel();
    let began = Instant::now();
    let mut said = Instant::now();
    loop {
        while let Some(program) = next(&mut waiting, running.iter().map(|running| running.program.beside)) {
            let log = folder.join(format!("{}.log", program.name.replace('/', "-")));
            let child = start(&program, selection, &environment, &log)?;
            watch(child, program.name.clone(), ends.clone());
            running.push(Running {
                program,
                log,
                started: Instant::now(),
            });
        }
        if running.is_empty() {
            break;
        }
        match ended.recv_timeout(PROGRESS.saturating_sub(said.elapsed())) {
            Ok((name, succeeded)) => {
                if let Some(index) = running.iter().position(|running| running.program.name == name) {
                    let ended = running.remove(index);
                    let found = report(&ended, succeeded, selection);
                    if found.failed > 0 {
                        failed.push(format!(
                            "  {}: {} failed, see {}",
                            name,
                            found.failed,
                            ended.log.display()
                        ));
                    }
                    totals += found;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                said = Instant::now();
                say(&progress(&running, waiting.len()));
            }
            Err(RecvTimeoutError::Disconnected) => break, // not while this function holds a sender
        }
    }
    for line in failed {
        println!("{line}");
    }
    say(&format!(
        "✓ the test programs have ended ({:.1} s)",
        began.elapsed().as_secs_f64()
    ));
    Ok(totals)
}

/// Clusters first, and what runs alone last; else as they come.
fn in_order(mut programs: Vec<Program>) -> VecDeque<Program> {
    programs.sort_by_key(|program| match program.beside {
        Beside::NoOtherNode => 0,
        Beside::Any => 1,
        Beside::None => 2,
    });
    programs.into()
}

/// Takes the first program that may start beside those that run.
fn next(waiting: &mut VecDeque<Program>, running: impl Iterator<Item = Beside>) -> Option<Program> {
    let running: Vec<Beside> = running.collect();
    if running.len() >= AT_ONCE || running.contains(&Beside::None) {
        return None;
    }
    let may_start = |program: &Program| match program.beside {
        Beside::Any => true,
        Beside::NoOtherNode => !running.contains(&Beside::NoOtherNode),
        Beside::None => running.is_empty(),
    };
    let index = waiting.iter().position(may_start)?;
    waiting.remove(index)
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
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("can't run {}", path.display()))
}

/// Tells when a program has ended.
fn watch(mut child: Child, name: String, ends: Sender<Ended>) {
    std::thread::spawn(move || {
        let succeeded = child.wait().is_ok_and(|status| status.success());
        let _ = ends.send((name, succeeded)); // fails only if the runner has given up
    });
}

/// Prints all that a program has printed, unless the filter left nothing of it to run.
fn report(running: &Running, succeeded: bool, selection: &Selection) -> Totals {
    let output = read(running);
    let totals = totals_of(&output, succeeded);
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
fn progress(running: &[Running], waiting: usize) -> String {
    let each = running.iter().map(|running| {
        let seconds = running.started.elapsed().as_secs();
        format!(
            "{} {seconds} s, {} tests ended",
            running.program.name,
            ended_so_far(&read(running))
        )
    });
    format!(
        "  running: {}; {waiting} programs wait",
        each.collect::<Vec<_>>().join("; ")
    )
}

fn read(running: &Running) -> String {
    let bytes = fs::read(&running.log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, beside: Beside) -> Program {
        Program {
            name: name.to_owned(),
            command: Vec::new(),
            folder: PathBuf::new(),
            beside,
        }
    }

    fn waiting() -> VecDeque<Program> {
        in_order(vec![
            program("hostile", Beside::None),
            program("a", Beside::Any),
            program("cluster", Beside::NoOtherNode),
            program("b", Beside::Any),
            program("lifecycle", Beside::NoOtherNode),
        ])
    }

    /// The names of those that start beside these, one after the other, until none may.
    fn started(waiting: &mut VecDeque<Program>, running: &mut Vec<Beside>) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(program) = next(waiting, running.iter().copied()) {
            running.push(program.beside);
            names.push(program.name);
        }
        names
    }

    #[test]
    fn two_programs_run_at_once_and_never_two_clusters() {
        let (mut waiting, mut running) = (waiting(), Vec::new());
        assert_eq!(started(&mut waiting, &mut running), ["cluster", "a"]);
        running.retain(|beside| *beside != Beside::Any);
        assert_eq!(started(&mut waiting, &mut running), ["b"], "the second cluster waits");
        running.retain(|beside| *beside != Beside::NoOtherNode);
        assert_eq!(started(&mut waiting, &mut running), ["lifecycle"]);
    }

    #[test]
    fn what_judges_times_runs_last_and_alone() {
        let mut waiting = waiting();
        while waiting.len() > 1 {
            assert_ne!(next(&mut waiting, std::iter::empty()).unwrap().beside, Beside::None);
        }
        assert!(
            next(&mut waiting, [Beside::Any].into_iter()).is_none(),
            "not beside another"
        );
        let mut running = Vec::new();
        assert_eq!(started(&mut waiting, &mut running), ["hostile"]);
        let mut others = VecDeque::from([program("a", Beside::Any)]);
        assert!(
            next(&mut others, running.into_iter()).is_none(),
            "and no other beside it"
        );
    }
}
