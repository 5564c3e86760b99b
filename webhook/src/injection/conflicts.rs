//! The obstacles where ours must go, and the remedies.

use tokenscope_core::bounds::MOST_CONTAINERS;
use tokenscope_core::pod::{is_added_container, is_authorization_volume, is_config_volume, is_sidecar_volume};

use super::actual::{Actual, Ownership};
use super::config_writer::ConfigWriter;
use super::context::Context;
use super::desired::Desired;
use super::paths::is_within;
use super::slot::Slot;
use super::{endpoint, network};

/// The most conflicts of one pod that are reported.
const MOST: usize = 8;

/// Said of what has our names: the copy of a pod has lost the record that it is ours.
const COPY: &str = "remove or rename it; if the pod is a copy of another one, keep that one's annotations (kubectl debug --keep-annotations)";

/// The first conflicts that were found, a sentence each.
#[derive(Debug, Default)]
struct InjectionConflicts(Vec<String>);

/// The conflicts of a pod that is granted something.
pub(super) fn of_grant(context: &Context<'_>, desired: &Desired<'_>, actual: &Actual<'_>) -> Vec<String> {
    let mut conflicts = InjectionConflicts(of_names(context, actual));
    let of_sidecar = desired.sidecar.iter().flat_map(|sidecar| sidecar.obstacles(context));
    let of_writer = desired
        .config_writer
        .iter()
        .filter_map(|_| ConfigWriter::obstacle(context));
    let excess = desired.config_files.excess().map(|excess| excess.to_string());
    let of_endpoint = (!desired.endpoint.is_empty()).then(|| network::obstacles(context));
    let of_endpoint = of_endpoint.into_iter().flatten();
    let of_outbound = desired.outbound.obstacles();
    for obstacle in of_sidecar
        .chain(of_writer)
        .chain(excess)
        .chain(of_endpoint)
        .chain(of_outbound)
    {
        conflicts.add(|| obstacle);
    }
    let foreign = actual
        .token_volumes
        .iter()
        .filter(|volume| volume.ownership == Ownership::Foreign);
    for volume in foreign {
        conflicts.add(|| own_volume(volume.name));
    }
    for (index, slot) in context.containers.iter().enumerate() {
        conflicts.of_mounts(context, desired, actual, index, slot);
        let is_served = desired
            .equipment(index)
            .is_some_and(|equipment| equipment.grant.endpoint.is_some());
        if let Some(other) = is_served
            .then(|| endpoint::other_port(slot.container, context))
            .flatten()
        {
            conflicts.add(|| other);
        }
    }
    conflicts.0
}

/// The names of the sidecar's that the pod bears. In a reviewed pod these names are ours: an identity that a SPIFFE provider
/// gives to a container of this name must not go to somebody else's.
pub(super) fn of_names(context: &Context<'_>, actual: &Actual<'_>) -> Vec<String> {
    let mut conflicts = InjectionConflicts::default();
    let mut foreign = actual.sidecar_volumes.iter();
    if let Some(volume) = foreign.find(|volume| volume.ownership == Ownership::Foreign) {
        conflicts.add(|| own_volume(volume.name));
    }
    if let Some(conflict) = of_container_names(context, actual) {
        conflicts.add(|| conflict);
    }
    for slot in &context.containers {
        let mut mounts = slot.container.volume_mounts.iter().flatten();
        if let Some(mount) = mounts.find(|mount| is_sidecar_volume(&mount.name)) {
            conflicts.add(|| {
                format!(
                    "container {} mounts volume {} itself, which tokenscope adds for its sidecar alone: remove that mount",
                    &*slot.container.name, &*mount.name
                )
            });
        }
    }
    conflicts.0
}

/// A container that the pod brings by the name of one that the webhook adds, and that stays there.
pub(super) fn of_container_names(context: &Context<'_>, actual: &Actual<'_>) -> Option<String> {
    let in_init = actual.init_containers.iter().filter(|present| !present.is_ours);
    let in_others = context.containers.iter().map(|slot| &*slot.container.name);
    let in_others = in_others.filter(|name| is_added_container(name));
    let Some(name) = in_init.map(|present| present.name).chain(in_others).next() else {
        return context.hides_added_name().then(|| {
            format!(
                "a container behind the first {MOST_CONTAINERS} of the pod has the name of a container that tokenscope adds: rename it"
            )
        });
    };
    Some(format!(
        "the pod brings a container {name} of its own, which is the name of a container that tokenscope adds: {COPY}"
    ))
}

fn own_volume(name: &str) -> String {
    format!("the pod brings a volume {name} of its own, which is the name of the volume that tokenscope adds: {COPY}")
}

impl InjectionConflicts {
    fn add(&mut self, sentence: impl FnOnce() -> String) {
        if self.0.len() < MOST {
            self.0.push(sentence());
        }
    }

    /// Mounts of token volumes that are neither ours nor as we would write them, and mounts of others where ours goes.
    fn of_mounts<'a>(
        &mut self,
        context: &Context<'a>,
        desired: &Desired<'_>,
        actual: &Actual<'_>,
        index: usize,
        slot: &Slot<'a>,
    ) {
        let wanted = desired.mounts(index, context);
        let name = &*slot.container.name;
        for mount in slot.container.volume_mounts.iter().flatten() {
            let (volume, path) = (&*mount.name, &*mount.mount_path);
            if context.place.is_containers_volume(volume) {
                let is_right = wanted.iter().any(|wanted| wanted.is_written(mount))
                    || actual.owns_mount(context, mount)
                    || actual.keeps_mount(context, desired, index, mount);
                if !is_right {
                    self.add(|| {
                        format!(
                            "container {name} mounts volume {volume} itself, which tokenscope adds: remove that mount"
                        )
                    });
                }
            } else if let Some(wanted) = wanted
                .iter()
                .find(|wanted| is_within(path, wanted.path, context.windows))
            {
                let what = if is_config_volume(wanted.volume) {
                    "the AWS config file"
                } else if is_authorization_volume(wanted.volume) {
                    "the authorization token for the sidecar"
                } else {
                    "the token"
                };
                self.add(|| {
                    format!(
                        "container {name} mounts volume {volume} at {path}, where tokenscope puts {what}: mount it elsewhere"
                    )
                });
            }
        }
    }
}
