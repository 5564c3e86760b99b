//! The numbers in what test programs print about their tests.

use std::ops::AddAssign;

/// The numbers of tests that passed and failed. A static check counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The totals of a program that has ended: what its summaries say, and one failure where they say nothing of how it ended.
pub(super) fn totals_of(output: &str, succeeded: bool) -> Totals {
    let mut totals = Totals::default();
    let mut summaries = 0;
    for summary in output.lines().filter_map(summary) {
        totals += summary;
        summaries += 1;
    }
    // It didn't compile, or ended before its summary.
    if totals.failed == 0 && (!succeeded || summaries == 0) {
        totals.failed = 1;
    }
    totals
}

/// The number of tests that have ended of a program that still runs.
pub(super) fn ended_so_far(output: &str) -> usize {
    let ends = |line: &&str| line.ends_with(" ... ok") || line.ends_with(" ... FAILED");
    output.lines().filter(ends).count()
}

/// The tests that libtest has said to run for long and that have not ended, of a program that was ended.
pub(super) fn begun_and_not_ended(output: &str) -> Vec<&str> {
    let ended = |name: &str| {
        let line = |outcome: &str| format!("test {name} ... {outcome}");
        let (well, badly) = (line("ok"), line("FAILED"));
        output.lines().any(|line| line == well || line == badly)
    };
    let begun = output.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("test ")?.split_once(" has been running for ")?;
        Some(name)
    });
    begun.filter(|name| !ended(name)).collect()
}

/// The number of characters of a failed test's message that the closing lines repeat.
const MESSAGE: usize = 600;

/// Each failed test of a program with the beginning of its message: the panic's, or the error that it returned.
pub(super) fn failures(output: &str) -> Vec<String> {
    let mut lines = output.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let header = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        let Some(name) = header else { continue };
        let is_message = |line: &&str| line.starts_with("Error: ") || line.contains(" panicked at ");
        let before_next = lines.clone().take_while(|line| !line.starts_with("---- "));
        let message = before_next.skip_while(|line| !is_message(line)).take(8);
        let message: Vec<&str> = message.map(str::trim).take_while(|line| !line.is_empty()).collect();
        let message: String = message.join(" | ").chars().take(MESSAGE).collect();
        found.push(format!("{name}: {message}"));
    }
    found
}

/// What a line such as `test result: ok. 3 passed; 1 failed; 0 ignored; …` counts.
fn summary(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        counts
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
    };
    Some(Totals {
        passed: count("passed")?,
        failed: count("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str =
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn the_summaries_of_test_programs_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(summary(line), Some(Totals { passed: 12, failed: 3 }));
        assert_eq!(summary("test tests::result ... ok"), None);
        let both = format!("{PASSED}{line}\n");
        assert_eq!(totals_of(&both, false), Totals { passed: 14, failed: 3 });
    }

    #[test]
    fn a_program_that_ends_badly_or_without_a_summary_is_a_failure() {
        assert_eq!(totals_of(PASSED, true), Totals { passed: 2, failed: 0 });
        assert_eq!(totals_of(PASSED, false), Totals { passed: 2, failed: 1 });
        assert_eq!(totals_of("", true), Totals { passed: 0, failed: 1 });
        assert_eq!(totals_of("", false), Totals { passed: 0, failed: 1 });
    }

    #[test]
    fn a_failed_test_is_named_with_the_beginning_of_its_message() {
        let output = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\n  progress\nError: waited in vain\n\nCaused by:\n    no\n\n\
            ---- b stdout ----\n\nthread 'b' (7) panicked at tests/b.rs:3:5:\nleft behind:\nx\n\n\
            ---- c stdout ----\nsilent\n\nfailures:\n    a\n    b\n    c\n";
        assert_eq!(
            failures(output),
            [
                "a: Error: waited in vain",
                "b: thread 'b' (7) panicked at tests/b.rs:3:5: | left behind: | x",
                "c: ",
            ]
        );
        let long = format!("---- a stdout ----\nError: {}\n", "x".repeat(5_000));
        assert_eq!(failures(&long)[0].len(), "a: ".len() + MESSAGE);
    }

    #[test]
    fn tests_that_have_ended_are_counted_while_their_program_runs() {
        let output =
            "\nrunning 3 tests\ntest a ... ok\ntest b has been running for over 60 seconds\ntest c ... FAILED\n";
        assert_eq!(ended_so_far(output), 2);
        assert_eq!(begun_and_not_ended(output), ["b"]);
        let later = format!("{output}test b ... ok\n");
        assert_eq!(begun_and_not_ended(&later), [""; 0]);
    }
}
