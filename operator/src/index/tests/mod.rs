//! What follows for policies and pods from what watches tell; no API server, no clock.

mod association;
mod cases;
mod delivery;
mod evictions;
mod issuer;
mod lock;
mod notes;
mod pods;
mod policies;
mod proof;
mod review_margin;
mod share;
mod simulated_cluster;
mod spiffe;
mod status_size;
mod webhook_share;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_core::{Decision, Fingerprint, Grant};
use tokenscope_crds::v1alpha1::PolicyStatus;
use tokenscope_fixtures::ORDERS as ROLE;

use super::*;
use crate::status::statuses;

const OTHER_ROLE: &str = "arn:aws:iam::111122223333:role/shop/other";
const SPIFFE_ISSUER: &str = "https://oidc.example.org";
const ISSUER: &str = "https://oidc.example.com/id/1";

/// A moment of the day on which everything happens.
fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}

/// An index of the namespace `shop` at ten o'clock, in which every list was whole since half past midnight.
struct Test {
    index: Index,
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
        Self::with_share(settings, SHARE)
    }

    fn with_share(settings: Settings, share: usize) -> Self {
        let shop = json!({"metadata": {"name": "shop"}});
        let shop = IndexEvent::Namespace(Event::InitApply(serde_json::from_value(shop).unwrap()));
        let mut test = Self::starting(settings, share, &[shop], at("00:30"));
        test.now = at("10:00");
        test
    }

    /// An operator that starts now, with what is in these lists.
    fn listing(lists: &[IndexEvent], now: Timestamp) -> Self {
        Self::starting(Settings::default(), SHARE, lists, now)
    }

    fn starting(settings: Settings, share: usize, lists: &[IndexEvent], now: Timestamp) -> Self {
        let installation = Installation {
            settings,
            own_namespace: "tokenscope-system".into(),
            evicts_expired: false,
            review_margin: SignedDuration::from_mins(2),
            spiffe_issuer: Some(SPIFFE_ISSUER.into()),
            cluster_name: None,
        };
        let mut test = Self {
            index: Index::with_share(installation, SpiffeIds::default(), share),
            now,
            version: 100,
            last: Value::Null,
        };
        for change in lists.iter().cloned().chain([
            IndexEvent::Pod(Event::InitDone),
            IndexEvent::Namespace(Event::InitDone),
            IndexEvent::ServiceAccount(Event::InitDone),
            IndexEvent::Policy(Event::InitDone),
            IndexEvent::ClusterPolicy(Event::InitDone),
            IndexEvent::Boundary(Event::InitDone),
            IndexEvent::CsiDriver(Event::InitDone),
            IndexEvent::Issuer(Issuer::Known(ISSUER.into())),
        ]) {
            test.index.apply(change, test.now);
        }
        assert_eq!(test.index.waits_for(), None);
        test
    }

    fn apply(&mut self, change: IndexEvent) {
        self.index.apply(change, self.now);
    }

    fn namespace(&mut self, name: &str, labels: &Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.apply(IndexEvent::Namespace(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
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
        // An annotation counts from when it is seen.
        let now = std::mem::replace(&mut self.now, annotated_at);
        self.apply(IndexEvent::ServiceAccount(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        self.now = now;
    }

    /// A policy of generation 1 from six o'clock.
    fn policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        self.policy_object(name, 1, spec)
    }

    fn policy_object(&mut self, name: &str, generation: i64, spec: &Value) -> PolicyName {
        self.version += 1;
        let policy = PolicyName::namespaced("shop", name);
        let status = self.index.objects.get(&policy).map(|known| known.status.clone());
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "generation": generation,
                "resourceVersion": self.version.to_string(), "creationTimestamp": at("06:00").to_string(),
            },
            "spec": spec, "status": status,
        });
        self.apply(IndexEvent::Policy(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        policy
    }

    fn cluster_policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy",
            "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": at("06:00").to_string()},
            "spec": spec,
        });
        self.apply(IndexEvent::ClusterPolicy(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        PolicyName::cluster(name)
    }

    fn delete_policy(&mut self, name: &PolicyName) {
        let object = json!({"metadata": {"name": name.name(), "namespace": name.namespace()}});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.apply(IndexEvent::Policy(Event::Delete(object)));
    }

    fn pod(&mut self, name: &str, created: Timestamp, annotations: &Value) {
        let pod = pod("shop", name, created, annotations);
        self.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(pod).unwrap())));
    }

    /// A pod with what the webhook would write on it now.
    fn injected_pod(&mut self, name: &str, created: Timestamp) {
        self.injected_pod_with(name, created, None);
    }

    /// The same with a sidecar of this image in its record, and in the pod unless the image is empty.
    fn injected_pod_with(&mut self, name: &str, created: Timestamp, sidecar: Option<&str>) {
        self.pod(name, created, &json!({}));
        self.reassess();
        let pod_before = self.index.pods.value("shop", name).unwrap();
        let Some(Decision::Granted(granted)) = self.index.decide("shop", pod_before, self.now) else {
            panic!("nothing is granted");
        };
        let grants: Vec<(&str, &Grant)> = granted.containers.iter().map(|found| ("app", &*found.grant)).collect();
        let record = json!({
            "grants": [{"policy": grants[0].1.policy.as_ref().unwrap().to_string(), "role": ROLE, "containers": ["app"], "env": []}],
            "hash": Fingerprint::of("orders", grants).to_string(), "sidecar": sidecar.is_some(),
            "labels": {"app": "orders"}, "annotations": {},
        });
        let annotations = json!({"tokenscope.io/grant": record.to_string()});
        let mut object = pod("shop", name, created, &annotations);
        object["metadata"]["labels"] = json!({"app": "orders", "tokenscope.io/reviewed": "granted"});
        if let Some(image) = sidecar.filter(|image| !image.is_empty()) {
            object["spec"]["initContainers"] = json!([{"name": "tokenscope-sidecar", "image": image}]);
        }
        self.last = object.clone();
        self.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    }

    fn identity(&mut self, app: &str) {
        let object = json!({"metadata": {"name": app}, "spec": {"podSelector": {"matchLabels": {"app": app}}}});
        let object = serde_json::from_value(object).unwrap();
        self.apply(IndexEvent::SpiffeId(Some(Event::Apply(object))));
    }

    fn reassess(&mut self) {
        while self.index.is_dirty(self.now) {
            self.index.reassess(self.now);
        }
    }

    /// What should be written, and is then.
    fn written(&mut self) -> Vec<PolicyName> {
        self.reassess();
        let mut written = Vec::new();
        while let Some(name) = self.index.take_dirty_status() {
            if let Some((present, wanted)) = statuses(&self.index, &name, self.now)
                && *present != wanted
            {
                self.index.objects.get_mut(&name).unwrap().status = wanted;
                written.push(name);
            }
        }
        written
    }

    fn status(&mut self, name: &PolicyName) -> PolicyStatus {
        self.written();
        self.index.objects[name].status.clone()
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
        let PodCounts {
            matched,
            injected,
            missed,
            outdated,
            ..
        } = self.index.totals();
        [matched, injected, missed, outdated]
    }
}

fn pod(namespace: &str, name: &str, created: Timestamp, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "creationTimestamp": created.to_string(),
            "annotations": annotations, "managedFields": [made_by("kubectl-create", created, annotations)],
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

/// The managed fields of whoever made a pod with these annotations and the label `app`.
fn made_by(manager: &str, at: Timestamp, annotations: &Value) -> Value {
    let keys = annotations.as_object().into_iter().flatten();
    let owned: serde_json::Map<_, _> = keys.map(|(key, _)| (format!("f:{key}"), json!({}))).collect();
    json!({"manager": manager, "operation": "Update", "time": at.to_string(), "fieldsV1": {
        "f:metadata": {"f:annotations": owned, "f:labels": {"f:app": {}}}, "f:spec": {"f:containers": {}},
    }})
}

fn default_role(role: &str) -> Value {
    json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}})
}
