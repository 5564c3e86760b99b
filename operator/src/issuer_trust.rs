//! How many running pods know another authority of the issuer than the present one: they were admitted before its last rotation, and
//! reach the issuer for as long as an authority that they know vouches for the present one.

use crate::{index::SharedIndex, metrics::OperatorMetrics};
use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hasher as _},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};
use tokenscope_platform::health::Heartbeat;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// How often they are counted. It takes a look at each pod.
const PERIOD: Duration = Duration::from_secs(60);

/// An authority of the issuer, as a number that is kept of each pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuerAuthority(NonZeroU64);

impl IssuerAuthority {
    /// The first of these certificates in PEM: what is told of authorities begins with the present one. White space doesn't matter.
    pub(crate) fn first_of(pem: &str) -> Option<Self> {
        let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
        let (certificate, _) = rest.split_once("-----END CERTIFICATE-----")?;
        let mut hasher = DefaultHasher::new();
        for part in certificate.split_ascii_whitespace() {
            hasher.write(part.as_bytes());
        }
        NonZeroU64::new(hasher.finish()).map(Self)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_the_same_however_its_lines_end_and_the_first_counts() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let one = IssuerAuthority::first_of(&pem("QUFB\nQkJC"));
        assert!(one.is_some());
        assert_eq!(IssuerAuthority::first_of(&pem("QUFB\r\nQkJC\r")), one);
        assert_eq!(IssuerAuthority::first_of(&(pem("QUFBQkJC") + &pem("other"))), one);
        assert_ne!(IssuerAuthority::first_of(&pem("other")), one);
        for broken in ["", "-----BEGIN CERTIFICATE-----", "QUFB"] {
            assert_eq!(IssuerAuthority::first_of(broken), None);
        }
    }
}
