//! The outcome of a case, and the number of cases with each.

use std::fmt;

use super::deviations::Deviation;

/// The outcome of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The same pod comes out.
    Equal,
    /// Another pod comes out, or none, and these reasons explain every difference.
    Deviation(Vec<&'static Deviation>),
    /// Another pod comes out, or none, and nobody said why.
    Different(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Deviation(deviations) => {
                let reasons: Vec<String> = deviations
                    .iter()
                    .map(|Deviation { name, reason, .. }| format!("{name}: {reason}"))
                    .collect();
                write!(f, "deviation  {}", reasons.join("; "))
            }
            Self::Different(difference) => write!(f, "DIFFERENT  {}", difference.replace('\n', "\n    ")),
        }
    }
}

/// The number of cases with each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// The same pod.
    pub equal: usize,
    /// Another pod, with a reason.
    pub deviations: usize,
    /// Another pod, without a reason.
    pub different: usize,
}

impl Total {
    /// Counts a case.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Equal => &mut self.equal,
            Outcome::Deviation(_) => &mut self.deviations,
            Outcome::Different(_) => &mut self.different,
        } += 1;
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            equal,
            deviations,
            different,
        } = self;
        let cases = equal + deviations + different;
        write!(
            f,
            "{cases} cases: {equal} equal, {deviations} deviations, {different} different"
        )
    }
}
