//! The issuer of the cluster's ServiceAccount tokens: the one that the API server publishes, unless a flag names another.

use std::convert::Infallible;

use kube::Client;
use serde::Deserialize;
use tokenscope_platform::telemetry;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::index::IndexEvent;
use crate::issuer::Issuer;

/// OpenID Connect discovery, as the API server serves it (Kubernetes, "Service account issuer discovery").
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The time between two tries that fail: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server's issuer discovery can't be read")]
    Request(#[from] kube::Error),
    #[error("the address of the issuer discovery is wrong")]
    Address(#[from] http::Error),
    #[error("the API server names no issuer")]
    NoIssuer,
}

/// Tells the issuer, and again whenever it is another one; looks every `again`.
pub(crate) async fn run(
    client: Client,
    given: Option<String>,
    again: Duration,
    events: mpsc::Sender<IndexEvent>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    // Once the other end is gone, the process stops.
    if let Some(given) = given {
        let _ = events.send(IndexEvent::Issuer(Issuer::Known(given))).await;
        stop.cancelled().await;
        return Ok(());
    }
    let mut known = None;
    let mut pause = PAUSES.0;
    loop {
        let found = match discover(&client).await {
            Ok(found) => {
                pause = PAUSES.0;
                Some(Issuer::Known(found))
            }
            Err(error) => {
                tracing::warn!(error = telemetry::chain(&error), "the cluster's issuer is not known");
                // What was right once is better than nothing.
                known.is_none().then_some(Issuer::Unknown)
            }
        };
        let failed = !matches!(found, Some(Issuer::Known(_)));
        if let Some(found) = found.filter(|found| known.as_ref() != Some(found)) {
            if let Issuer::Known(issuer) = &found {
                tracing::info!(issuer, "the cluster's issuer");
            }
            known = Some(found.clone());
            if events.send(IndexEvent::Issuer(found)).await.is_err() {
                return Ok(());
            }
        }
        let wait = if failed { pause } else { again.max(PAUSES.0) };
        if failed {
            pause = (pause * 2).min(PAUSES.1);
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

async fn discover(client: &Client) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct IssuerDiscovery {
        #[serde(default)]
        issuer: String,
    }
    let request = http::Request::get(DISCOVERY).body(Vec::new())?;
    let discovery: IssuerDiscovery = client.request(request).await?;
    if discovery.issuer.is_empty() {
        return Err(Error::NoIssuer);
    }
    Ok(discovery.issuer)
}
