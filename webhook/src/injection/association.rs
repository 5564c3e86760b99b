//! The injection for EKS Pod Identity, which is what the EKS webhook writes: variables that send an SDK to the agent on the node, and
//! the token that the agent takes.
//!
//! As for that webhook, what the pod brings of its own stays: a container's own pair of variables, a mount of the volume of this name,
//! and the volume itself. A volume that is not exactly what would be written belongs to the pod, so the lock judges it.

use std::borrow::Cow;

use tokenscope_core::credentials_endpoint::{AUTHORIZATION_FILE_VARIABLE, FULL_URI_VARIABLE};
use tokenscope_core::pod::{Container, Text, Volume, VolumeMount};
use tokenscope_core::pod_identity::{ASSOCIATED_ROLE, PodIdentityAgent, written_expiration};
use tokenscope_core::{
    Associated, Association, Fingerprint, GrantRecord, PolicyName, RecordedAssociation, RecordedGrant,
};

use super::context::Context;
use super::paths::is_within;
use super::pieces::{Content, DesiredMount, DesiredVariable, DesiredVolume, ROLE_ARN, TOKEN_FILE, unexpanded};
use super::variables::ContainerVariables;

/// The most sentences about one pod.
const MOST: usize = 8;

/// The parts that the containers of a pod should carry.
#[derive(Debug)]
pub(super) struct DesiredAssociation<'a> {
    agent: &'a PodIdentityAgent,
    /// In the pod's order.
    containers: Vec<AssociatedContainer<'a>>,
}

#[derive(Debug)]
struct AssociatedContainer<'a> {
    /// Its index among the request's containers.
    container: usize,
    policy: Option<&'a PolicyName>,
    variables: Vec<DesiredVariable<'a>>,
}

impl<'a> DesiredAssociation<'a> {
    pub(super) fn of(associated: &'a Associated, context: &Context<'a>) -> Self {
        let agent = &associated.agent;
        // The decision's indices are those of the request, which was made from these containers.
        let containers = associated.containers.iter().filter_map(|granted| {
            let slot = context.containers.get(granted.container)?;
            Some(AssociatedContainer {
                container: granted.container,
                policy: granted.association.policy.as_ref(),
                variables: variables(slot.container, &granted.association, agent, context),
            })
        });
        Self {
            agent,
            containers: containers.collect(),
        }
    }

    /// The volume with the token. One that the EKS webhook wrote keeps the lifetime that it drew.
    pub(super) fn volume(associated: &'a Associated, context: &Context<'a>) -> DesiredVolume<'a> {
        let agent = &associated.agent;
        let mut volumes = context.pod.spec.volumes.iter().flatten();
        let present = volumes.find(|volume| *volume.name == *agent.volume);
        let seconds = present.and_then(|volume| volume.tokens().first()?.expiration_seconds);
        DesiredVolume {
            name: Cow::Owned(agent.volume.to_string()),
            content: Content::AgentToken {
                audience: agent.audience.as_str(),
                expiration: written_expiration(associated.expiration, seconds),
                path: &agent.token_path,
            },
        }
    }

    pub(super) fn variables(&self, container: usize) -> &[DesiredVariable<'a>] {
        self.container(container).map_or(&[], |found| &found.variables)
    }

    /// The mount of a container; none where it mounts the volume of this name in its own way.
    pub(super) fn mount(&self, container: usize, context: &Context<'_>) -> Option<DesiredMount<'_>> {
        self.container(container)?;
        let wanted = mount(self.agent);
        let slot = context.containers.get(container)?;
        let mounts = slot.container.volume_mounts.iter().flatten();
        let mut own = mounts.filter(|mount| *mount.name == *self.agent.volume).peekable();
        (own.peek().is_none() || own.any(|mount| wanted.is_written(mount))).then_some(wanted)
    }

    fn container(&self, container: usize) -> Option<&AssociatedContainer<'a>> {
        let found = self
            .containers
            .binary_search_by_key(&container, |found| found.container);
        found.ok().and_then(|at| self.containers.get(at))
    }

    /// The first mounts that keep the token from where it goes, or take it to where no policy gives it.
    ///
    /// `brings_volume` says that the volume is the pod's own, which the lock judges.
    pub(super) fn conflicts(&self, context: &Context<'_>, brings_volume: bool) -> Vec<String> {
        let mut conflicts = self.of_others_mounts(context);
        if !brings_volume {
            conflicts.extend(self.of_token_mounts(context));
        }
        conflicts.truncate(MOST);
        conflicts
    }

    /// Mounts of the token's volume in containers that get no role. What an earlier review mounted goes.
    fn of_token_mounts(&self, context: &Context<'_>) -> Vec<String> {
        let mut conflicts = Vec::new();
        let containers = context.containers.iter().enumerate();
        for (_, slot) in containers.filter(|(index, _)| self.container(*index).is_none()) {
            let name = &*slot.container.name;
            for mount in slot.container.volume_mounts.iter().flatten() {
                if *mount.name == *self.agent.volume
                    && !has_added_mount(context, slot.container, mount)
                    && conflicts.len() < MOST
                {
                    conflicts.push(format!(
                        "container {name} mounts volume {} whose token no policy gives it: remove that mount",
                        self.agent.volume
                    ));
                }
            }
        }
        conflicts
    }

    /// Mounts of others where the token's goes: the API server takes no two at one path.
    fn of_others_mounts(&self, context: &Context<'_>) -> Vec<String> {
        let mut conflicts = Vec::new();
        for equipped in &self.containers {
            let (Some(wanted), Some(slot)) = (
                self.mount(equipped.container, context),
                context.containers.get(equipped.container),
            ) else {
                continue;
            };
            for mount in slot.container.volume_mounts.iter().flatten() {
                let (volume, path) = (&*mount.name, &*mount.mount_path);
                if *volume != *self.agent.volume
                    && is_within(path, wanted.path, context.windows)
                    && conflicts.len() < MOST
                {
                    conflicts.push(format!(
                        "container {} mounts volume {volume} at {path}, where tokenscope puts the token of EKS Pod Identity: mount it elsewhere",
                        &*slot.container.name
                    ));
                }
            }
        }
        conflicts
    }

    /// Says what keeps an SDK from the agent's credentials.
    pub(super) fn warn(&self, context: &Context<'_>, brings_volume: bool, warnings: &mut Vec<String>) {
        if brings_volume {
            warnings.push(format!(
                "the pod brings a volume {} of its own, so tokenscope adds none, and its containers have the token of EKS Pod Identity only if that volume has it: remove or rename it",
                self.agent.volume
            ));
        }
        for equipped in &self.containers {
            if let Some(slot) = context.containers.get(equipped.container) {
                let preferred = preferred(slot.container, self.agent, context);
                if !preferred.is_empty() {
                    warnings.push(format!(
                        "container {} sets {} itself, so its SDK may not use the credentials of EKS Pod Identity: remove it",
                        &*slot.container.name,
                        preferred.join(" and ")
                    ));
                }
            }
        }
    }

    /// The text of the record.
    pub(super) fn record(&self, context: &Context<'_>, associated: &Associated, brings_volume: bool) -> String {
        let name = |index: usize| context.containers.get(index).map_or("", |slot| &*slot.container.name);
        let hash = Fingerprint::of_associated(context.request.service_account, associated, name);
        let mut record = GrantRecord {
            hash: hash.to_string().into(),
            association: Some(RecordedAssociation {
                volume: (!brings_volume).then_some(Cow::Borrowed(&*self.agent.volume)),
            }),
            ..context.record_of_request()
        };
        let mut kinds: Vec<&AssociatedContainer<'_>> = Vec::with_capacity(1);
        for equipped in &self.containers {
            let container = Cow::Borrowed(name(equipped.container));
            let is_same =
                |kind: &&AssociatedContainer<'_>| kind.policy == equipped.policy && kind.names().eq(equipped.names());
            let kind = kinds.iter().position(is_same);
            if let Some(grant) = kind.and_then(|kind| record.grants.get_mut(kind)) {
                grant.containers.push(container);
                continue;
            }
            kinds.push(equipped);
            record.grants.push(RecordedGrant {
                policy: equipped.policy.map(|policy| policy.to_string().into()),
                role: ASSOCIATED_ROLE.into(),
                containers: vec![container],
                env: equipped.names().map(Cow::Borrowed).collect(),
            });
        }
        // Strings and lists of them always serialise.
        serde_json::to_string(&record).unwrap_or_default()
    }
}

impl<'a> AssociatedContainer<'a> {
    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.variables.iter().map(|variable| variable.name)
    }
}

/// The variables in the order in which the EKS webhook adds them. A container that has one of a pair keeps what it has.
fn variables<'a>(
    container: &Container<Text<'a>>,
    association: &'a Association,
    agent: &'a PodIdentityAgent,
    context: &Context<'a>,
) -> Vec<DesiredVariable<'a>> {
    let mut variables = ContainerVariables::of(container, context);
    variables.add_regional_endpoints(association.sts_regional_endpoints);
    variables.add_region(association.region.as_ref());
    if !variables.has_own(FULL_URI_VARIABLE) && !variables.has_own(AUTHORIZATION_FILE_VARIABLE) {
        variables.add(FULL_URI_VARIABLE, unexpanded(&agent.full_uri));
        variables.add(AUTHORIZATION_FILE_VARIABLE, agent.token_file(context.windows));
    }
    variables.add_metadata_disabled(association.disables_instance_metadata);
    variables.into_desired()
}

/// The variables of a container's own that SDKs look at before they ask the agent. One that says what ours would is none of them.
fn preferred<'a>(
    container: &Container<Text<'a>>,
    agent: &PodIdentityAgent,
    context: &Context<'a>,
) -> Vec<&'static str> {
    let names = [
        "AWS_ACCESS_KEY_ID",
        ROLE_ARN,
        TOKEN_FILE,
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        FULL_URI_VARIABLE,
        AUTHORIZATION_FILE_VARIABLE,
    ];
    let file = agent.token_file(context.windows);
    let is_other = |name: &&'static str| {
        let own = context.own(container, name);
        own.is_some_and(|own| match (*name, own.value.as_deref()) {
            (FULL_URI_VARIABLE, Some(uri)) => *uri != *unexpanded(&agent.full_uri),
            (AUTHORIZATION_FILE_VARIABLE, Some(path)) => *path != *file,
            _ => true,
        })
    };
    names.into_iter().filter(is_other).collect()
}

fn mount(agent: &PodIdentityAgent) -> DesiredMount<'_> {
    DesiredMount {
        volume: &agent.volume,
        path: &agent.mount_path,
    }
}

/// True if a volume of this name has to be looked at: it is to hold the token, or an earlier review says that it does.
pub(super) fn is_volume(context: &Context<'_>, desired: Option<&DesiredAssociation<'_>>, name: &str) -> bool {
    desired.is_some_and(|desired| *desired.agent.volume == *name) || is_recorded_name(context, name)
}

/// True if the record says that the volume is ours, and it can be.
pub(super) fn is_recorded_volume(context: &Context<'_>, volume: &Volume<Text<'_>>) -> bool {
    is_recorded_name(context, &volume.name) && volume.has_only_tokens()
}

/// A record can name any volume. It counts for the one of the installation's settings.
fn is_recorded_name(context: &Context<'_>, name: &str) -> bool {
    let recorded = context.record.and_then(|record| record.association.as_ref());
    let recorded = recorded.and_then(|association| association.volume.as_deref());
    recorded == Some(name) && agent(context).is_some_and(|agent| *agent.volume == *name)
}

fn agent<'a>(context: &Context<'a>) -> Option<&'a PodIdentityAgent> {
    context
        .settings
        .pod_identity
        .as_ref()
        .map(|configured| &configured.agent)
}

/// True if an earlier review made this mount: it is exactly what would be written, and the record names the container.
pub(super) fn has_added_mount(
    context: &Context<'_>,
    container: &Container<Text<'_>>,
    present: &VolumeMount<Text<'_>>,
) -> bool {
    context.was_associated(&container.name) && agent(context).is_some_and(|agent| mount(agent).is_written(present))
}
