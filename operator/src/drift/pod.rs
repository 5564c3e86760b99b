//! A pod as drift needs it: about a thousand bytes, of which a cluster has many thousands.
//!
//! Its containers are the core's facts with owned texts. The rest is not: a list that never grows needs no capacity, which saves 8 bytes
//! for each list of the pod and of its volumes, so the facts of a request are made for each question.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokenscope_core::annotations::{self, Mark};
use tokenscope_core::bounds::Beyond;
use tokenscope_core::pod::OwnerReference;
use tokenscope_core::{
    ContainerFacts, Fingerprint, OwnConfiguration, OwnRole, Pairs, PodFacts, PolicyName, TokenVolume, asks_itself,
};

use super::IssuerAuthority;
use super::volumes::KeptVolume;

/// The part of a pod that is kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptPod {
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) created: Timestamp,
    /// True if it runs or is about to: not finished, not on its way out, and not a mirror pod.
    pub(crate) running: bool,
    /// True if the kubelet says that it is ready.
    pub(crate) ready: bool,
    pub(crate) service_account: Box<str>,
    /// The labels that decide: those at admission where the record has them, otherwise the present ones.
    pub(super) labels: Pairs<Box<str>>,
    /// The annotations that decide; likewise.
    pub(super) annotations: Pairs<Box<str>>,
    pub(super) annotation_count: usize,
    /// Keys of these that were not written with the pod, or of which nothing tells that they were. It is a hint.
    pub(super) late_keys: Box<[Box<str>]>,
    /// Keys of these that have changed since the pod was created, as far as that was seen.
    pub(crate) changed_keys: ChangedKeys,
    pub(super) containers: Box<[ContainerFacts<Box<str>>]>,
    /// The bounds of a review that it exceeds.
    pub(super) beyond: Box<[Beyond]>,
    /// Volumes that hold tokens of an audience, or whose CSI driver may get one.
    pub(super) token_volumes: Box<[KeptVolume]>,
    pub(super) mark: Option<Mark>,
    pub(crate) record: Option<Record>,
    /// The image of the sidecar that the webhook added; none where it is gone, or is told to serve something else.
    pub(crate) sidecar: Option<Box<str>>,
    /// The state of the init container that writes config files, if the webhook added one.
    pub(crate) config_writer: Option<KeptWriter>,
    /// The authority of the issuer that this sidecar was told of.
    pub(crate) issuer_authority: Option<IssuerAuthority>,
    pub(crate) owner: Option<Box<OwnerReference<Box<str>>>>,
}

/// The keys of a pod's labels and annotations that have changed since it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChangedKeys {
    /// The pod was not seen when it was created, or more keys have changed than are kept.
    Unknown,
    /// These.
    Known(Box<[Box<str>]>),
}

impl ChangedKeys {
    /// The most keys that are kept of a pod.
    const MOST: usize = 16;

    /// None have changed.
    pub(crate) fn none() -> Self {
        Self::Known(Box::default())
    }

    /// These keys too.
    fn and(&self, keys: BTreeSet<&str>) -> Self {
        let Self::Known(known) = self else {
            return Self::Unknown;
        };
        let new = keys
            .into_iter()
            .filter(|key| known.iter().all(|known| **known != **key));
        let all: Box<[Box<str>]> = known.iter().cloned().chain(new.map(Into::into)).collect();
        if all.len() > Self::MOST {
            return Self::Unknown;
        }
        Self::Known(all)
    }

    fn bytes(&self) -> usize {
        let keys = match self {
            Self::Unknown => &[],
            Self::Known(keys) => &**keys,
        };
        keys.iter().map(|key| size_of_val(key) + key.len()).sum()
    }
}

/// The init container that the webhook added to write config files, as the pod has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeptWriter {
    /// It is not there, or writes something else.
    Lost,
    /// It writes what it should, by this image.
    Present(Box<str>),
}

/// The webhook's record on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The decision that was recorded.
    pub(crate) decision: RecordedDecision,
    /// The policies that granted it.
    pub(crate) policies: Box<[PolicyName]>,
    /// The annotations of the service account that the decision of admission read; nothing where it did not record them.
    pub(super) service_account_annotations: Option<Pairs<Box<str>>>,
    /// True if a sidecar was added.
    pub(crate) sidecar: bool,
    /// True if only the webhook can have written it: the pod bears the mark, and the record says what the decision read.
    /// Records of versions before 0.2 can be written by whoever may patch the pod.
    pub(crate) is_proven: bool,
}

/// A record's account of a decision, as far as it can be compared with a decision of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordedDecision {
    /// All that was decided.
    Whole(Fingerprint),
    /// The role of each container. The fingerprint of the whole is of another version of tokenscope, and can't be compared here: the pod counts
    /// as injected as long as its containers would get the same roles.
    Roles(Fingerprint),
}

impl KeptPod {
    /// The facts that a decision looks at.
    pub(crate) fn facts(&self) -> PodFacts<'_> {
        PodFacts {
            labels: self.labels.borrowed(),
            annotations: self.annotations.borrowed(),
            annotation_count: self.annotation_count,
            ..self.lasting_facts()
        }
    }

    /// The facts that nobody can change while the pod runs: no labels and no annotations.
    pub(crate) fn lasting_facts(&self) -> PodFacts<'_> {
        PodFacts {
            containers: self
                .containers
                .iter()
                .map(|container| container.map(|text| text))
                .collect(),
            beyond: self.beyond.to_vec(),
            ..PodFacts::default()
        }
    }

    /// The volumes that hold tokens. Those of CSI drivers have none yet: what a driver gets, its own object says.
    pub(crate) fn token_volumes(&self) -> Vec<TokenVolume<'_>> {
        self.token_volumes.iter().map(KeptVolume::borrowed).collect()
    }

    /// The most times that a policy is compared with it: for each container, and for each token with each container.
    pub(crate) fn comparisons(&self) -> usize {
        let tokens: usize = self.token_volumes.iter().map(KeptVolume::token_count).sum();
        (self.containers.len() + 1) * (tokens + 1)
    }

    /// True if it has any such volume.
    pub(crate) fn has_token_volumes(&self) -> bool {
        !self.token_volumes.is_empty()
    }

    /// The keys of its annotations that decide.
    pub(crate) fn annotation_keys(&self) -> impl Iterator<Item = &str> {
        self.annotations.iter().map(|(key, _)| key)
    }

    /// True if a label or annotation may have been written after the pod was created.
    pub(crate) fn came_late(&self, key: &str) -> bool {
        self.late_keys.iter().any(|late| **late == *key)
    }

    /// The keys that have changed since it was created, where it was like `before` last.
    pub(crate) fn changes_since(&self, before: &Self) -> ChangedKeys {
        // One that was too large was refused.
        if before.uid != self.uid || before.beyond != self.beyond {
            return ChangedKeys::Unknown;
        }
        let mut keys = different(&before.labels, &self.labels);
        keys.extend(different(&before.annotations, &self.annotations));
        keys.extend((before.mark != self.mark).then_some(annotations::REVIEWED));
        keys.extend((before.record != self.record).then_some(annotations::GRANT));
        before.changed_keys.and(keys)
    }

    /// True if it names a role itself, so that it had to be reviewed.
    pub(crate) fn asks(&self) -> bool {
        asks_itself(&self.annotations)
    }

    /// The webhook's mark, if it saw the pod.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The controller that would make another one.
    pub(crate) fn controller(&self) -> Option<&OwnerReference<Box<str>>> {
        self.owner.as_deref().filter(|owner| owner.controller == Some(true))
    }

    /// True if nothing is different that an assessment depends on.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.running == other.running
            && self.labels == other.labels
            && self.annotations == other.annotations
            && self.late_keys == other.late_keys
            && self.changed_keys == other.changed_keys
            && self.mark == other.mark
            && self.record == other.record
            && self.sidecar == other.sidecar
            && self.config_writer == other.config_writer
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let owner = self.owner.as_ref().map_or(0, |owner| {
            size_of_val(&**owner) + owner.api_version.len() + owner.kind.len() + owner.name.len() + owner.uid.len()
        });
        let record = self.record.as_ref().map_or(0, |record| {
            let account = record.service_account_annotations.as_ref().map_or(0, pairs_bytes);
            record.policies.len() * size_of::<PolicyName>() + account
        });
        let containers = self.containers.iter().map(|container| {
            let role = match &container.own_role {
                OwnRole::Literal(role) => role.len(),
                OwnRole::Absent | OwnRole::Indirect | OwnRole::Agent => 0,
            };
            let profile = match &container.own_configuration {
                OwnConfiguration::Profile(name) => name.len(),
                OwnConfiguration::Absent | OwnConfiguration::Elsewhere(_) => 0,
            };
            size_of_val(container) + container.name.len() + role + profile
        });
        size_of_val(self)
            + self.name.len()
            + self.uid.len()
            + self.service_account.len()
            + pairs_bytes(&self.labels)
            + pairs_bytes(&self.annotations)
            + containers.sum::<usize>()
            + size_of_val(&*self.beyond)
            + self
                .late_keys
                .iter()
                .map(|key| size_of_val(key) + key.len())
                .sum::<usize>()
            + self.changed_keys.bytes()
            + self.token_volumes.iter().map(KeptVolume::bytes).sum::<usize>()
            + record
            + self.sidecar.as_ref().map_or(0, |image| image.len())
            + match &self.config_writer {
                Some(KeptWriter::Present(image)) => image.len(),
                Some(KeptWriter::Lost) | None => 0,
            }
            + owner
    }
}

/// The keys that have another value in one than in the other, or none.
fn different<'a>(before: &'a Pairs<Box<str>>, after: &'a Pairs<Box<str>>) -> BTreeSet<&'a str> {
    if before == after {
        return BTreeSet::new();
    }
    let keys = before.iter().chain(after.iter()).map(|(key, _)| key);
    keys.filter(|key| before.value(key) != after.value(key)).collect()
}

/// About how many bytes the pairs take.
fn pairs_bytes(pairs: &Pairs<Box<str>>) -> usize {
    let pairs = pairs
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2 * size_of::<Box<str>>());
    pairs.sum()
}
