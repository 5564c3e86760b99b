//! The leadership: which process is the one that writes.

use std::time::Instant;

use tokenscope_platform::lease::Claim;
use tokio::sync::watch;

/// Says whether this process is the leader. It is asked before each write.
#[derive(Clone, Debug)]
pub(crate) struct Leader(watch::Receiver<Claim>);

impl Leader {
    /// The leadership that follows from the claim on the Lease.
    pub(crate) fn new(claim: watch::Receiver<Claim>) -> Self {
        Self(claim)
    }

    /// True if a write may begin now.
    pub(crate) fn is_leader(&self) -> bool {
        self.0.borrow().is_held(Instant::now())
    }

    /// Waits until the answer is another one.
    pub(crate) async fn change(&mut self) {
        let before = self.is_leader();
        // It fails only when the Lease is given back for good, at the process's end.
        if self
            .0
            .wait_for(|claim| claim.is_held(Instant::now()) != before)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}
