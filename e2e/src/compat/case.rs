//! A case: a pod, its circumstances, and the pod that is expected.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::pods::containers;

/// A pod, the circumstances that it is admitted under, and what must come out.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The service account's annotations (`serviceAccount/…`) and the other webhook's flags (`handler/…`).
    #[serde(default)]
    pub webhook_state: BTreeMap<String, String>,
    /// The pod that is admitted.
    pub pod: Value,
    /// The pod that the other webhook makes of it.
    pub expected_pod: Value,
}

impl Case {
    /// Values of an annotation of the pod, or else of the service account.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let key = format!("eks.amazonaws.com/{name}");
        let on_service_account = || {
            let (state, _) = SERVICE_ACCOUNT_KEYS
                .iter()
                .find(|(_, annotation)| *annotation == name)?;
            self.webhook_state.get(*state).map(String::as_str)
        };
        self.pod["metadata"]["annotations"][&key]
            .as_str()
            .or_else(on_service_account)
    }

    /// The containers that the pod does not skip, as they were admitted.
    pub(super) fn unskipped(&self) -> impl Iterator<Item = &Value> {
        let list = self.annotation("skip-containers").unwrap_or_default();
        let skipped: Vec<&str> = list.split(',').map(str::trim).collect();
        containers(&self.pod).filter(move |container| !skipped.iter().any(|name| container["name"] == **name))
    }
}

/// The place of each annotation of the service account in a case.
pub(super) const SERVICE_ACCOUNT_KEYS: [(&str, &str); 4] = [
    ("serviceAccount/roleArn", "role-arn"),
    ("serviceAccount/audience", "audience"),
    ("serviceAccount/sts-regional-endpoints", "sts-regional-endpoints"),
    ("serviceAccount/token-expiration", "token-expiration"),
];

pub(super) const EXPIRATION_FLAG: &str = "handler/expiration";

pub(super) const MOUNT_PATH_FLAG: &str = "handler/mountPath";

/// The flags for EKS Pod Identity: URL, audience, mount path, name of the volume, and path of the token in it.
pub(super) const AGENT_KEYS: [&str; 5] = [
    "containercredentials/uri",
    "containercredentials/audience",
    "containercredentials/mountPath",
    "containercredentials/volumeName",
    "containercredentials/tokenPath",
];

/// Every key that a case may have.
pub(super) const KEYS: [&str; 14] = [
    SERVICE_ACCOUNT_KEYS[0].0,
    SERVICE_ACCOUNT_KEYS[1].0,
    SERVICE_ACCOUNT_KEYS[2].0,
    SERVICE_ACCOUNT_KEYS[3].0,
    EXPIRATION_FLAG,
    MOUNT_PATH_FLAG,
    "handler/region",
    "handler/injectSTS",
    // What a bare role name is completed with. Names are not completed here: they are invalid roles.
    "handler/baseArn",
    AGENT_KEYS[0],
    AGENT_KEYS[1],
    AGENT_KEYS[2],
    AGENT_KEYS[3],
    AGENT_KEYS[4],
];
