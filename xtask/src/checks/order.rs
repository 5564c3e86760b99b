//! The order of the test programs, and what may run beside what.
//!
//! Programs that start a cluster begin first, because they are the longest; those that judge times run at the end, each alone. What is
//! compiled beside them counts as one of the two that compute, and programs that need optimised ones wait for these. Programs that mostly
//! wait take no place of one that computes.

use std::collections::VecDeque;

use super::programs::Program;
use super::rules::Beside;

/// The number of programs that compute at once. Each runs its own tests on as many threads as there are processors, and with `--unit` on more.
const COMPUTING_AT_ONCE: usize = 2;

/// The number of programs that mostly wait and run at once, beside those that compute.
const WAITING_AT_ONCE: usize = 2;

/// The optimised programs, or the images that are made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Optimised {
    /// Nobody builds them here: a program that needs some uses what was compiled quickly.
    #[default]
    NotAskedFor,
    /// They are being built.
    Pending,
    /// They are there.
    Built,
    /// They can't be built.
    Failed,
}

/// The programs that are compiled while others run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compilation {
    pub(super) optimised: Optimised,
    /// True until these and what comes after them have ended.
    pub(super) goes_on: bool,
}

impl Compilation {
    /// Nothing is there yet.
    pub(super) const BEGUN: Self = Self {
        optimised: Optimised::Pending,
        goes_on: true,
    };
}

/// Clusters and what mostly waits first, and what runs alone last; else as they come.
pub(super) fn in_order(mut programs: Vec<Program>) -> VecDeque<Program> {
    programs.sort_by_key(|program| match program.beside {
        Beside::NoOtherNode | Beside::AnyWaiting => 0,
        Beside::Any => 1,
        Beside::None => 2,
    });
    programs.into()
}

/// Takes the first program that may start beside those that run. Nothing compiles beside one that judges times.
pub(super) fn next(
    waiting: &mut VecDeque<Program>,
    running: impl Iterator<Item = Beside>,
    compilation: Compilation,
) -> Option<Program> {
    let running: Vec<Beside> = running.collect();
    let Compilation { optimised, goes_on } = compilation;
    if running.contains(&Beside::None) {
        return None;
    }
    let waits = running.iter().filter(|beside| **beside == Beside::AnyWaiting).count();
    let one_more_waits = waits < WAITING_AT_ONCE;
    let one_more_computes = running.len() - waits + usize::from(goes_on) < COMPUTING_AT_ONCE;
    let has_optimised = matches!(optimised, Optimised::Built | Optimised::NotAskedFor);
    let may_start = |program: &Program| {
        (has_optimised || !program.needs_optimised)
            && match program.beside {
                Beside::Any => one_more_computes,
                Beside::NoOtherNode => one_more_computes && !running.contains(&Beside::NoOtherNode),
                Beside::AnyWaiting => one_more_waits,
                Beside::None => running.is_empty() && !goes_on,
            }
    };
    let index = waiting.iter().position(may_start)?;
    waiting.remove(index)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn program(name: &str, beside: Beside) -> Program {
        Program {
            name: name.to_owned(),
            command: Vec::new(),
            folder: PathBuf::new(),
            beside,
            needs_optimised: false,
        }
    }

    fn needing_optimised(name: &str, beside: Beside) -> Program {
        Program {
            needs_optimised: true,
            ..program(name, beside)
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
        started_with(Optimised::Built, waiting, running)
    }

    fn started_with(optimised: Optimised, waiting: &mut VecDeque<Program>, running: &mut Vec<Beside>) -> Vec<String> {
        let goes_on = optimised == Optimised::Pending;
        started_beside(Compilation { optimised, goes_on }, waiting, running)
    }

    fn started_beside(
        compilation: Compilation,
        waiting: &mut VecDeque<Program>,
        running: &mut Vec<Beside>,
    ) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(program) = next(waiting, running.iter().copied(), compilation) {
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
        let built = Compilation {
            optimised: Optimised::Built,
            goes_on: false,
        };
        while waiting.len() > 1 {
            let taken = next(&mut waiting, std::iter::empty(), built).unwrap();
            assert_ne!(taken.beside, Beside::None);
        }
        assert!(
            next(&mut waiting, [Beside::Any].into_iter(), built).is_none(),
            "not beside another"
        );
        let mut running = Vec::new();
        assert_eq!(started(&mut waiting, &mut running), ["hostile"]);
        let mut others = VecDeque::from([program("a", Beside::Any)]);
        assert!(
            next(&mut others, running.into_iter(), built).is_none(),
            "and no other beside it"
        );
    }

    #[test]
    fn two_that_mostly_wait_run_beside_two_that_compute_and_beside_what_is_compiled_but_not_beside_one_that_judges_times()
     {
        let waiting = || {
            in_order(vec![
                program("hostile", Beside::None),
                program("a", Beside::Any),
                program("b", Beside::Any),
                program("c", Beside::Any),
                program("pauses", Beside::AnyWaiting),
                program("deadlines", Beside::AnyWaiting),
                program("expiries", Beside::AnyWaiting),
            ])
        };
        let (mut programs, mut running) = (waiting(), Vec::new());
        assert_eq!(started(&mut programs, &mut running), ["pauses", "deadlines", "a", "b"]);
        running.retain(|beside| *beside == Beside::Any);
        assert_eq!(started(&mut programs, &mut running), ["expiries"]);
        running.clear();
        assert_eq!(started(&mut programs, &mut running), ["c"]);
        running.clear();
        assert_eq!(started(&mut programs, &mut running), ["hostile"]);
        let mut others = VecDeque::from([program("pauses", Beside::AnyWaiting)]);
        assert_eq!(started(&mut others, &mut running), [""; 0]);
        let (mut programs, mut running) = (waiting(), Vec::new());
        assert_eq!(
            started_with(Optimised::Pending, &mut programs, &mut running),
            ["pauses", "deadlines", "a"]
        );
    }

    #[test]
    fn while_programs_are_optimised_one_test_program_runs_and_none_that_needs_them_or_judges_times() {
        let mut waiting = in_order(vec![
            needing_optimised("cluster", Beside::NoOtherNode),
            program("a", Beside::Any),
            program("lifecycle", Beside::NoOtherNode),
            program("times", Beside::None),
            needing_optimised("hostile", Beside::None),
        ]);
        let mut running = Vec::new();
        let begin = |waiting: &mut _, running: &mut _| started_with(Optimised::Pending, waiting, running);
        assert_eq!(begin(&mut waiting, &mut running), ["lifecycle"]);
        running.clear();
        assert_eq!(begin(&mut waiting, &mut running), ["a"]);
        running.clear();
        assert_eq!(
            begin(&mut waiting, &mut running),
            [""; 0],
            "nothing compiles beside one that judges times"
        );
        assert_eq!(started(&mut waiting, &mut running), ["cluster"]);
        running.clear();
        assert_eq!(started(&mut waiting, &mut running), ["times"]);
    }

    #[test]
    fn what_needs_optimised_programs_runs_beside_the_lints_and_what_judges_times_waits_for_these() {
        let mut waiting = in_order(vec![
            needing_optimised("cluster", Beside::NoOtherNode),
            program("a", Beside::Any),
            needing_optimised("hostile", Beside::None),
        ]);
        let linting = Compilation {
            optimised: Optimised::Built,
            goes_on: true,
        };
        let mut running = Vec::new();
        assert_eq!(started_beside(linting, &mut waiting, &mut running), ["cluster"]);
        running.clear();
        assert_eq!(started_beside(linting, &mut waiting, &mut running), ["a"]);
        running.clear();
        assert_eq!(started_beside(linting, &mut waiting, &mut running), [""; 0]);
        assert_eq!(started(&mut waiting, &mut running), ["hostile"]);
    }

    #[test]
    fn without_optimised_programs_what_needs_them_does_not_run_and_where_nobody_builds_them_it_does() {
        let programs = || {
            in_order(vec![
                needing_optimised("hostile", Beside::None),
                program("times", Beside::None),
            ])
        };
        let (mut waiting, mut running) = (programs(), Vec::new());
        assert_eq!(started_with(Optimised::Failed, &mut waiting, &mut running), ["times"]);
        running.clear();
        assert_eq!(started_with(Optimised::Failed, &mut waiting, &mut running), [""; 0]);
        let (mut waiting, mut running) = (programs(), Vec::new());
        assert_eq!(
            started_with(Optimised::NotAskedFor, &mut waiting, &mut running),
            ["hostile"]
        );
    }
}
