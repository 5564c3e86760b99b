//! The check that this cluster runs native sidecars: init containers that go on running beside the others.
//!
//! The API server is asked rather than the chart, which knows only the cluster that it was rendered for, or none at all.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry;
use tokio_util::sync::CancellationToken;

/// The first version that has them without being asked (Kubernetes, "Sidecar Containers").
const NATIVE_SIDECARS: (u32, u32) = (1, 29);

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The reason why sidecars can't be added here, if they can't; none where the API server would not say its version. Waits
/// for an API server that can't be reached, since there is nothing to review before; none at `stop`.
pub async fn unsupported(client: &Client, gate: &Gate, stop: &CancellationToken) -> Option<String> {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                gate.open();
                let why = too_old(&version);
                if let Some(why) = &why {
                    tracing::warn!(why, "pods can't have tokens that a sidecar keeps");
                }
                return why;
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                tracing::warn!("the API server does not tell its version, so it is taken for a new one");
                gate.open();
                return None;
            }
            Err(error) => tracing::warn!(
                error = telemetry::chain(&error),
                "the API server's version is not known yet"
            ),
        }
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await?;
    }
}

/// In an older version the sidecar would be an init container that never ends, and its pod would never start.
fn too_old(version: &Info) -> Option<String> {
    let number = |text: &str| -> Option<u32> {
        // Some providers write 29+.
        text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    let found = (number(&version.major)?, number(&version.minor)?);
    (found < NATIVE_SIDECARS).then(|| {
        format!(
            "tokens that a sidecar keeps, from SPIFFE or from tokenscope's issuer, and credentials that it serves need Kubernetes 1.29 or newer, whose init containers can run as sidecars, and this cluster has {}.{}: give it a role by a policy with token.source ServiceAccount and delivery.type File or Profile",
            found.0, found.1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_old_is(major: &str, minor: &str) -> bool {
        let version = Info {
            major: major.into(),
            minor: minor.into(),
            ..Info::default()
        };
        too_old(&version).is_some()
    }

    #[test]
    fn versions_before_1_29_are_too_old_and_unknown_ones_are_not() {
        assert!(too_old_is("1", "28") && too_old_is("1", "27+") && too_old_is("1", "9"));
        assert!(!too_old_is("1", "29") && !too_old_is("1", "30+") && !too_old_is("1", "100") && !too_old_is("2", "0"));
        assert!(!too_old_is("", "") && !too_old_is("1", "next"));
    }
}
