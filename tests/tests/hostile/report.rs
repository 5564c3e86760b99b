//! The table of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::health::Health;

/// What one attack came to.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) finding: &'static str,
    /// Half of the honest creates, and 99 of 100, before the attack.
    pub(crate) quiet: [Duration; 2],
    /// The same during the attack.
    pub(crate) attacked: [Duration; 2],
    /// Honest creates that failed.
    pub(crate) refused: usize,
    /// Pods, honest or not, that were admitted without their grant or without a review.
    pub(crate) unreviewed: usize,
    /// The webhook and the operator.
    pub(crate) health: Vec<Health>,
    /// What the attacker was answered.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Empty if everything held.
    pub(crate) failures: Vec<String>,
}

/// One line an attack. Times are of honest creates, in milliseconds.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.name.len())
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "{:<width$}  {:<7} {:>11} {:>11} {:>7} {:>10} {:>10} {:>11} {:>8} {:>8}  {}\n",
        "ATTACK",
        "FINDING",
        "QUIET ms",
        "ATTACKED ms",
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
            "{:<width$}  {:<7} {:>11} {:>11} {:>7} {:>10} {:>10} {:>11} {:>8} {:>8}  {}",
            outcome.name,
            if outcome.finding.is_empty() {
                "-"
            } else {
                outcome.finding
            },
            times(outcome.quiet),
            times(outcome.attacked),
            outcome.refused,
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
