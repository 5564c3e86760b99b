//! How many running pods know another authority of the issuer than the present one: they were admitted before its last rotation, and
//! reach the issuer for as long as an authority that they know vouches for the present one.

use crate::{drift::IssuerAuthority, index::SharedIndex, metrics::OperatorMetrics};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokenscope_platform::health::Heartbeat;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// How often they are counted. It takes a look at each pod.
const PERIOD: Duration = Duration::from_secs(60);

/// The task that counts them.
pub(crate) struct IssuerTrust {
    /// What new pods are told, PEM; none before it is known.
    pub(crate) told: watch::Receiver<Option<Vec<u8>>>,
    /// What is known.
    pub(crate) index: SharedIndex,
    /// That the task lives.
    pub(crate) heartbeat: Heartbeat,
    /// Where the number goes.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

impl IssuerTrust {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            self.heartbeat.touch();
            let told = self.told.borrow_and_update().clone();
            let present = told.and_then(|pem| IssuerAuthority::first_of(&String::from_utf8_lossy(&pem)));
            if let Some(present) = present {
                let pods = self.index.lock().await.pods_with_other_issuer_authority(present);
                self.metrics.pods_with_other_issuer_ca(pods);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.told.changed() => {}
                () = sleep(PERIOD) => {}
            }
        }
    }
}
