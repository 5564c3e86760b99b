//! The number of running pods that know another authority of the issuer than the present one. They were admitted before its last rotation, and
//! reach the issuer for as long as an authority that they know has signed for the present one.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokenscope_core::sidecar::MOST_ISSUER_CA_BYTES;
use tokenscope_platform::health::Heartbeat;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::drift::IssuerAuthority;
use crate::index::SharedIndex;
use crate::metrics::OperatorMetrics;

/// The time between two counts. Each takes a look at every pod.
const PERIOD: Duration = Duration::from_secs(60);

/// The source of the authorities that new pods are told, PEM.
pub(crate) enum AuthoritySource {
    /// From the task that makes the certificates; none before it has made one.
    Here(watch::Receiver<Option<Vec<u8>>>),
    /// From the file that the webhook tells pods of, where somebody else makes the certificates.
    File(PathBuf),
}

impl AuthoritySource {
    /// The present authority; none before it is known.
    async fn present(&mut self) -> Option<IssuerAuthority> {
        let told = match self {
            Self::Here(told) => told.borrow_and_update().clone()?,
            Self::File(file) => match read(file).await {
                Ok(told) => told,
                // The Secret that it is of may come later, and the webhook says what is wrong with it.
                Err(error) => {
                    tracing::debug!(%error, "the issuer's authorities can't be read");
                    return None;
                }
            },
        };
        IssuerAuthority::first_of(&String::from_utf8_lossy(&told))
    }

    /// Waits until it is another one, where that is told.
    async fn changed(&mut self) {
        if let Self::Here(told) = self
            && told.changed().await.is_ok()
        {
            return;
        }
        pending::<()>().await;
    }
}

/// The file's beginning. Of a longer file pods are told nothing: the webhook refuses it.
async fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = File::open(file).await?.take(MOST_ISSUER_CA_BYTES);
    file.read_to_end(&mut text).await?;
    Ok(text)
}

/// The task that counts them.
pub(crate) struct IssuerTrust {
    /// The source of the authorities that new pods are told.
    pub(crate) told: AuthoritySource,
    /// The index of what is known.
    pub(crate) index: SharedIndex,
    /// The sign that the task lives.
    pub(crate) heartbeat: Heartbeat,
    /// The metrics, which show the number.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

impl IssuerTrust {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            self.heartbeat.touch();
            if let Some(present) = self.told.present().await {
                let pods = self.index.lock().await.pods_with_other_issuer_authority(present);
                self.metrics.pods_with_other_issuer_ca(pods);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.told.changed() => {}
                () = sleep(PERIOD) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_present_authority_is_read_from_the_file_again_and_again_and_may_come_late() {
        let file = std::env::temp_dir().join(format!("tokenscope-issuer-trust-{}", std::process::id()));
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let mut told = AuthoritySource::File(file.clone());
        assert_eq!(told.present().await, None);
        for body in ["QUFB", "QkJC"] {
            std::fs::write(&file, pem(body) + &pem("older")).unwrap();
            assert_eq!(told.present().await, IssuerAuthority::first_of(&pem(body)));
        }
        std::fs::remove_file(file).unwrap();
        let (known, told) = watch::channel(None);
        let mut told = AuthoritySource::Here(told);
        assert_eq!(told.present().await, None);
        known.send(Some(pem("QUFB").into_bytes())).unwrap();
        told.changed().await;
        assert_eq!(told.present().await, IssuerAuthority::first_of(&pem("QUFB")));
    }
}
