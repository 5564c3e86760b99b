//! A pod as drift needs it: a few hundred bytes, of which a cluster has many thousands.

use jiff::Timestamp;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;
use std::borrow::Cow;
use tokenscope_core::{
    Container as ContainerFacts, OwnRole, Pairs, PodFacts, PolicyName, annotations,
    bounds::Beyond,
    pod::{self, OwnerReference},
};

/// The service account that the API server's own admission gives a pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) created: Timestamp,
    /// Whether it runs or is about to: not finished, not on its way out, and not a mirror pod.
    pub(crate) running: bool,
    pub(crate) service_account: Box<str>,
    labels: Pairs<Box<str>>,
    /// Those that can change a decision, without our own record.
    annotations: Pairs<Box<str>>,
    annotation_count: usize,
    containers: Box<[Container]>,
    /// The bounds of a review that it exceeds.
    beyond: Box<[Beyond]>,
    pub(crate) record: Option<Record>,
    /// The image of the sidecar that the webhook added.
    pub(crate) sidecar: Option<Box<str>>,
    pub(crate) owner: Option<Box<OwnerReference<Box<str>>>>,
}

/// What the webhook noted on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The fingerprint of what was granted.
    pub(crate) hash: Box<str>,
    /// Who granted it.
    pub(crate) policies: Box<[PolicyName]>,
    /// Whether a sidecar was added.
    pub(crate) sidecar: bool,
}

#[derive(Clone, Debug)]
struct Container {
    name: Box<str>,
    own_role: Own,
    own_token_file: bool,
}

#[derive(Clone, Debug)]
enum Own {
    Absent,
    Literal(Box<str>),
    Indirect,
}

impl Pod {
    /// The facts that a decision looks at.
    pub(crate) fn facts(&self) -> PodFacts<'_> {
        let containers = self.containers.iter().map(|container| ContainerFacts {
            name: &container.name,
            own_role: match &container.own_role {
                Own::Absent => OwnRole::Absent,
                Own::Literal(role) => OwnRole::Literal(role),
                Own::Indirect => OwnRole::Indirect,
            },
            own_token_file: container.own_token_file,
        });
        PodFacts {
            labels: self.labels.borrowed(),
            annotations: self.annotations.borrowed(),
            annotation_count: self.annotation_count,
            containers: containers.collect(),
            beyond: self.beyond.to_vec(),
            ..PodFacts::default()
        }
    }

    /// Whether it names a role itself, so that it had to be reviewed.
    pub(crate) fn asks(&self) -> bool {
        let names_a_role = |key: &str| key == annotations::ROLE_ARN || key.starts_with(annotations::CONTAINER_ROLE_ARN);
        self.annotations.iter().any(|(key, _)| names_a_role(key))
    }

    /// What the webhook made of it, if it saw it.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.annotations.value(annotations::REVIEWED)
    }

    /// The controller that would make another one.
    pub(crate) fn controller(&self) -> Option<&OwnerReference<Box<str>>> {
        self.owner.as_deref().filter(|owner| owner.controller == Some(true))
    }

    /// Whether nothing that matters is different.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.running == other.running
            && self.labels == other.labels
            && self.annotations == other.annotations
            && self.record == other.record
            && self.sidecar == other.sidecar
    }
}

/// A pod as a watch delivers it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(crate) struct WatchedPod {
    /// Name, namespace and version only.
    metadata: ObjectMeta,
    /// Its namespace.
    pub(crate) namespace: Box<str>,
    /// The rest.
    pub(crate) pod: Pod,
}

#[derive(Deserialize)]
struct Wire {
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
    labels: pod::Labels<Box<str>>,
    #[serde(default)]
    annotations: Option<pod::Annotations<Box<str>>>,
    #[serde(default, rename = "ownerReferences")]
    owner: pod::Owner<Box<str>>,
}

#[derive(Default, Deserialize)]
struct WireStatus {
    #[serde(default)]
    phase: Cow<'static, str>,
}

impl From<Wire> for WatchedPod {
    fn from(wire: Wire) -> Self {
        let WireMetadata {
            name,
            namespace,
            uid,
            resource_version,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            owner,
        } = wire.metadata;
        let metadata = ObjectMeta {
            name: Some(name.as_ref().into()),
            namespace: Some(namespace.as_ref().into()),
            resource_version,
            ..ObjectMeta::default()
        };
        let whole = pod::Pod {
            metadata: pod::Metadata {
                labels,
                annotations,
                ..pod::Metadata::default()
            },
            spec: wire.spec.unwrap_or_default(),
        };
        let finished = matches!(&*wire.status.phase, "Succeeded" | "Failed");
        let running = !finished && deletion_timestamp.is_none() && whole.annotation(annotations::MIRROR).is_none();
        let beyond = whole.beyond().into();
        let (containers, record) = read_containers(&whole);
        let sidecar = sidecar(&whole).filter(|_| record.as_ref().is_some_and(|record| record.sidecar));
        let service_account = whole.spec.service_account_name.filter(|name| !name.is_empty());
        let annotations = whole.metadata.annotations.unwrap_or_default();
        let annotation_count = annotations.count();
        let mut annotations = annotations.into_pairs();
        annotations.retain(|key| key != annotations::GRANT);
        Self {
            metadata,
            namespace,
            pod: Pod {
                name,
                uid,
                created: creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |Time(at)| at),
                running,
                service_account: service_account.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.into()),
                labels: whole.metadata.labels.into_pairs(),
                annotations,
                annotation_count,
                containers,
                beyond,
                record,
                sidecar,
                owner: owner.into_main().map(Box::new),
            },
        }
    }
}

fn read_containers(pod: &pod::Pod<Box<str>>) -> (Box<[Container]>, Option<Record>) {
    let record = pod.grant_record();
    let facts = pod.facts(record.as_ref());
    let containers = facts.containers.iter().map(|container| Container {
        name: container.name.into(),
        own_role: match container.own_role {
            OwnRole::Absent => Own::Absent,
            OwnRole::Literal(role) => Own::Literal(role.into()),
            OwnRole::Indirect => Own::Indirect,
        },
        own_token_file: container.own_token_file,
    });
    let containers = containers.collect();
    let record = record.map(|record| {
        let mut policies: Vec<PolicyName> = record
            .grants
            .iter()
            .filter_map(|grant| grant.policy.as_ref()?.parse().ok())
            .collect();
        policies.sort();
        policies.dedup();
        Record {
            sidecar: record.sidecar,
            hash: record.hash.into(),
            policies: policies.into(),
        }
    });
    (containers, record)
}

fn sidecar(pod: &pod::Pod<Box<str>>) -> Option<Box<str>> {
    let mut init_containers = pod.spec.init_containers.iter().flatten();
    let sidecar = init_containers.find(|container| *container.name == *pod::SIDECAR)?;
    Some(sidecar.image.clone().unwrap_or_default())
}

impl Resource for WatchedPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(mut object: Value) -> Pod {
        object["metadata"]["name"] = "orders-1".into();
        serde_json::from_value::<WatchedPod>(object).unwrap().pod
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
        assert_eq!(&*record.hash, "0011223344556677");
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
