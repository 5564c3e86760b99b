//! The cost of comparing what a pod asks for with the patterns of the policies about it.
//!
//! Each role that a pod names is compared with each pattern of each of these policies, and each container's name with those of containers.
//! Whoever may write policies and pods of one namespace sizes both sides, so their product has a bound of its own.

use std::collections::HashSet;

use super::candidates::Candidates;
use crate::annotation_request::AnnotationRequest;
use crate::bounds::{Beyond, MOST_COMPARED_BYTES};
use crate::{OwnRole, RoleArn};

/// The bound, if the pod exceeds it with the roles that it names and the names of its containers.
pub(super) fn beyond(candidates: &Candidates<'_>, asks: &AnnotationRequest<'_>) -> Option<Beyond> {
    let containers = &candidates.request.pod.containers;
    let policies = candidates.policies().iter();
    let of_roles: usize = policies.map(|policy| policy.roles.compared_bytes()).sum();
    let of_containers = of_containers(candidates);
    let is_beyond = |roles: usize| of_roles.saturating_mul(roles).saturating_add(of_containers) > MOST_COMPARED_BYTES;
    // Mostly it is within the bound whichever roles are the same.
    if !is_beyond(asks.container_roles.len() + containers.len() + 1) {
        return None;
    }
    let own = containers.iter().filter_map(|container| match container.own_role {
        OwnRole::Literal(role) => Some(role),
        OwnRole::Absent | OwnRole::Indirect | OwnRole::Agent => None,
    });
    let named = asks.role.iter().map(|named| &named.role);
    let named = named.chain(asks.container_roles.values()).map(RoleArn::as_str);
    let roles: HashSet<&str> = named.chain(own).collect();
    is_beyond(roles.len()).then_some(Beyond::Comparisons)
}

/// The bound, if the pod exceeds it with the names of its containers alone.
pub(super) fn beyond_by_containers(candidates: &Candidates<'_>) -> Option<Beyond> {
    (of_containers(candidates) > MOST_COMPARED_BYTES).then_some(Beyond::Comparisons)
}

/// The bytes with which the names of all containers are compared.
fn of_containers(candidates: &Candidates<'_>) -> usize {
    let policies = candidates.policies().iter();
    let bytes: usize = policies.map(|policy| policy.containers.compared_bytes()).sum();
    bytes.saturating_mul(candidates.request.pod.containers.len())
}
