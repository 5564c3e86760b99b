//! What follows for policies and pods from what watches tell; no API server, no clock.

mod evictions;
mod lock;
mod pods;
mod policies;
mod share;
mod spiffe;

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokenscope_core::{Decision, Grant, fingerprint};

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const OTHER_ROLE: &str = "arn:aws:iam::111122223333:role/shop/other";
const SPIFFE_ISSUER: &str = "https://oidc.example.org";
const ISSUER: &str = "https://oidc.example/id/1";

/// A moment of the day on which everything happens.
fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}

/// A world of the namespace `shop` at ten o'clock, in which every list was whole.
struct Test {
    world: World,
    now: Timestamp,
    version: u32,
    /// The last pod that was injected.
    last: Value,
}

impl Test {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let mut test = Self {
            world: World::new(
                settings,
                "tokenscope-system",
                Some(SPIFFE_ISSUER.into()),
                Identities::default(),
            ),
            now: at("10:00"),
            version: 100,
            last: Value::Null,
        };
        test.namespace("shop", &json!({}));
        for change in [
            Change::Pod(Event::InitDone),
            Change::Namespace(Event::InitDone),
            Change::ServiceAccount(Event::InitDone),
            Change::Policy(Event::InitDone),
            Change::ClusterPolicy(Event::InitDone),
            Change::CsiDriver(Event::InitDone),
            Change::Issuer(Issuer::Known(ISSUER.into())),
        ] {
            test.world.apply(change, test.now);
        }
        assert_eq!(test.world.waits_for(), None);
        test
    }

    fn apply(&mut self, change: Change) {
        self.world.apply(change, self.now);
    }

    fn namespace(&mut self, name: &str, labels: &Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.apply(Change::Namespace(Event::Apply(serde_json::from_value(object).unwrap())));
    }

    fn account(&mut self, name: &str, role: &str, annotated_at: Timestamp) {
        let fields = json!({"f:metadata": {"f:annotations": {"f:tokenscope.io/role-arn": {}}}});
        let object = json!({"metadata": {
            "name": name, "namespace": "shop", "creationTimestamp": at("01:00").to_string(),
            "annotations": {"tokenscope.io/role-arn": role},
            "managedFields": [
                {"manager": "a", "operation": "Update", "time": at("01:00").to_string(), "fieldsV1": {"f:metadata": {}}},
                {"manager": "kubectl-annotate", "operation": "Update", "time": annotated_at.to_string(), "fieldsV1": fields},
            ],
        }});
        self.apply(Change::ServiceAccount(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
    }

    /// A policy of generation 1 from six o'clock.
    fn policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        self.policy_object(name, 1, spec)
    }

    fn policy_object(&mut self, name: &str, generation: i64, spec: &Value) -> PolicyName {
        self.version += 1;
        let policy = PolicyName::namespaced("shop", name);
        let status = self.world.objects.get(&policy).map(|known| known.status.clone());
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "generation": generation,
                "resourceVersion": self.version.to_string(), "creationTimestamp": at("06:00").to_string(),
            },
            "spec": spec, "status": status,
        });
        self.apply(Change::Policy(Event::Apply(serde_json::from_value(object).unwrap())));
        policy
    }

    fn cluster_policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy",
            "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": at("06:00").to_string()},
            "spec": spec,
        });
        self.apply(Change::ClusterPolicy(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        PolicyName::cluster(name)
    }

    fn pod(&mut self, name: &str, created: Timestamp, annotations: &Value) {
        let pod = pod("shop", name, created, annotations);
        self.apply(Change::Pod(Event::Apply(serde_json::from_value(pod).unwrap())));
    }

    /// A pod with what the webhook would write on it now.
    fn injected_pod(&mut self, name: &str, created: Timestamp) {
        self.injected_pod_with(name, created, None);
    }

    /// The same with a sidecar of this image in its record, and in the pod unless the image is empty.
    fn injected_pod_with(&mut self, name: &str, created: Timestamp, sidecar: Option<&str>) {
        self.pod(name, created, &json!({}));
        self.pass();
        let around = &self.world.namespaces["shop"];
        let pod_before = around.pods[name].pod.as_ref().unwrap();
        let surroundings = self.world.surroundings("shop", around, pod_before).unwrap();
        let Decision::Granted(granted) = surroundings.decide(pod_before, self.now) else {
            panic!("nothing is granted");
        };
        let grants: Vec<(&str, &Grant)> = granted.containers.iter().map(|found| ("app", &found.grant)).collect();
        let record = json!({
            "grants": [{"policy": grants[0].1.policy.as_ref().unwrap().to_string(), "role": ROLE, "containers": ["app"], "env": []}],
            "hash": fingerprint("orders", grants), "sidecar": sidecar.is_some(),
            "labels": {"app": "orders"}, "annotations": {},
        });
        let annotations = json!({"tokenscope.io/grant": record.to_string()});
        let mut object = pod("shop", name, created, &annotations);
        object["metadata"]["labels"] = json!({"app": "orders", "tokenscope.io/reviewed": "granted"});
        if let Some(image) = sidecar.filter(|image| !image.is_empty()) {
            object["spec"]["initContainers"] = json!([{"name": "tokenscope-sidecar", "image": image}]);
        }
        self.last = object.clone();
        self.apply(Change::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    }

    fn identity(&mut self, app: &str) {
        let object = json!({"metadata": {"name": app}, "spec": {"podSelector": {"matchLabels": {"app": app}}}});
        let object = serde_json::from_value(object).unwrap();
        self.apply(Change::Identities(Some(Event::Apply(object))));
    }

    fn pass(&mut self) {
        while self.world.is_stale(self.now) {
            self.world.pass(self.now);
        }
    }

    /// What should be written, and is then.
    fn written(&mut self) -> Vec<PolicyName> {
        self.pass();
        let mut written = Vec::new();
        while let Some(name) = self.world.take_concerned() {
            if let Some((present, wanted)) = self.world.statuses(&name, self.now)
                && *present != wanted
            {
                self.world.objects.get_mut(&name).unwrap().status = wanted;
                written.push(name);
            }
        }
        written
    }

    fn status(&mut self, name: &PolicyName) -> PolicyStatus {
        self.written();
        self.world.objects[name].status.clone()
    }

    /// matched, injected, missed, outdated
    fn counts(&mut self, name: &PolicyName) -> [i64; 4] {
        let status = self.status(name);
        [
            status.matched_pods,
            status.injected_pods,
            status.missed_pods,
            status.outdated_pods,
        ]
        .map(Option::unwrap)
    }

    fn reasons(&mut self, name: &PolicyName) -> [String; 3] {
        let status = self.status(name);
        ["Accepted", "Active", "Ready"].map(|kind| {
            status
                .conditions
                .iter()
                .find(|found| found.type_ == kind)
                .unwrap()
                .reason
                .clone()
        })
    }

    fn ready_reason(&mut self, name: &PolicyName) -> String {
        let conditions = self.status(name).conditions;
        let ready = conditions.into_iter().find(|found| found.type_ == "Ready");
        ready.unwrap().reason
    }

    fn ready_message(&mut self, name: &PolicyName) -> String {
        let status = self.status(name);
        status
            .conditions
            .into_iter()
            .find(|found| found.type_ == "Ready")
            .unwrap()
            .message
    }

    fn totals(&self) -> [i64; 4] {
        let Tally {
            matched,
            injected,
            missed,
            outdated,
            ..
        } = self.world.totals();
        [matched, injected, missed, outdated]
    }
}

fn pod(namespace: &str, name: &str, created: Timestamp, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "creationTimestamp": created.to_string(),
            "annotations": annotations,
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

fn default_role(role: &str) -> Value {
    json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}})
}
