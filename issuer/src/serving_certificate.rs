//! The serving certificate: read from its Secret again and again, and swapped when it changed.
//!
//! Only `get` by name: a right to list or watch could not be bound to the one Secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::tls::{self, ServingCertificate};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const POLL: Duration = Duration::from_secs(5);

/// Keeps the certificate that the listener shows what its Secret says.
pub struct CertificateReader {
    /// Where the Secret is.
    pub secrets: Api<Secret>,
    /// Its name.
    pub name: String,
    /// What the listener shows.
    pub certificate: Arc<ServingCertificate>,
    /// Open while there is a certificate.
    pub gate: Gate,
}

/// Why a Secret gives no certificate.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the Secret can't be read: {0}")]
    Read(String),
    #[error("the Secret has no {0}")]
    Missing(&'static str),
    #[error("the Secret's certificate can't be used, and the one before stays")]
    Unusable(#[source] tls::Error),
}

impl CertificateReader {
    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut version = None;
        let mut problem = None;
        while !stop.is_cancelled() {
            let looked = self.look(&mut version).await.err().map(|error| chain(&error));
            if let Some(text) = &looked
                && problem.as_ref() != Some(text)
            {
                tracing::warn!(secret = self.name, error = text, "no new serving certificate");
            }
            problem = looked;
            match (self.certificate.info(), &problem) {
                (Some(_), _) => self.gate.open(),
                (None, problem) => self.gate.close(problem.as_deref().unwrap_or("there is none yet")),
            }
            stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
        }
        Ok(())
    }

    async fn look(&self, version: &mut Option<String>) -> Result<(), Unread> {
        let found = self.secrets.get(&self.name).await;
        let secret = found.map_err(|error| Unread::Read(chain(&error)))?;
        if secret.metadata.resource_version.is_some() && secret.metadata.resource_version == *version {
            return Ok(());
        }
        let data = secret.data.unwrap_or_default();
        let entry = |key| data.get(key).ok_or(Unread::Missing(key));
        let (certificate, key) = (entry("tls.crt")?, entry("tls.key")?);
        let info = self
            .certificate
            .replace(&certificate.0, &key.0)
            .map_err(Unread::Unusable)?;
        tracing::info!(serial = info.serial, not_after = %info.not_after, "a serving certificate was taken");
        *version = secret.metadata.resource_version;
        Ok(())
    }
}
