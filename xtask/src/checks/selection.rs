//! The checks and tests that a command line selects, and their order.

/// The checks and tests to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Selection {
    /// Only tests whose name contains this, and no static checks
    pub(super) filter: Option<String>,
    /// Only what needs neither servers nor root: the formatting, and the tests of every crate but the one of system tests
    #[arg(long)]
    pub(super) unit: bool,
    /// Also run the long tests that packages leave to this form, run the tests in a cluster with the images that are published, and let each attack of the hostile suite and each fuzz target last a
    /// minute (about an hour more)
    #[arg(long, conflicts_with = "unit")]
    pub(super) nightly: bool,
}

/// One part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckStep {
    /// The formatting.
    Format,
    /// Finds, builds or fetches the servers that system tests need, so that this takes no processor from tests that measure
    /// time.
    Servers,
    /// The lints and the dependencies' licences and sources, for which everything is checked once more. No test waits for them but those
    /// that run alone.
    Lints,
    /// Compiles the test programs, and the project's programs that system tests start.
    Programs,
    /// Makes the images of the quickly compiled programs, for the tests in a cluster: before any test runs, since it writes the programs anew.
    Images,
    /// Compiles the programs whose times are judged, optimised. With `--nightly` it makes the images that are published instead, and their
    /// programs are judged. It takes minutes, so tests that need none of these begin meanwhile.
    Optimised,
    /// Runs the test programs.
    Tests,
}

/// Steps of which each needs the one before.
type Lane = &'static [CheckStep];

/// Lanes that run beside each other. A stage begins when the one before has ended.
type Stage = &'static [Lane];

impl Selection {
    /// True if programs are also optimised: the hostile suite judges no times of others. With `--nightly` they are those of the images
    /// that are published, which the tests in a cluster run, too.
    pub(super) fn optimises(&self) -> bool {
        self.nightly || (self.filter.is_none() && !self.unit)
    }

    /// The parts, in their order.
    ///
    /// With a filter, no server is resolved ahead: most names are of unit tests, and a system test resolves what it starts.
    pub(super) fn stages(&self) -> &'static [Stage] {
        match (self.unit, &self.filter) {
            (true, None) => &[
                &[&[CheckStep::Format]],
                &[&[CheckStep::Programs]],
                &[&[CheckStep::Tests]],
            ],
            (_, Some(_)) if !self.optimises() => &[&[&[CheckStep::Programs]], &[&[CheckStep::Tests]]],
            (_, Some(_)) => &[&[&[CheckStep::Programs, CheckStep::Tests], &[CheckStep::Optimised]]],
            (false, None) => &[
                &[&[CheckStep::Format]],
                &[&[CheckStep::Servers]],
                &[
                    &[CheckStep::Programs, CheckStep::Images, CheckStep::Tests],
                    &[CheckStep::Optimised, CheckStep::Lints],
                ],
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        selection: Selection,
    }

    fn selection(arguments: &[&str]) -> Result<Selection, clap::Error> {
        let line = [&["test"], arguments].concat();
        <CommandLine as clap::Parser>::try_parse_from(line).map(|line| line.selection)
    }

    /// The steps in an order in which they may run one after the other.
    fn steps(arguments: &[&str]) -> Vec<CheckStep> {
        selection(arguments).unwrap().stages().concat().concat()
    }

    #[test]
    fn unit_tests_resolve_no_server_and_build_no_image() {
        for given in [["--unit"].as_slice(), &["--unit", "decide"]] {
            let steps = steps(given);
            assert!(
                ![CheckStep::Servers, CheckStep::Images, CheckStep::Optimised]
                    .iter()
                    .any(|step| steps.contains(step)),
                "{given:?}"
            );
            assert!(steps.ends_with(&[CheckStep::Programs, CheckStep::Tests]), "{given:?}");
        }
    }

    #[test]
    fn a_filter_selects_among_all_tests_and_resolves_no_server_ahead() {
        assert_eq!(steps(&["expires"]), [CheckStep::Programs, CheckStep::Tests]);
        assert!(!selection(&["expires"]).unwrap().unit);
    }

    #[test]
    fn without_a_filter_every_check_runs() {
        use CheckStep::{Format, Images, Lints, Optimised, Programs, Servers, Tests};
        let all = [Format, Servers, Programs, Images, Tests, Optimised, Lints];
        assert_eq!(steps(&[]), all);
        assert_eq!(steps(&["--nightly"]), all);
    }

    /// What compiles takes the processors from tests that measure time; those wait for the end of its lane.
    #[test]
    fn beside_the_tests_nothing_runs_but_the_lane_that_they_wait_for() {
        for given in [
            [].as_slice(),
            &["--unit"],
            &["expires"],
            &["--nightly"],
            &["--nightly", "pods"],
        ] {
            let stages = selection(given).unwrap().stages();
            let (first, beside) = stages.last().unwrap().split_first().unwrap();
            assert_eq!(first.last(), Some(&CheckStep::Tests), "{given:?}");
            let known = |step: &CheckStep| matches!(step, CheckStep::Optimised | CheckStep::Lints);
            assert!(beside.concat().iter().all(known), "{given:?}");
            assert!(
                beside.iter().all(|lane| lane.first() == Some(&CheckStep::Optimised)),
                "{given:?}"
            );
        }
    }

    #[test]
    fn nightly_attacks_need_servers_and_so_exclude_unit() {
        assert!(selection(&["--unit", "--nightly"]).is_err());
        assert!(steps(&["--nightly"]).contains(&CheckStep::Servers));
    }

    #[test]
    fn times_of_attacks_are_judged_with_the_programs_of_the_images() {
        for given in [[].as_slice(), &["--nightly"], &["--nightly", "pods"]] {
            assert!(steps(given).contains(&CheckStep::Optimised), "{given:?}");
        }
    }
}
