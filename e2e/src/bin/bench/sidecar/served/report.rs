//! What a run of the sidecar that serves credentials has measured, and its aims.

use std::fmt;

use serde::Serialize;

use super::super::ground::mebibytes;
use super::asks::Answers;
use super::probe::ProbeCost;
use crate::report::Budget;

/// What was measured.
#[derive(Debug, Serialize)]
pub(in super::super) struct Served {
    /// Bytes of the program.
    pub(super) size: u64,
    /// Bytes resident after all requests and renewals.
    pub(super) resident: u64,
    /// The most that was resident, in bytes.
    pub(super) peak: u64,
    pub(super) answers: Vec<Answers>,
    /// Milliseconds of STS's own answer, the median.
    pub(super) sts_ms: f64,
    /// Milliseconds from the program's start to the first credentials, without STS's own answer; the median.
    pub(super) start_ms: f64,
    /// Calls of STS that a pod with sessions of an hour makes in an hour, by the times of renewal that many starts chose.
    pub(super) sts_calls_per_hour: f64,
    /// How often its threads waited for something in a minute in which nothing was to be done.
    pub(super) idle_waits_per_minute: f64,
    /// How many times the credentials were renewed.
    pub(super) renewals: usize,
    /// How often it woke from idleness, for each renewal; what follows within some 50 ms is the same.
    pub(super) wake_ups: f64,
    /// How often its threads waited for something, for each renewal: also for STS's answer, and for the disk.
    pub(super) waits: f64,
    /// Microseconds of processor time for each renewal, to 10 ms in the whole run.
    pub(super) processor_us: f64,
    pub(super) probe: ProbeCost,
}

/// The sidecar's aims.
pub(in super::super) fn budgets(served: &Served) -> Vec<Budget> {
    let at_most = |what: &str, measured, limit| Budget::at_most(format!("endpoint: {what}"), measured, limit);
    let first = served.answers.first();
    vec![
        at_most("MB of the program", served.size as f64 / 1e6, 6.0),
        at_most("MiB resident", mebibytes(served.resident), 8.0),
        at_most(
            "µs of an answer from memory, one connection at a time, p50",
            first.map_or(f64::NAN, |answers| answers.p50_us),
            100.0,
        ),
        at_most("wake-ups for each renewal", served.wake_ups, 1.5),
        at_most(
            "ms from start to credentials beyond STS's answer",
            served.start_ms,
            100.0,
        ),
        // A session of an hour is renewed after 24 to 36 minutes.
        at_most("calls of STS by a pod in an hour", served.sts_calls_per_hour, 2.5),
    ]
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Credentials that are served, with a strict STS behind that answers in {:.1} ms, over plain HTTP.\n",
            self.sts_ms
        )?;
        writeln!(
            f,
            "{:>11} {:>9} {:>8} {:>8} {:>9} {:>16} {:>20}",
            "CONNECTIONS", "ANSWERS/s", "p50 µs", "p99 µs", "RATIO", "CONSTANT p50 µs", "CONSTANT ANSWERS/s"
        )?;
        for answers in &self.answers {
            writeln!(
                f,
                "{:>11} {:>9.0} {:>8.0} {:>8.0} {:>9.2} {:>16.0} {:>20.0}",
                answers.connections,
                answers.per_second,
                answers.p50_us,
                answers.p99_us,
                answers.ratio,
                answers.constant_p50_us,
                answers.constant_per_second
            )?;
        }
        writeln!(
            f,
            "\nprogram {:.2} MB, {:.2} MiB resident, at most {:.2} MiB; first credentials {:.1} ms after the start beyond STS's answer",
            self.size as f64 / 1e6,
            mebibytes(self.resident),
            mebibytes(self.peak),
            self.start_ms
        )?;
        writeln!(
            f,
            "{} renewals: {:.1} wake-ups, {:.1} waits and {:.0} µs of processor time each; idle: {:.1} waits in a minute",
            self.renewals, self.wake_ups, self.waits, self.processor_us, self.idle_waits_per_minute
        )?;
        writeln!(f, "{:.2} calls of STS in an hour", self.sts_calls_per_hour)?;
        writeln!(
            f,
            "a probe: {:.1} ms, {:.0} µs of processor time; the program's start alone: {:.1} ms, {:.0} µs\n",
            self.probe.probe.ms, self.probe.probe.processor_us, self.probe.version.ms, self.probe.version.processor_us
        )?;
        writeln!(
            f,
            "RATIO: answers a second against a thread that reads a request and writes the same bytes; each on a new connection.\n"
        )
    }
}
