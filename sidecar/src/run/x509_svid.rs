//! The task that keeps the X.509-SVID fresh.

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::sidecar::{X509_BUNDLE_FILE, X509_KEY_FILE, X509_SVID_FILE};

use super::Error;
use super::shared::Sidecar;
use super::source::SpiffeAgent;
use crate::clock::Clock;
use crate::directory::Readers;
use crate::fetch_error::{FetchError, TokenProvider};
use crate::workload_api::X509SvidResponse;
use crate::x509;

/// Keeps the X.509-SVID fresh. It ends only with `once`.
pub(super) async fn keep_x509<C: Clock>(sidecar: Arc<Sidecar<C>>, agent: Arc<SpiffeAgent>) -> Result<(), Error> {
    let files = [X509_SVID_FILE.to_owned()];
    let mut expires_at = None;
    let mut failures = 0;
    loop {
        let Err(trouble) = sidecar
            .follow_x509(&agent, &files, &mut expires_at, &mut failures)
            .await
        else {
            return Ok(());
        };
        failures += 1;
        let next = sidecar.after_failure(&files, trouble, failures, expires_at)?;
        sidecar.clock.wait_until(next).await;
    }
}

impl<C: Clock> Sidecar<C> {
    /// Follows the stream of X.509-SVIDs. Ends well only with `once`.
    async fn follow_x509(
        &self,
        agent: &SpiffeAgent,
        files: &[String],
        expires_at: &mut Option<Timestamp>,
        failures: &mut u32,
    ) -> Result<(), FetchError> {
        let opening = async {
            let mut stream = agent.client.x509_svids().await?;
            let message = stream.next(true).await?;
            Ok((stream, message))
        };
        let (mut stream, mut message) = self.with_progress(files, opening).await?;
        loop {
            *expires_at = Some(self.write_x509(agent, &message)?);
            *failures = 0;
            if self.config.once {
                return Ok(());
            }
            message = stream.next(false).await?;
        }
    }

    /// Writes the wanted X.509-SVID; returns until when it is valid.
    fn write_x509(&self, agent: &SpiffeAgent, message: &X509SvidResponse) -> Result<Timestamp, FetchError> {
        let svid = agent.settings.wanted.choose(&message.svids)?;
        let certificate = x509::certificates_to_pem(&svid.x509_svid);
        let certificate = certificate.ok_or(FetchError::Malformed("an X.509-SVID has no certificate"))?;
        let key = x509::key_to_pem(&svid.x509_svid_key);
        let key = key.ok_or(FetchError::Malformed("an X.509-SVID has no private key"))?;
        let bundle = x509::certificates_to_pem(&svid.bundle);
        let bundle = bundle.ok_or(FetchError::Malformed("an X.509-SVID has no bundle of authorities"))?;
        let end = x509::valid_until(&svid.x509_svid);
        let end = end.ok_or(FetchError::Malformed("the end of an X.509-SVID can't be read"))?;
        let now = self.clock.now();
        if end <= now {
            let seconds = now.duration_since(end).as_secs();
            return Err(FetchError::Expired {
                provider: TokenProvider::Agent,
                seconds,
            });
        }
        // The certificate last: who waits for it to change finds the key and the authorities that belong to it.
        self.write_everywhere(X509_KEY_FILE, key.as_bytes(), Readers::Owner)?;
        self.write_everywhere(X509_BUNDLE_FILE, bundle.as_bytes(), Readers::All)?;
        self.write_everywhere(X509_SVID_FILE, certificate.as_bytes(), Readers::All)?;
        self.renewed(X509_SVID_FILE, Some(end), now);
        Ok(end)
    }
}
