//! The deadlines of reviews, and of what they keep others waiting for.

use std::time::Duration;

/// The times of reviews. The default is what an installation has; tests on a machine that others use too have longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReviewDeadlines {
    /// A whole review, its body and all waiting included. The API server waits for 2 seconds, and a clear answer is better than none.
    pub review: Duration,
    /// An answer of the API server: both namespace and service account may be missing.
    pub lookup: Duration,
    /// How long a body may arrive, and an answer be written, before it can be asked to give way. The API server sends and takes
    /// them at once.
    pub patience: Duration,
    /// How long whoever needs memory waits for the one that gives way.
    pub handover: Duration,
}

impl Default for ReviewDeadlines {
    fn default() -> Self {
        Self {
            review: Duration::from_millis(1800),
            lookup: Duration::from_millis(800),
            patience: Duration::from_millis(200),
            handover: Duration::from_millis(300),
        }
    }
}
