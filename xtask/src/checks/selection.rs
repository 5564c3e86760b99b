//! The checks and tests that a command line selects, and their order.

/// The checks and tests to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Selection {
    /// Only tests whose name contains this, and no static checks
    pub(super) filter: Option<String>,
    /// Only what needs neither servers nor root: the formatting, and the tests of every crate but the one of system tests
    #[arg(long)]
    pub(super) unit: bool,
    /// Let each attack of the hostile suite last a minute instead of some seconds (about an hour more)
    #[arg(long, conflicts_with = "unit")]
    pub(super) nightly: bool,
}

/// One part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The formatting.
    Format,
    /// Finds, builds or fetches the servers that system tests need, so that this takes no processor from tests that measure
    /// time.
    Servers,
    /// The lints and the dependencies' licences and sources, for which everything is checked once more.
    Lints,
    /// Compiles the test programs, and the project's programs that system tests start.
    Programs,
    /// Compiles the project's programs as the images carry them, and makes the images.
    Images,
    /// Runs the test programs.
    Tests,
}

/// Steps of which each needs the one before.
type Lane = &'static [Step];

/// Lanes that run beside each other. A stage begins when the one before has ended.
type Stage = &'static [Lane];

impl Selection {
    /// True if the programs are also built as the images carry them: the hostile suite judges no times of unoptimised ones,
    /// and the tests in a cluster run the images that are published.
    pub(super) fn optimises(&self) -> bool {
        self.nightly || (self.filter.is_none() && !self.unit)
    }

    /// The parts, in their order.
    ///
    /// With a filter, no server is resolved ahead: most names are of unit tests, and a system test resolves what it starts.
    pub(super) fn stages(&self) -> &'static [Stage] {
        match (self.unit, &self.filter) {
            (true, None) => &[&[&[Step::Format]], &[&[Step::Programs]], &[&[Step::Tests]]],
            (_, Some(_)) if !self.optimises() => &[&[&[Step::Programs]], &[&[Step::Tests]]],
            (_, Some(_)) => &[&[&[Step::Programs], &[Step::Images]], &[&[Step::Tests]]],
            (false, None) => &[
                &[&[Step::Format]],
                &[&[Step::Servers]],
                &[&[Step::Lints, Step::Programs], &[Step::Images]],
                &[&[Step::Tests]],
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
    fn steps(arguments: &[&str]) -> Vec<Step> {
        selection(arguments).unwrap().stages().concat().concat()
    }

    #[test]
    fn unit_tests_resolve_no_server_and_build_no_image() {
        for given in [["--unit"].as_slice(), &["--unit", "decide"]] {
            let steps = steps(given);
            assert!(
                !steps.contains(&Step::Servers) && !steps.contains(&Step::Images),
                "{given:?}"
            );
            assert!(steps.ends_with(&[Step::Programs, Step::Tests]), "{given:?}");
        }
    }

    #[test]
    fn a_filter_selects_among_all_tests_and_resolves_no_server_ahead() {
        assert_eq!(steps(&["expires"]), [Step::Programs, Step::Tests]);
        assert!(!selection(&["expires"]).unwrap().unit);
    }

    #[test]
    fn without_a_filter_every_check_runs_before_the_tests() {
        use Step::{Format, Images, Lints, Programs, Servers, Tests};
        assert_eq!(steps(&[]), [Format, Servers, Lints, Programs, Images, Tests]);
    }

    /// What compiles takes the processors from tests that measure time.
    #[test]
    fn nothing_runs_beside_the_tests() {
        for given in [
            [].as_slice(),
            &["--unit"],
            &["expires"],
            &["--nightly"],
            &["--nightly", "pods"],
        ] {
            let stages = selection(given).unwrap().stages();
            assert_eq!(stages.last(), Some(&[[Step::Tests].as_slice()].as_slice()), "{given:?}");
        }
    }

    #[test]
    fn nightly_attacks_need_servers_and_so_exclude_unit() {
        assert!(selection(&["--unit", "--nightly"]).is_err());
        assert!(steps(&["--nightly"]).contains(&Step::Servers));
    }

    #[test]
    fn times_of_attacks_are_judged_with_the_programs_of_the_images() {
        for given in [[].as_slice(), &["--nightly"], &["--nightly", "pods"]] {
            assert!(steps(given).contains(&Step::Images), "{given:?}");
        }
    }
}
