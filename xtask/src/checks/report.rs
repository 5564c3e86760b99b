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
    fn tests_that_have_ended_are_counted_while_their_program_runs() {
        let output =
            "\nrunning 3 tests\ntest a ... ok\ntest b has been running for over 60 seconds\ntest c ... FAILED\n";
        assert_eq!(ended_so_far(output), 2);
    }
}
