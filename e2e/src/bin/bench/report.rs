//! The measurements, as a table for people and as JSON for scripts.

use std::fmt;

use serde::Serialize;

/// Everything that one run measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The number of ServiceAccounts.
    pub(crate) service_accounts: usize,
    /// What the lock did meanwhile.
    pub(crate) lock_mode: LockMode,
    /// Reviews straight to the servers.
    pub(crate) reviews: Vec<Reviews>,
    /// The memory that our webhook takes.
    pub(crate) memory: Vec<MemoryUse>,
    /// Creates of pods through the API server; empty if that was not asked for.
    pub(crate) through_apiserver: Vec<Creates>,
    /// Reviews and creates of pods of hostile shapes; empty if that was not asked for.
    pub(crate) hostile: Vec<Hostile>,
    /// The aims.
    pub(crate) budgets: Vec<Budget>,
}

/// What the lock does about tokens of locked audiences: the chart's `lock.mode`.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LockMode {
    /// Nothing.
    Off,
    /// Tells of them.
    Audit,
    /// Warns.
    Warn,
    /// Refuses them.
    #[default]
    Deny,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Deny => "deny",
        })
    }
}

/// One server under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Reviews {
    /// Containers of the pod.
    pub(crate) containers: usize,
    /// Bytes of the review.
    pub(crate) review_bytes: usize,
    /// Bytes of the answer.
    pub(crate) answer_bytes: usize,
    /// Connections at once.
    pub(crate) connections: usize,
    /// `constant`, `read+patch` (which reads all of the JSON with serde_json and answers with tokenscope's patch), `tokenscope`,
    /// `tokenscope, Profile` (the same review where the policy has delivery.type Profile and a chain of two) or `peer`.
    pub(crate) server: &'static str,
    /// Reviews a second.
    pub(crate) per_second: f64,
    /// Of the constant answer's reviews a second.
    pub(crate) ratio: f64,
    /// Microseconds that half of the answers took at most.
    pub(crate) p50_us: f64,
    /// Microseconds that 99 of 100 answers took at most.
    pub(crate) p99_us: f64,
    /// Microseconds of the server's processor time for a review; nobody knows the peer's process.
    pub(crate) processor_us: Option<f64>,
    /// The same of the load itself, which shares the processors.
    pub(crate) load_processor_us: Option<f64>,
}

/// Memory at a moment, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryUse {
    /// The moment.
    pub(crate) when: &'static str,
    /// Bytes that are resident. Pages of the program are among them, which all processes of one image on a node share.
    pub(crate) resident: u64,
    /// Bytes of those that are the process's own and no pages of files.
    pub(crate) anonymous: u64,
    /// The most bytes that were resident up to then.
    pub(crate) peak: u64,
}

/// One shape of a pod, hostile but for the first, in reviews straight to the webhook and in creates.
#[derive(Debug, Serialize)]
pub(crate) struct Hostile {
    /// The thing that it has too much of.
    pub(crate) shape: &'static str,
    /// Bytes of the review.
    pub(crate) review_bytes: usize,
    /// Microseconds of the webhook's processor time for a review.
    pub(crate) processor_us: f64,
    /// The ratio to what as many bytes cost in an honest review.
    pub(crate) processor_ratio: f64,
    /// Bytes of memory that the first such review takes beyond what was resident.
    pub(crate) peak: u64,
    /// Of the review's bytes.
    pub(crate) peak_ratio: f64,
    /// Microseconds of the API server's processor time for a create before tokenscope was installed.
    pub(crate) without_us: f64,
    /// The same with a webhook that always lets the pod through in place of tokenscope.
    pub(crate) constant_us: f64,
    /// The same with tokenscope.
    pub(crate) apiserver_us: f64,
    /// Of that without tokenscope.
    pub(crate) apiserver_ratio: f64,
}

/// Creates of pods under one webhook.
#[derive(Debug, Serialize)]
pub(crate) struct Creates {
    /// The kind of pods.
    pub(crate) pod: &'static str,
    /// `no webhook`, `constant` (which lets the pod through as it is), `constant+patch` (which answers with the patch that
    /// tokenscope makes), `constant+patch+rules` (the same under tokenscope's own conditions), `tokenscope` or `peer`.
    pub(crate) webhook: &'static str,
    /// Their number.
    pub(crate) count: usize,
    /// Microseconds that half of them took at most.
    pub(crate) p50_us: f64,
    /// Microseconds that 99 of 100 took at most.
    pub(crate) p99_us: f64,
    /// Microseconds that the webhook adds to the half.
    pub(crate) added_us: f64,
    /// The ratio to what the constant answer adds.
    pub(crate) ratio: Option<f64>,
}

/// An aim, and whether it is reached.
#[derive(Debug, Serialize)]
pub(crate) struct Budget {
    /// Its subject.
    pub(crate) what: String,
    /// The value that was measured.
    pub(crate) measured: f64,
    /// The most, or with `at_least` the least, that it should be.
    pub(crate) limit: f64,
    /// True if more is better.
    pub(crate) at_least: bool,
    /// True if the aim is reached.
    pub(crate) pass: bool,
}

impl Budget {
    /// More is better.
    pub(crate) fn at_least(what: String, measured: f64, limit: f64) -> Self {
        Self {
            what,
            measured,
            limit,
            at_least: true,
            pass: measured >= limit,
        }
    }

    /// Less is better.
    pub(crate) fn at_most(what: String, measured: f64, limit: f64) -> Self {
        Self {
            what,
            measured,
            limit,
            at_least: false,
            pass: measured <= limit,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reviews_table())?;
        f.write_str(&self.memory_table())?;
        if !self.through_apiserver.is_empty() {
            f.write_str(&self.creates_table())?;
        }
        if !self.hostile.is_empty() {
            f.write_str(&self.hostile_table())?;
        }
        f.write_str(&budgets_table(&self.budgets))
    }
}

impl Report {
    fn reviews_table(&self) -> String {
        let mut rows = vec![row([
            "CONTAINERS",
            "kB",
            "CONNECTIONS",
            "SERVER",
            "REVIEWS/s",
            "RATIO",
            "p50 µs",
            "p99 µs",
            "CPU µs/REVIEW",
            "LOAD'S CPU µs",
        ])];
        rows.extend(self.reviews.iter().map(|line| {
            vec![
                line.containers.to_string(),
                format!("{:.1}", line.review_bytes as f64 / 1e3),
                line.connections.to_string(),
                line.server.to_owned(),
                format!("{:.0}", line.per_second),
                format!("{:.2}", line.ratio),
                format!("{:.0}", line.p50_us),
                format!("{:.0}", line.p99_us),
                optional(line.processor_us),
                optional(line.load_processor_us),
            ]
        }));
        format!(
            "tokenscope with lock.mode {}\nReviews over TLS, HTTP/1.1 with connections kept open; ratio: of the constant answer's reviews/s; read+patch reads all of \
             the JSON with serde_json and answers with the patch of tokenscope\n{}",
            self.lock_mode,
            table(&rows, &[3])
        )
    }

    fn memory_table(&self) -> String {
        format!(
            "\nMemory of tokenscope-webhook at {} annotated ServiceAccounts\n{}",
            self.service_accounts,
            table(&memory_rows(&self.memory), &[0])
        )
    }

    fn creates_table(&self) -> String {
        let mut rows = vec![row([
            "POD",
            "WEBHOOK",
            "CREATES",
            "p50 µs",
            "p99 µs",
            "ADDED µs",
            "RATIO",
        ])];
        rows.extend(self.through_apiserver.iter().map(|line| {
            vec![
                line.pod.to_owned(),
                line.webhook.to_owned(),
                line.count.to_string(),
                format!("{:.0}", line.p50_us),
                format!("{:.0}", line.p99_us),
                format!("{:.0}", line.added_us),
                line.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            ]
        }));
        format!(
            "\nCreates of pods through the API server (dry run, one connection), lock.mode {}; ratio: of what the constant answer adds\n{}",
            self.lock_mode,
            table(&rows, &[0, 1])
        )
    }

    fn hostile_table(&self) -> String {
        let mut rows = vec![row([
            "SHAPE",
            "kB",
            "CPU µs",
            "RATIO",
            "PEAK kB",
            "RATIO",
            "API SERVER'S CPU µs",
            "CONSTANT",
            "WITHOUT",
            "RATIO",
        ])];
        rows.extend(self.hostile.iter().map(|line| {
            vec![
                line.shape.to_owned(),
                format!("{:.0}", line.review_bytes as f64 / 1e3),
                format!("{:.0}", line.processor_us),
                format!("{:.2}", line.processor_ratio),
                format!("{:.0}", line.peak as f64 / 1e3),
                format!("{:.2}", line.peak_ratio),
                format!("{:.0}", line.apiserver_us),
                format!("{:.0}", line.constant_us),
                format!("{:.0}", line.without_us),
                format!("{:.2}", line.apiserver_ratio),
            ]
        }));
        format!(
            "\nPods of hostile shapes; ratios: of an honest review's CPU for as many bytes, of the review's bytes, and of the API \
             server's CPU before tokenscope was installed\n{}",
            table(&rows, &[0])
        )
    }
}

/// The rows of a table of memory.
pub(crate) fn memory_rows(lines: &[MemoryUse]) -> Vec<Vec<String>> {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let mut rows = vec![row(["WHEN", "RSS MB", "ITS OWN", "PEAK MB"])];
    rows.extend(lines.iter().map(|line| {
        vec![
            line.when.to_owned(),
            megabytes(line.resident),
            megabytes(line.anonymous),
            megabytes(line.peak),
        ]
    }));
    rows
}

/// The aims, and what was measured beside them.
pub(crate) fn budgets_table(budgets: &[Budget]) -> String {
    let mut rows = vec![row(["", "WHAT", "MEASURED", "AIM"])];
    rows.extend(budgets.iter().map(|budget| {
        vec![
            (if budget.pass { "pass" } else { "MISS" }).to_owned(),
            budget.what.clone(),
            format!("{:.2}", budget.measured),
            format!("{} {:.2}", if budget.at_least { "≥" } else { "≤" }, budget.limit),
        ]
    }));
    format!("\nBudgets\n{}", table(&rows, &[0, 1]))
}

fn optional(microseconds: Option<f64>) -> String {
    microseconds.map_or_else(|| "-".to_owned(), |microseconds| format!("{microseconds:.1}"))
}

/// A row of titles.
pub(crate) fn row<const N: usize>(titles: [&str; N]) -> Vec<String> {
    titles.map(str::to_owned).to_vec()
}

/// Columns line up; those of `texts` to the left and all others, numbers, to the right.
pub(crate) fn table(rows: &[Vec<String>], texts: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let length = |text: &String| text.chars().count();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(length)
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padded = if texts.contains(&column) {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            line.push_str(&padded);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [row(["NAME", "µs"]), row(["a", "1000"]), row(["longer", "7"])];
        assert_eq!(table(&rows, &[0]), "NAME      µs\na       1000\nlonger     7\n");
    }
}
