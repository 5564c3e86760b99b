//! The deadlines of an exchange, and of what it waits for.

use std::time::Duration;

/// The times of exchanges. The default is what an installation has; tests on a machine that others use too have longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeDeadlines {
    /// A whole exchange, its body and all waiting included.
    pub exchange: Duration,
    /// The cluster's keys, where they are fetched anew. The fetch goes on without the exchange.
    pub keys: Duration,
    /// The API server's answer about a subject token.
    pub token_review: Duration,
}

impl Default for ExchangeDeadlines {
    fn default() -> Self {
        Self {
            exchange: Duration::from_secs(3),
            keys: Duration::from_secs(1),
            token_review: Duration::from_secs(2),
        }
    }
}
