//! The records of admission of pods, as far as an exchange reads them.
//!
//! Only pods with the mark and a record of a grant are kept, since no other can exchange anything. Labels and annotations are those
//! of the record, and so is their number: a running pod's own belong to whoever may patch it. So are the annotations of its service
//! account. Containers and volumes are the pod's own, which nobody can change. Of a pod that has ended nothing is kept but that it has: finished Jobs stay for long, and get nothing.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use tokenscope_core::annotations::{self, Mark};
use tokenscope_core::bounds::Beyond;
use tokenscope_core::{ContainerFacts, GrantRecord, OwnRole, Pairs, PodFacts, pod};
use tokenscope_index::{DEFAULT_SERVICE_ACCOUNT, FromPodJson, PodObject, pod_identity};

/// A pod as admission recorded it.
#[derive(Clone, Debug)]
pub struct AdmittedPod {
    /// Its UID.
    pub uid: Box<str>,
    /// True if all its containers have ended for good.
    pub finished: bool,
    /// The time when it is gone at the latest, if it is being deleted.
    pub ends: Option<Timestamp>,
    /// Its service account.
    pub service_account: Box<str>,
    /// True if admission left its role to an association of EKS Pod Identity. The issuer has no list of such service accounts.
    pub is_associated: bool,
    labels: Pairs<Box<str>>,
    annotations: Pairs<Box<str>>,
    annotation_count: usize,
    /// Nothing in records of versions that did not keep them.
    service_account_annotations: Option<Pairs<Box<str>>>,
    containers: Box<[ContainerFacts<Box<str>>]>,
    beyond: Box<[Beyond]>,
}

impl AdmittedPod {
    /// The facts that the decision of admission looked at; none of a pod that has ended.
    pub fn facts(&self) -> PodFacts<'_> {
        let containers = self.containers.iter().map(|container| container.map(|text| text));
        PodFacts {
            labels: self.labels.borrowed(),
            annotations: self.annotations.borrowed(),
            annotation_count: self.annotation_count,
            containers: containers.collect(),
            beyond: self.beyond.to_vec(),
            ..PodFacts::default()
        }
    }

    /// The annotations of its service account that the decision of admission looked at; nothing where admission did not record
    /// them, as versions before this one did not.
    pub fn service_account_annotations(&self) -> Option<Pairs<&str>> {
        self.service_account_annotations.as_ref().map(Pairs::borrowed)
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let pairs = |pairs: &Pairs<Box<str>>| {
            let bytes = pairs
                .iter()
                .map(|(key, value)| key.len() + value.len() + 2 * size_of::<Box<str>>());
            bytes.sum::<usize>()
        };
        let containers = self.containers.iter().map(|container| {
            let role = match &container.own_role {
                OwnRole::Literal(role) => role.len(),
                OwnRole::Absent | OwnRole::Indirect | OwnRole::Agent => 0,
            };
            size_of_val(container) + container.name.len() + role
        });
        size_of_val(self)
            + self.uid.len()
            + self.service_account.len()
            + pairs(&self.labels)
            + pairs(&self.annotations)
            + self.service_account_annotations.as_ref().map_or(0, pairs)
            + containers.sum::<usize>()
            + size_of_val(&*self.beyond)
    }

    fn of(whole: &pod::Pod<Box<str>>, uid: Box<str>, finished: bool, ends: Option<Timestamp>) -> Option<Self> {
        let mark = whole.metadata.labels.pairs().value(annotations::REVIEWED);
        if mark.and_then(Mark::read) != Some(Mark::Granted) || whole.annotation(annotations::MIRROR).is_some() {
            return None;
        }
        let record = whole.grant_record()?;
        // Records of versions before 0.2 have no labels, and whoever may patch the pod can write them.
        let labels = record.labels.as_ref()?;
        let service_account = whole.spec.service_account_name.clone().filter(|name| !name.is_empty());
        let bare = Self {
            uid,
            finished,
            ends,
            service_account: service_account.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.into()),
            is_associated: record.association.is_some(),
            labels: Pairs::default(),
            annotations: Pairs::default(),
            annotation_count: 0,
            service_account_annotations: None,
            containers: Box::default(),
            beyond: Box::default(),
        };
        if finished {
            return Some(bare);
        }
        let kept = record.annotations.as_ref();
        Some(Self {
            labels: boxed(labels, |_| true),
            annotations: kept.map(|pairs| boxed(pairs, annotations::decides)).unwrap_or_default(),
            annotation_count: kept.map_or(0, |pairs| pairs.iter().count()),
            service_account_annotations: record
                .service_account_annotations
                .as_ref()
                .map(|pairs| boxed(pairs, |key| annotations::OF_SERVICE_ACCOUNTS.contains(&key))),
            containers: containers(whole, &record),
            beyond: whole.beyond().into_iter().filter(Beyond::is_of_spec).collect(),
            ..bare
        })
    }
}

fn boxed(pairs: &Pairs<Cow<'_, str>>, keep: impl Fn(&str) -> bool) -> Pairs<Box<str>> {
    let kept = pairs.iter().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (key.into(), value.into())).collect()
}

fn containers(whole: &pod::Pod<Box<str>>, record: &GrantRecord<'_>) -> Box<[ContainerFacts<Box<str>>]> {
    let containers = whole.facts(Some(record)).containers;
    containers.iter().map(|container| container.map(Box::from)).collect()
}

/// The part that is kept of a pod from a watch.
#[derive(Clone, Debug)]
pub struct WatchedPod {
    /// Nothing of a pod that can't exchange anything.
    pub admitted: Option<AdmittedPod>,
}

/// A pod's JSON, as far as it is read.
#[derive(Deserialize)]
pub struct PodJson {
    metadata: PodMetadata,
    #[serde(default)]
    spec: Option<pod::Spec<Box<str>>>,
    #[serde(default)]
    status: PodPhase,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadata {
    name: Box<str>,
    #[serde(default)]
    namespace: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: pod::PodLabels<Box<str>>,
    #[serde(default)]
    annotations: Option<pod::PodAnnotations<Box<str>>>,
}

#[derive(Default, Deserialize)]
struct PodPhase {
    #[serde(default)]
    phase: Cow<'static, str>,
}

impl FromPodJson for WatchedPod {
    type Json = PodJson;

    fn keep(json: PodJson) -> PodObject<Self> {
        let finished = matches!(&*json.status.phase, "Succeeded" | "Failed");
        let whole = pod::Pod {
            metadata: pod::Metadata {
                labels: json.metadata.labels,
                annotations: json.metadata.annotations,
                ..pod::Metadata::default()
            },
            spec: json.spec.unwrap_or_default(),
        };
        let ends = json.metadata.deletion_timestamp.map(|Time(at)| at);
        let admitted = AdmittedPod::of(&whole, json.metadata.uid, finished, ends);
        let (name, namespace) = (json.metadata.name, json.metadata.namespace);
        let metadata = pod_identity(&name, &namespace, json.metadata.resource_version);
        PodObject::new(metadata, Self { admitted })
    }
}
