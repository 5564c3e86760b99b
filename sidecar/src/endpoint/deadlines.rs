//! The deadlines of calls to STS.

use std::time::Duration;

/// The times of one call to one region. The default is what a pod has; tests on a machine that others use too have longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StsDeadlines {
    /// For the connection, without TLS.
    pub connection: Duration,
    /// For all of the call, the connection included.
    pub answer: Duration,
}

impl Default for StsDeadlines {
    fn default() -> Self {
        Self {
            connection: Duration::from_secs(2),
            answer: Duration::from_secs(5),
        }
    }
}
