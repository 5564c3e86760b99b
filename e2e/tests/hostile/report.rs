//! The table of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::health::Health;
use crate::honest::{Window, percentile};

/// What honest creates take in quiet and under an attack: half of them, and 99 of 100. Medians of the windows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    quiet: [Duration; 2],
    attacked: [Duration; 2],
}

/// What honest large pods came to during an attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LargePods {
    pub(crate) created: usize,
    pub(crate) granted: usize,
    /// Half of their creates took less, and 99 of 100.
    took: [Duration; 2],
}

/// What one attack came to.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) finding: &'static str,
    pub(crate) times: Times,
    /// The honest large pods, if there were any beside.
    pub(crate) large: Option<LargePods>,
    /// The times without tokenscope, and the honest creates that failed then; none if that was not needed.
    pub(crate) without: Option<(Times, usize)>,
    /// What honest creates that failed were told.
    pub(crate) refused: Vec<String>,
    /// Pods, honest or not, that were admitted without their grant or without a review.
    pub(crate) unreviewed: usize,
    /// The webhook and the operator.
    pub(crate) health: Vec<Health>,
    /// What the attacker was answered.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Empty if everything held.
    pub(crate) failures: Vec<String>,
}

impl Times {
    pub(crate) fn of(quiet: &[Window], attacked: &[Window]) -> Self {
        let of = |windows: &[Window]| [50, 99].map(|percent| median(windows, percent));
        Self {
            quiet: of(quiet),
            attacked: of(attacked),
        }
    }

    /// What the attack adds to the time below which 99 of 100 stay.
    pub(crate) fn added(&self) -> Duration {
        self.attacked[1].saturating_sub(self.quiet[1])
    }
}

impl LargePods {
    pub(crate) fn of(windows: &[Window]) -> Self {
        let mut latencies: Vec<Duration> = windows.iter().flat_map(|window| window.large.clone()).collect();
        latencies.sort_unstable();
        Self {
            created: latencies.len(),
            granted: windows.iter().map(|window| window.large_granted).sum(),
            took: [50, 99].map(|percent| percentile(&latencies, percent)),
        }
    }
}

fn median(windows: &[Window], percent: usize) -> Duration {
    let mut values: Vec<Duration> = windows.iter().map(|window| window.percentile(percent)).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// One line an attack. Times are of honest creates, in milliseconds: those of quiet, under attack, and under the same attack
/// without tokenscope; those of large pods stand apart, behind how many of how many were granted.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.name.len())
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "{:<width$}  {:<7} {:>11} {:>11} {:>10} {:>14} {:>7} {:>10} {:>10} {:>11} {:>8} {:>8}  {}\n",
        "ATTACK",
        "FINDING",
        "QUIET ms",
        "ATTACKED ms",
        "WITHOUT ms",
        "LARGE ms",
        "REFUSED",
        "UNREVIEWED",
        "WEBHOOK MB",
        "OPERATOR MB",
        "RESTARTS",
        "RESULT",
        "ANSWERS",
    );
    for outcome in outcomes {
        let times = |[p50, p99]: [Duration; 2]| format!("{}/{}", p50.as_millis(), p99.as_millis());
        let peak = |number: usize| outcome.health.get(number).map_or(0, |health| health.peak / 1_000_000);
        let answers: Vec<String> = outcome
            .answers
            .iter()
            .map(|(answer, count)| format!("{count}× {answer}"))
            .collect();
        let _ = writeln!(
            text,
            "{:<width$}  {:<7} {:>11} {:>11} {:>10} {:>14} {:>7} {:>10} {:>10} {:>11} {:>8} {:>8}  {}",
            outcome.name,
            if outcome.finding.is_empty() {
                "-"
            } else {
                outcome.finding
            },
            times(outcome.times.quiet),
            times(outcome.times.attacked),
            outcome
                .without
                .map_or_else(|| "-".to_owned(), |(without, _)| times(without.attacked)),
            outcome.large.map_or_else(
                || "-".to_owned(),
                |large| format!("{}/{} {}", large.granted, large.created, times(large.took))
            ),
            outcome.refused.len(),
            outcome.unreviewed,
            peak(0),
            peak(1),
            outcome.health.iter().map(|health| health.restarts).sum::<usize>(),
            if outcome.failures.is_empty() { "ok" } else { "FAILED" },
            answers.join(", "),
        );
    }
    text
}

/// What came of an attacker's requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How often there was which answer, or none.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Pods that ask and were admitted without their grant.
    pub(crate) unreviewed: Vec<String>,
    pub(crate) longest_refusal: usize,
}
