//! How long STS may take.

use std::time::Duration;

/// The longest time that one region may take for one call.
#[derive(Clone, Copy, Debug)]
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
