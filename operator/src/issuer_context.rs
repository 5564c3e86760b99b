//! The ConfigMap with the document that has AWS map the context of the issuer's tokens.
//!
//! The chart creates it empty; the operator may patch this one and no other.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokenscope_core::ContextKeys;
use tokenscope_platform::health::Heartbeat;
use tokenscope_platform::telemetry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::FIELD_MANAGER;
use crate::index::SharedIndex;
use crate::leader::Leader;

/// The name of the ConfigMap.
const NAME: &str = "tokenscope-issuer-context";
/// The time after which it is looked at without an event.
const POLL: Duration = Duration::from_secs(60);
/// The least time between two writes, and after one that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The task that keeps the ConfigMap true.
pub(crate) struct IssuerContext {
    /// The client of the API server, for the writes.
    pub(crate) client: Client,
    /// The operator's own namespace.
    pub(crate) namespace: String,
    /// The issuer's URL.
    pub(crate) issuer: String,
    /// The leadership: the one process that has it writes.
    pub(crate) leader: Leader,
    /// The index of what is known.
    pub(crate) index: SharedIndex,
    /// The sign that the task lives.
    pub(crate) heartbeat: Heartbeat,
}

impl IssuerContext {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut changes = self.index.subscribe();
        let mut written = None;
        loop {
            self.heartbeat.touch();
            let keys = self.index.lock().await.known_context_keys();
            let wanted = keys.map(|keys| data(&self.issuer, &keys));
            if self.leader.is_leader() && wanted.is_some() && wanted != written {
                let patch = Patch::Merge(json!({"data": wanted}));
                match api.patch(NAME, &PatchParams::apply(FIELD_MANAGER), &patch).await {
                    Ok(_) => written = wanted,
                    Err(error) => {
                        tracing::warn!(
                            name = NAME,
                            error = telemetry::chain(&error),
                            "the ConfigMap can't be written"
                        );
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(PAUSE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = changes.changed() => {}
                () = self.leader.change() => written = None,
                // Somebody else may have changed it.
                () = sleep(POLL) => written = None,
            }
        }
    }
}

/// The contents of the ConfigMap.
fn data(issuer: &str, keys: &ContextKeys) -> Value {
    let provider = issuer.strip_prefix("https://").unwrap_or(issuer);
    let document = serde_json::to_string_pretty(&keys.provider_document()).unwrap_or_default();
    let how = format!(
        "Not yet seen by AWS: only tokenscope's own stand-in for AWS has judged this document.\n\
         In each account that trusts the issuer, after each change of context-provider.json:\n\n  \
         aws iam update-open-id-connect-provider \\\n    \
         --open-id-connect-provider-arn arn:aws:iam::ACCOUNT:oidc-provider/{provider} \\\n    \
         --context-provider file://context-provider.json\n"
    );
    json!({ContextKeys::PROVIDER_ENTRY: document, "README": how})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_provider_and_says_that_aws_has_not_seen_it() {
        let data = data("https://tokens.example.com/eu", &ContextKeys::default());
        let how = data["README"].as_str().unwrap();
        assert!(
            how.contains("oidc-provider/tokens.example.com/eu ") && how.starts_with("Not yet seen by AWS"),
            "{how}"
        );
        let document: Value = serde_json::from_str(data["context-provider.json"].as_str().unwrap()).unwrap();
        assert_eq!(document["SubjectTypeValue"], "workload");
    }
}
