//! Tokens that the sidecar writes, and the containers that may share them.
//!
//! A container that brings its own pair of variables may mount a token volume as we would. Where the kubelet writes the token, it stands in
//! the pod's specification, and the lock judges it. Where the sidecar does, the volume is a tmpfs like any other, so it is judged here: such a container
//! shares it only if a policy that gives the token to another container of the pod covers this one too.

use std::collections::{HashMap, HashSet};

use tokenscope_core::{ContainerFilter, PolicyName};

use super::context::Context;
use super::desired::Desired;
use super::pieces::Content;

/// The volumes that the sidecar writes, and the policies that give them.
#[derive(Debug)]
pub(super) struct SharedTokens<'d> {
    /// The names of all of them.
    volumes: HashSet<&'d str>,
    /// The containers that a policy covers, and the volumes that it gives to some of the pod.
    given: Vec<(&'d ContainerFilter, HashSet<&'d str>)>,
}

impl<'d> SharedTokens<'d> {
    pub(super) fn of(context: &'d Context<'_>, desired: &'d Desired<'_>) -> Self {
        let is_written = |content: &Content<'_>| matches!(content, Content::Memory);
        let volumes = desired.volumes.iter().filter(|volume| is_written(&volume.content));
        let mut by_policy: HashMap<&PolicyName, HashSet<&str>> = HashMap::new();
        for equipment in &desired.containers {
            // Without a policy there are tokens of the kubelet alone.
            if let Some(policy) = &equipment.grant.policy {
                let mounts = desired.mounts(equipment.container, context);
                let names = mounts.iter().map(|mount| mount.volume);
                by_policy.entry(policy).or_default().extend(names);
            }
        }
        let about = context.policies.about(context.request.namespace);
        let given = about.filter_map(|policy| Some((&policy.containers, by_policy.remove(&policy.name)?)));
        Self {
            volumes: volumes.map(|volume| &*volume.name).collect(),
            given: given.collect(),
        }
    }

    /// True if a container of this name may have a volume: no sidecar writes it, or a policy that gives it covers the container.
    pub(super) fn may_have(&self, container: &str, volume: &str) -> bool {
        let mut given = self.given.iter();
        !self.volumes.contains(volume)
            || given.any(|(containers, volumes)| volumes.contains(volume) && containers.covers(container))
    }
}
