//! Service accounts and pods of all kinds, as clusters with the EKS webhook have them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A role.
pub(crate) const ORDERS: &str = "arn:aws:iam::111122223333:role/orders";
/// Another one.
const CARTS: &str = "arn:aws:iam::111122223333:role/carts";

/// A container that one kind of pods skips and another webhook would add. Who creates such a pod is warned that it is not there yet.
pub(crate) const LATER: &str = "istio-proxy";

/// The name of a pod.
pub(crate) fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Annotations of the service accounts.
pub(crate) fn accounts() -> BTreeMap<String, BTreeMap<String, String>> {
    let annotated = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| (format!("eks.amazonaws.com/{key}"), (*value).to_owned()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let carts = [
        ("role-arn", CARTS),
        ("token-expiration", "7200"),
        ("sts-regional-endpoints", "false"),
    ];
    BTreeMap::from([
        ("orders".to_owned(), annotated(&[("role-arn", ORDERS)])),
        ("carts".to_owned(), annotated(&carts)),
        ("plain".to_owned(), BTreeMap::new()),
    ])
}

/// Pods of all kinds.
pub(crate) fn kinds() -> Vec<Value> {
    let pod = |name: &str, account: &str, containers: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"serviceAccountName": account, "containers": containers},
        })
    };
    let app = || json!([{"name": "app", "image": "app"}]);
    let mut many = pod(
        "many",
        "orders",
        json!([
            {"name": "app", "image": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "elsewhere", "image": "app", "env": [{"name": "AWS_REGION", "value": "us-east-1"}]},
        ]),
    );
    many["spec"]["initContainers"] = json!([
        {"name": "init", "image": "app"}, {"name": "sidecar", "image": "app", "restartPolicy": "Always"},
    ]);
    many["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let mut skipping = pod(
        "skipping",
        "orders",
        json!([{"name": "app", "image": "app"}, {"name": "proxy", "image": "app"}]),
    );
    skipping["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": format!("proxy,{LATER}")});
    let mut short = pod("short", "orders", app());
    short["metadata"]["annotations"] = json!({"eks.amazonaws.com/token-expiration": "3600"});
    let mut skipped = pod("skipped", "orders", app());
    skipped["metadata"]["labels"] = json!({"eks.amazonaws.com/skip-pod-identity-webhook": "true"});
    let mut windows = pod("windows", "orders", app());
    windows["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    let mut unmounted = pod("unmounted", "carts", app());
    unmounted["spec"]["automountServiceAccountToken"] = json!(false);
    vec![
        pod("orders", "orders", app()),
        pod("carts", "carts", app()),
        pod("plain", "plain", app()),
        many,
        skipping,
        short,
        skipped,
        windows,
        unmounted,
    ]
}
