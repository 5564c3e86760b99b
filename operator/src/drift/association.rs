//! The assessment of a pod whose role an association of EKS Pod Identity decides.
//!
//! It is not known since when a service account is in the configuration, so no such pod is called missed: a pod that lacks the agent's
//! credentials is outdated.

use std::collections::BTreeSet;

use tokenscope_core::annotations::Mark;
use tokenscope_core::{Associated, Fingerprint, OwnRole, PolicyName};

use super::pod::{KeptPod, RecordedDecision};
use super::{Assessment, PodState, PolicyShare};

/// Compares what such a pod should get with what it has.
pub(super) fn assess(pod: &KeptPod, associated: &Associated) -> Assessment {
    let state = match &pod.record {
        Some(_) if has(pod, associated) => PodState::Injected,
        // The EKS webhook equipped it, so it lacks nothing and is no business of policies.
        None if pod.mark() != Some(Mark::Refused) && is_equipped(pod, associated) => return Assessment::default(),
        _ => PodState::Outdated,
    };
    let containers = associated.containers.iter();
    let policies: BTreeSet<&PolicyName> = containers
        .filter_map(|found| found.association.policy.as_ref())
        .collect();
    let share = |policy: &PolicyName| PolicyShare {
        policy: policy.clone(),
        state,
        grants: true,
    };
    Assessment {
        state: Some(state),
        shares: policies.into_iter().map(share).collect(),
        ..Assessment::default()
    }
}

/// True if the record of a pod says that it has this.
pub(super) fn has(pod: &KeptPod, associated: &Associated) -> bool {
    let name = |container: usize| pod.containers.get(container).map_or("", |container| &*container.name);
    let now = || Fingerprint::of_associated(&pod.service_account, associated, name);
    let recorded = pod.record.as_ref().map(|record| record.decision);
    // Records of versions whose fingerprints can't be compared knew no associations.
    matches!(recorded, Some(RecordedDecision::Whole(recorded)) if recorded == now())
}

/// True if each of the containers takes its credentials from an agent.
fn is_equipped(pod: &KeptPod, associated: &Associated) -> bool {
    associated.containers.iter().all(|found| {
        let container = pod.containers.get(found.container);
        container.is_some_and(|container| matches!(container.own_role, OwnRole::Agent))
    })
}
