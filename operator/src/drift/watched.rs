//! From a pod's JSON to what is kept of it.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use tokenscope_core::annotations::{self, Mark, OF_SERVICE_ACCOUNTS};
use tokenscope_core::bounds::Beyond;
use tokenscope_core::{ContainerFacts, Fingerprint, GrantRecord, Pairs, PolicyName, pod};
use tokenscope_index::{DEFAULT_SERVICE_ACCOUNT, FromPodJson, PodObject, pod_identity};

use super::added::{config_writer, issuer_authority, serves_as_recorded, sidecar};
use super::pod::{ChangedKeys, KeptPod, Record, RecordedDecision};
use super::volumes::KeptVolume;
use crate::history::{FieldWriter, late_keys};

/// A pod's JSON, as far as it is read.
#[derive(Deserialize)]
pub(crate) struct WirePod {
    metadata: WireMetadata,
    #[serde(default)]
    spec: Option<pod::Spec<Box<str>>>,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    name: Box<str>,
    #[serde(default)]
    namespace: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: pod::PodLabels<Box<str>>,
    #[serde(default)]
    annotations: Option<pod::PodAnnotations<Box<str>>>,
    #[serde(default)]
    managed_fields: Option<Vec<FieldWriter>>,
    #[serde(default, rename = "ownerReferences")]
    owner: pod::Owner<Box<str>>,
}

#[derive(Default, Deserialize)]
struct WireStatus {
    #[serde(default)]
    phase: Cow<'static, str>,
    #[serde(default)]
    conditions: Option<Vec<WireCondition>>,
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(rename = "type")]
    type_: Box<str>,
    status: Box<str>,
}

impl WireStatus {
    fn is_ready(&self) -> bool {
        let mut conditions = self.conditions.iter().flatten();
        conditions.any(|condition| *condition.type_ == *"Ready" && *condition.status == *"True")
    }
}

impl FromPodJson for KeptPod {
    type Json = WirePod;

    fn keep(wire: WirePod) -> PodObject<Self> {
        let WireMetadata {
            name,
            namespace,
            uid,
            resource_version,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            managed_fields,
            owner,
        } = wire.metadata;
        let identity = pod_identity(&name, &namespace, resource_version);
        let whole = whole(labels, annotations, wire.spec);
        let ended = deletion_timestamp.is_some() || matches!(&*wire.status.phase, "Succeeded" | "Failed");
        let record = believed_record(&whole);
        let record = record.as_ref();
        let is_proven = has_label(&whole) && record.is_some_and(|record| record.labels.is_some());
        let created = creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |Time(at)| at);
        let (labels, annotations) = what_decides(&whole, record);
        let sidecar = sidecar(&whole).filter(|_| record.is_some_and(|record| record.sidecar));
        let kept = Self {
            name,
            uid,
            created,
            running: !ended && whole.annotation(annotations::MIRROR).is_none(),
            ready: wire.status.is_ready(),
            service_account: service_account(&whole.spec),
            late_keys: keys_added_later(record, managed_fields, created, &labels, &annotations),
            labels,
            annotations,
            annotation_count: annotation_count(&whole, record),
            changed_keys: ChangedKeys::Unknown,
            containers: containers(&whole, record),
            beyond: beyond(&whole, record),
            token_volumes: KeptVolume::all_of(&whole, record.filter(|_| is_proven)),
            mark: mark(&whole),
            record: record.map(|record| read(record, is_proven)),
            sidecar: sidecar
                .filter(|added| record.is_some_and(|record| serves_as_recorded(added, record)))
                .map(|added| added.image.clone().unwrap_or_default()),
            config_writer: record.and_then(|record| config_writer(&whole, record)),
            issuer_authority: sidecar.and_then(issuer_authority),
            owner: owner.into_main().map(Box::new),
        };
        PodObject::new(identity, kept)
    }
}

/// The pod as decisions read it.
fn whole(
    labels: pod::PodLabels<Box<str>>,
    annotations: Option<pod::PodAnnotations<Box<str>>>,
    spec: Option<pod::Spec<Box<str>>>,
) -> pod::Pod<Box<str>> {
    pod::Pod {
        metadata: pod::Metadata {
            labels,
            annotations,
            ..pod::Metadata::default()
        },
        spec: spec.unwrap_or_default(),
    }
}

fn service_account(spec: &pod::Spec<Box<str>>) -> Box<str> {
    let named = spec.service_account_name.as_deref().filter(|name| !name.is_empty());
    named.unwrap_or(DEFAULT_SERVICE_ACCOUNT).into()
}

/// The keys that the pod was not created with, as far as its managed fields tell. There are none where the record states the labels and
/// annotations of the admission.
fn keys_added_later(
    record: Option<&GrantRecord<'_>>,
    managed_fields: Option<Vec<FieldWriter>>,
    created: Timestamp,
    labels: &Pairs<Box<str>>,
    annotations: &Pairs<Box<str>>,
) -> Box<[Box<str>]> {
    if record.is_some_and(|record| record.labels.is_some()) {
        return Box::default();
    }
    late_keys(
        &managed_fields.unwrap_or_default(),
        created,
        labels.iter().map(|(key, _)| key),
        annotations.iter().map(|(key, _)| key),
    )
}

fn has_label(pod: &pod::Pod<Box<str>>) -> bool {
    pod.metadata.labels.pairs().value(annotations::REVIEWED).is_some()
}

/// The label; a pod from before version 0.2 has an annotation instead.
fn mark(pod: &pod::Pod<Box<str>>) -> Option<Mark> {
    let label = pod.metadata.labels.pairs().value(annotations::REVIEWED);
    Mark::read(label.or_else(|| pod.annotation(annotations::REVIEWED))?)
}

/// The record, if the mark says that there is one. Before version 0.2 a record had no labels, and the pod no such label.
fn believed_record(pod: &pod::Pod<Box<str>>) -> Option<GrantRecord<'_>> {
    let record = pod.grant_record()?;
    let is_marked = has_label(pod) && mark(pod) == Some(Mark::Granted);
    let is_older = !has_label(pod) && record.labels.is_none();
    (is_marked || is_older).then_some(record)
}

/// Labels and annotations at admission, where the record has them. A running pod's own can be changed by whoever may patch it.
fn what_decides(pod: &pod::Pod<Box<str>>, record: Option<&GrantRecord<'_>>) -> (Pairs<Box<str>>, Pairs<Box<str>>) {
    let boxed = |(key, value): (&str, &str)| (Box::from(key), Box::from(value));
    let decides = |(key, _): &(&str, &str)| annotations::decides(key);
    match record.and_then(|record| Some((record.labels.as_ref()?, record.annotations.as_ref()))) {
        Some((labels, annotations)) => (
            labels.iter().map(boxed).collect(),
            annotations
                .into_iter()
                .flat_map(Pairs::iter)
                .filter(decides)
                .map(boxed)
                .collect(),
        ),
        None => (
            pod.metadata.labels.pairs().iter().map(boxed).collect(),
            pod.metadata
                .annotations
                .iter()
                .flat_map(|annotations| annotations.pairs().iter())
                .filter(decides)
                .map(boxed)
                .collect(),
        ),
    }
}

/// The bounds that the pod exceeds; once there is a record, only those of its spec, since its labels and annotations are not read.
fn beyond(pod: &pod::Pod<Box<str>>, record: Option<&GrantRecord<'_>>) -> Box<[Beyond]> {
    let is_recorded = record.is_some_and(|record| record.labels.is_some());
    let beyond = pod.beyond().into_iter();
    beyond.filter(|beyond| !is_recorded || beyond.is_of_spec()).collect()
}

/// The number of annotations at admission, where the record says it; else their number now.
fn annotation_count(pod: &pod::Pod<Box<str>>, record: Option<&GrantRecord<'_>>) -> usize {
    match record.and_then(|record| record.labels.as_ref().map(|_| record.annotations.as_ref())) {
        Some(recorded) => recorded.map_or(0, |pairs| pairs.iter().count()),
        None => pod.metadata.annotations.as_ref().map_or(0, pod::PodAnnotations::count),
    }
}

fn containers(pod: &pod::Pod<Box<str>>, record: Option<&GrantRecord<'_>>) -> Box<[ContainerFacts<Box<str>>]> {
    let containers = pod.facts(record).containers;
    containers.iter().map(|container| container.map(Box::from)).collect()
}

fn read(record: &GrantRecord<'_>, is_proven: bool) -> Record {
    let boxed = |(key, value): (&str, &str)| (Box::from(key), Box::from(value));
    let of_account = |pairs: &Pairs<Cow<'_, str>>| {
        let deciding = pairs.iter().filter(|(key, _)| OF_SERVICE_ACCOUNTS.contains(key));
        deciding.map(boxed).collect()
    };
    let grants = record.grants.iter();
    let mut policies: Vec<PolicyName> = grants.filter_map(|grant| grant.policy.as_ref()?.parse().ok()).collect();
    policies.sort();
    policies.dedup();
    Record {
        is_proven,
        sidecar: record.sidecar,
        decision: record.hash.parse().map_or_else(
            |_| RecordedDecision::Roles(Fingerprint::of_roles(record.roles())),
            RecordedDecision::Whole,
        ),
        policies: policies.into(),
        service_account_annotations: record.service_account_annotations.as_ref().map(of_account),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokenscope_core::OwnRole;

    use super::*;

    fn read(mut object: Value) -> KeptPod {
        object["metadata"]["name"] = "orders-1".into();
        serde_json::from_value::<PodObject<KeptPod>>(object).unwrap().kept
    }

    #[test]
    fn what_the_webhook_added_is_not_the_containers_own() {
        let grant = json!({
            "grants": [
                {"policy": "TokenScopePolicy shop/orders", "role": "r", "containers": ["app"],
                 "env": ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]},
            ],
            "hash": "0011223344556677",
        });
        let env = json!([
            {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::111122223333:role/a"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/token"},
        ]);
        let pod = read(json!({
            "metadata": {"annotations": {"tokenscope.io/grant": grant.to_string(), "a": "b", "tokenscope.io/role-arn": "x"}},
            "spec": {"containers": [{"name": "app", "env": env}, {"name": "own", "env": env}]},
        }));

        let facts = pod.facts();
        assert_eq!(facts.containers[0].own_role, OwnRole::Absent);
        assert!(!facts.containers[0].own_token_file);
        assert_eq!(
            facts.containers[1].own_role,
            OwnRole::Literal("arn:aws:iam::111122223333:role/a")
        );
        let record = pod.record.as_ref().unwrap();
        assert_eq!(
            record.decision,
            RecordedDecision::Roles(Fingerprint::of_roles([("app", "r")])),
            "a fingerprint of the version before"
        );
        assert_eq!(*record.policies, [PolicyName::namespaced("shop", "orders")]);
        assert_eq!(
            facts.annotations.iter().count(),
            1,
            "what can't change a decision is not kept"
        );
        assert!(pod.asks());
        assert_eq!(&*pod.service_account, "default");
    }

    #[test]
    fn labels_and_annotations_that_were_added_later_are_not_counted() {
        let many = |count: usize| -> serde_json::Map<String, Value> {
            (0..count).map(|at| (format!("example.com/a{at}"), "".into())).collect()
        };
        let admitted = json!({
            "grants": [], "hash": "0011223344556677", "labels": {"team": "a"}, "annotations": {"tokenscope.io/role-arn": "x"},
        });
        let pod = |mark: Value| {
            let mut labels = many(300);
            labels.insert("tokenscope.io/reviewed".into(), mark);
            let mut annotations = many(400);
            annotations.insert("tokenscope.io/grant".into(), admitted.to_string().into());
            read(json!({
                "metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": [{"name": "app"}]},
            }))
        };
        let granted = pod("granted".into());
        assert_eq!(
            (granted.facts().annotation_count, granted.facts().beyond),
            (1, Vec::new())
        );
        let without = pod("untouched".into());
        assert!(without.facts().annotation_count > 400 && without.facts().beyond.contains(&Beyond::Labels));
    }

    #[test]
    fn finished_ending_and_mirror_pods_do_not_run() {
        let containers = json!({"containers": [{"name": "app"}]});
        let running = |metadata: Value, phase: &str| {
            read(json!({"metadata": metadata, "spec": containers, "status": {"phase": phase}})).running
        };

        assert!(running(json!({}), "Running") && running(json!({}), "Pending"));
        assert!(!running(json!({}), "Succeeded") && !running(json!({}), "Failed"));
        assert!(!running(
            json!({"deletionTimestamp": "2026-11-22T08:00:00Z"}),
            "Running"
        ));
        assert!(!running(
            json!({"annotations": {"kubernetes.io/config.mirror": "x"}}),
            "Running"
        ));
    }

    #[test]
    fn the_controller_is_the_owner_that_counts() {
        let owner = |name: &str, controller: bool| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name, "controller": controller});
        let pod = read(json!({
            "metadata": {"ownerReferences": [owner("a", false), owner("b", true)]},
            "spec": {"containers": []},
        }));

        assert_eq!(&*pod.controller().unwrap().name, "b");
    }
}
