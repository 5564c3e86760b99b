//! The record of a grant and the mark of a review: what later reviews, the guard and the operator read.

use std::borrow::Cow;

use tokenscope_core::annotations::{self, Mark};
use tokenscope_core::pod_identity::{POD_LABEL, POD_LABEL_VALUE};
use tokenscope_core::{Fingerprint, GrantRecord, Granted, RecordedGrant, hash_of_texts};

use super::context::Context;
use super::desired::{ContainerInjection, Desired};
use super::sidecar::SidecarContainer;
use crate::patch::{Json, JsonObject, Operation, Patch, Pointer};

/// The text of the record.
pub(super) fn text(context: &Context<'_>, granted: &Granted, desired: &Desired<'_>) -> String {
    let name = |index: usize| context.containers.get(index).map_or("", |slot| &*slot.container.name);
    let grants = granted.containers.iter();
    let hash = Fingerprint::of(
        context.request.service_account,
        grants.map(|granted| (name(granted.container), &*granted.grant)),
    );
    let endpoint = desired.sidecar.as_ref().and_then(SidecarContainer::endpoint_text);
    let mut record = GrantRecord {
        grants: Vec::with_capacity(1),
        hash: hash.to_string().into(),
        sidecar: desired.sidecar.is_some(),
        config_writer: desired.config_writer.as_ref().map(|writer| writer.hash().into()),
        endpoint: endpoint.map(|text| hash_of_texts([text]).into()),
        ..context.record_of_request()
    };
    let mut kinds: Vec<&ContainerInjection<'_>> = Vec::with_capacity(1);
    for equipment in &desired.containers {
        let container = Cow::Borrowed(name(equipment.container));
        let kind = kinds.iter().position(|kind| are_same(kind, equipment));
        if let Some(grant) = kind.and_then(|kind| record.grants.get_mut(kind)) {
            grant.containers.push(container);
            continue;
        }
        kinds.push(equipment);
        record.grants.push(RecordedGrant {
            policy: equipment.grant.policy.as_ref().map(|policy| policy.to_string().into()),
            role: equipment.grant.role.as_str().into(),
            containers: vec![container],
            env: names(equipment).map(Cow::Borrowed).collect(),
        });
    }
    // Strings and lists of them always serialise.
    serde_json::to_string(&record).unwrap_or_default()
}

fn are_same(one: &ContainerInjection<'_>, other: &ContainerInjection<'_>) -> bool {
    one.grant.policy == other.grant.policy && one.grant.role == other.grant.role && names(one).eq(names(other))
}

fn names<'e>(equipment: &'e ContainerInjection<'_>) -> impl Iterator<Item = &'e str> {
    equipment.variables.iter().map(|variable| variable.name)
}

/// True if a pod bears a mark already, or the annotation that was the mark before version 0.2.
pub(super) fn is_marked(context: &Context<'_>) -> bool {
    let label = context.pod.metadata.labels.pairs().value(annotations::REVIEWED);
    label
        .or_else(|| context.pod.annotation(annotations::REVIEWED))
        .is_some()
}

/// Writes the changes of the pod's metadata.
///
/// The record is an annotation and the mark a label. For one release the mark is an annotation too: the guard of version 0.1 looks
/// for that one while an upgrade runs.
///
/// `associated` says that the role is that of an association of EKS Pod Identity, for which the pod has a label of EKS's.
pub(super) fn write(
    context: &Context<'_>,
    record: Option<String>,
    mark: Option<Mark>,
    associated: bool,
    patch: &mut Patch,
) {
    let metadata = Pointer::ROOT.member("metadata");
    let annotations = metadata.member("annotations");
    let present = |key| context.pod.annotation(key);
    if record.is_none() && present(annotations::GRANT).is_some() {
        patch.push(&Operation::Remove {
            path: annotations.member(annotations::GRANT),
        });
    }
    let mark = mark.map(|mark| (annotations::REVIEWED, Cow::Borrowed(mark.as_str())));
    let record = record.map(|record| (annotations::GRANT, Cow::Owned(record)));
    let wanted = record.into_iter().chain(mark.clone());
    let changed: Vec<_> = wanted.filter(|(key, value)| present(key) != Some(value)).collect();
    set(annotations, context.pod.metadata.annotations.is_some(), &changed, patch);

    let labels = &context.pod.metadata.labels;
    // The request has the value that the pod brought.
    let own = context.request.pod.labels.value(POD_LABEL);
    let label = if associated { Some(POD_LABEL_VALUE) } else { own };
    if label.is_none() && labels.pairs().value(POD_LABEL).is_some() {
        patch.push(&Operation::Remove {
            path: metadata.member("labels").member(POD_LABEL),
        });
    }
    let wanted = label
        .map(|value| (POD_LABEL, Cow::Borrowed(value)))
        .into_iter()
        .chain(mark);
    let changed: Vec<_> = wanted
        .filter(|(key, value)| labels.pairs().value(key) != Some(value))
        .collect();
    set(metadata.member("labels"), !labels.is_empty(), &changed, patch);
}

/// Sets members of a map that may not be there yet.
fn set<T: Json>(map: Pointer<'_>, exists: bool, members: &[(&'static str, T)], patch: &mut Patch) {
    if members.is_empty() {
        return;
    }
    if !exists {
        return patch.push(&Operation::Add {
            path: map,
            value: &JsonObject(members),
        });
    }
    for (key, value) in members {
        patch.push(&Operation::Add {
            path: map.member(key),
            value,
        });
    }
}
