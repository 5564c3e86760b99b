//! A stand-in for the EKS Pod Identity webhook, for tests of tokenscope in its place: it makes the same of a pod. `tests/compat` compares
//! it with the recorded cases of that webhook's own suite.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The name of its volume.
pub const VOLUME: &str = "aws-iam-token";
/// Its configuration's name, as its installations have it.
pub const CONFIGURATION: &str = "pod-identity-webhook";

const PREFIX: &str = "eks.amazonaws.com/";
const REGIONAL: &str = "AWS_STS_REGIONAL_ENDPOINTS";
const REGIONS: [&str; 2] = ["AWS_DEFAULT_REGION", "AWS_REGION"];
const PAIR: [&str; 2] = ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"];
/// The shortest lifetime that Kubernetes allows; shorter ones are raised.
const SHORTEST: i64 = 600;

/// Its flags.
#[derive(Clone, Debug)]
pub struct EksWebhook {
    /// `--aws-default-region`.
    pub region: String,
    /// `--sts-regional-endpoint`.
    pub regional: bool,
    /// `--token-expiration`.
    pub expiration: i64,
    /// `--token-mount-path`.
    pub mount_path: String,
    /// `--token-audience`.
    pub audience: String,
}

impl Default for EksWebhook {
    fn default() -> Self {
        Self {
            region: String::new(),
            regional: false,
            expiration: 86_400,
            mount_path: "/var/run/secrets/eks.amazonaws.com/serviceaccount".to_owned(),
            audience: "sts.amazonaws.com".to_owned(),
        }
    }
}

impl EksWebhook {
    /// The pod as it leaves it, if it changes it. `annotations` are those of the pod's service account.
    pub fn changed(&self, pod: &Value, annotations: &BTreeMap<String, String>) -> Option<Value> {
        let of_account = |key: &str| annotations.get(&format!("{PREFIX}{key}")).map(String::as_str);
        let of_pod = |key: &str| pod["metadata"]["annotations"][format!("{PREFIX}{key}")].as_str();
        let role = of_account("role-arn").filter(|role| !role.is_empty())?;
        let skip_label = format!("{PREFIX}skip-pod-identity-webhook");
        if !pod["metadata"]["labels"][skip_label].is_null() {
            return None;
        }
        let numbers = [of_pod("token-expiration"), of_account("token-expiration")];
        let expiration = numbers.into_iter().flatten().find_map(|text| text.parse().ok());
        let regional = of_account("sts-regional-endpoints").and_then(boolean);
        let skipped: Vec<&str> = of_pod("skip-containers")
            .map(|list| list.split(',').collect())
            .unwrap_or_default();

        let mut changed = pod.clone();
        let is_windows = pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "windows";
        for list in ["initContainers", "containers"] {
            for container in changed["spec"][list].as_array_mut().into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default();
                if !skipped.contains(&name) {
                    self.equip(container, role, regional.unwrap_or(self.regional), is_windows);
                }
            }
        }
        let token = json!({"serviceAccountToken": {
            "audience": of_account("audience").unwrap_or(&self.audience),
            "expirationSeconds": expiration.unwrap_or(self.expiration).max(SHORTEST), "path": "token",
        }});
        let volume = json!({"name": VOLUME, "projected": {"sources": [token]}});
        let volumes = list_of(&mut changed["spec"], "volumes");
        if !has(volumes, VOLUME) {
            volumes.insert(0, volume);
        }
        Some(changed)
    }

    /// The same as the patch that it answers with: it writes whole lists.
    pub fn patch(&self, pod: &Value, annotations: &BTreeMap<String, String>) -> Vec<Value> {
        let Some(changed) = self.changed(pod, annotations) else {
            return Vec::new();
        };
        let lists = ["volumes", "containers", "initContainers"].into_iter();
        let lists = lists.filter(|list| changed["spec"][*list] != pod["spec"][*list]);
        lists
            .map(|list| json!({"op": "add", "path": format!("/spec/{list}"), "value": changed["spec"][list]}))
            .collect()
    }

    fn equip(&self, container: &mut Value, role: &str, regional: bool, is_windows: bool) {
        let mut file = format!("{}/token", self.mount_path);
        if is_windows {
            file = format!("C:{}", file.replace('/', "\\"));
        }
        let env = list_of(container, "env");
        if regional && !has(env, REGIONAL) {
            env.push(json!({"name": REGIONAL, "value": "regional"}));
        }
        if !self.region.is_empty() {
            add_pair(env, REGIONS, [&self.region, &self.region]);
        }
        add_pair(env, PAIR, [role, &file]);
        let mounts = list_of(container, "volumeMounts");
        if !has(mounts, VOLUME) {
            mounts.push(json!({"name": VOLUME, "readOnly": true, "mountPath": self.mount_path}));
        }
    }
}

/// Adds two variables unless one of them is there.
fn add_pair(env: &mut Vec<Value>, names: [&str; 2], values: [&str; 2]) {
    if names.iter().any(|name| has(env, name)) {
        return;
    }
    let both = names.into_iter().zip(values);
    env.extend(both.map(|(name, value)| json!({"name": name, "value": value})));
}

/// A list of an object, which is made if it is not there.
fn list_of<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !object[key].is_array() {
        object[key] = json!([]);
    }
    #[expect(clippy::unwrap_used, reason = "it was made one just now")]
    object[key].as_array_mut().unwrap()
}

fn has(list: &[Value], name: &str) -> bool {
    list.iter().any(|item| item["name"] == name)
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
