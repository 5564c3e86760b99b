//! What a target did in all its turns, and the row of the report that says so.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokenscope_core::Algorithm;
use tokenscope_issuer::keys::algorithm_name;
use tokio::task::JoinSet;

use crate::load::percentile;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    /// A server of the same stack that reads a request and answers a constant.
    Constant,
    /// Signatures and nothing else, on as many threads as there are connections and cores.
    BareSigning,
    /// A loop on as many threads that verifies, decides and signs, and serves nobody.
    InProcess,
    /// The issuer.
    Issuer,
    /// SPIRE's agent, asked for an audience that it has a token for.
    SpireRemembered,
    /// The same for an audience that nobody asked for yet, so that SPIRE's server signs.
    SpireSigned,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant answer",
            Self::BareSigning => "signing alone",
            Self::InProcess => "verify, decide, sign in a loop",
            Self::Issuer => "issuer",
            Self::SpireRemembered => "SPIRE FetchJWTSVID, remembered",
            Self::SpireSigned => "SPIRE FetchJWTSVID, signed",
        }
    }
}

/// A target under one load.
#[derive(Debug, Serialize)]
pub(super) struct Exchanges {
    pub(super) target: Target,
    /// The algorithm of its tokens.
    pub(super) algorithm: Option<&'static str>,
    pub(super) connections: u16,
    pub(super) count: usize,
    pub(super) per_second: f64,
    /// Of the constant answers a second over as many connections.
    pub(super) ratio: f64,
    /// Of what is signed a second with this algorithm where nothing else is done.
    pub(super) of_bare_signing: Option<f64>,
    /// Of what the loop in one process does a second with this algorithm.
    pub(super) of_in_process: Option<f64>,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Exchanges {
    /// The titles of [`Self::row`].
    pub(super) const TITLES: [&'static str; 9] = [
        "WHAT",
        "ALGORITHM",
        "CONNECTIONS",
        "A SECOND",
        "RATIO",
        "OF SIGNING",
        "OF THE LOOP",
        "p50 µs",
        "p99 µs",
    ];

    pub(super) fn row(&self) -> Vec<String> {
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        vec![
            self.target.name().to_owned(),
            self.algorithm.unwrap_or("-").to_owned(),
            self.connections.to_string(),
            format!("{:.0}", self.per_second),
            format!("{:.2}", self.ratio),
            ratio(self.of_bare_signing),
            ratio(self.of_in_process),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
        ]
    }
}

/// What all turns have brought.
#[derive(Default)]
pub(super) struct Round {
    /// Nanoseconds, one an answer.
    pub(super) latencies: Vec<u32>,
    pub(super) elapsed: Duration,
}

impl Round {
    /// The times that the clients of one round measured, once all have ended.
    pub(super) async fn of(mut clients: JoinSet<Result<Vec<u32>>>, started: Instant) -> Result<Self> {
        let mut latencies = Vec::new();
        while let Some(client) = clients.join_next().await {
            latencies.extend(client??);
        }
        Ok(Self {
            latencies,
            elapsed: started.elapsed(),
        })
    }

    pub(super) fn add(&mut self, turn: Self) {
        self.latencies.extend(turn.latencies);
        self.elapsed += turn.elapsed;
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// The rows of all targets over one number of connections.
pub(super) fn rows(mut rounds: Vec<(Target, Option<Algorithm>, Round)>, connections: u16) -> Vec<Exchanges> {
    let rates: Vec<_> = rounds
        .iter()
        .map(|(target, algorithm, round)| (*target, *algorithm, round.per_second()))
        .collect();
    let rate = |wanted, of| {
        let found = rates
            .iter()
            .find(|(target, algorithm, _)| (*target, *algorithm) == (wanted, of));
        found.map(|(_, _, rate)| *rate)
    };
    let constant = rate(Target::Constant, None).unwrap_or(f64::NAN);
    rounds
        .iter_mut()
        .map(|(target, algorithm, round)| {
            round.latencies.sort_unstable();
            let per_second = round.per_second();
            let of = |wanted| Some(per_second / rate(wanted, Some((*algorithm)?))?);
            Exchanges {
                target: *target,
                algorithm: algorithm.map(algorithm_name),
                connections,
                count: round.latencies.len(),
                per_second,
                ratio: per_second / constant,
                of_bare_signing: of(Target::BareSigning),
                of_in_process: of(Target::InProcess),
                p50_us: percentile(&round.latencies, 50),
                p99_us: percentile(&round.latencies, 99),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_ratios_to_the_rows_of_its_algorithm() {
        let round = |count| Round {
            latencies: vec![1000; count],
            elapsed: Duration::from_secs(1),
        };
        let algorithm = Some(Algorithm::ES256);
        let rows = rows(
            vec![
                (Target::Constant, None, round(100)),
                (Target::BareSigning, algorithm, round(200)),
                (Target::InProcess, algorithm, round(80)),
                (Target::Issuer, algorithm, round(60)),
            ],
            1,
        );
        let ratios: Vec<_> = rows
            .iter()
            .map(|row| (row.ratio, row.of_bare_signing, row.of_in_process))
            .collect();
        assert_eq!(
            ratios,
            [
                (1.0, None, None),
                (2.0, Some(1.0), Some(2.5)),
                (0.8, Some(0.4), Some(1.0)),
                (0.6, Some(0.3), Some(0.75))
            ]
        );
    }
}
