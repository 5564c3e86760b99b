//! The parts of a pod that bear our names, and those of them that are ours.
//!
//! The names are reserved in every pod that gets something. A part with such a name is ours in two cases: it is exactly what this
//! review would write, whoever wrote it; or a record says that there was an earlier review, which can have written it. A record
//! can be forged, so a part that is ours by a record alone is replaced or removed, and never kept. A volume of the sidecar that
//! another container mounts is not ours by a record: that mount is the user's, and would be left without its volume.

use std::borrow::Cow;
use std::collections::HashSet;

use tokenscope_core::GrantRecord;
use tokenscope_core::pod::{
    CONFIG_WRITER, Container, SIDECAR, Text, Volume, VolumeMount, is_added_container, is_sidecar_volume,
};

use super::association;
use super::context::Context;
use super::desired::Desired;
use super::shared_tokens::SharedTokens;
use super::slot::Slot;
use super::whole::{WantedInitContainer, Whole};

/// The parts of a pod that have our names.
#[derive(Debug, Default)]
pub(super) struct Actual<'a> {
    /// Volumes of the names of those that containers mount: of tokens, and of config files.
    pub(super) token_volumes: Vec<PresentVolume<'a>>,
    /// Volumes of the names of those that are the sidecar's alone.
    pub(super) sidecar_volumes: Vec<PresentVolume<'a>>,
    /// Init containers of the names of those that the webhook adds.
    pub(super) init_containers: Vec<PresentInitContainer<'a>>,
    /// The names of token volumes that are not ours.
    foreign: HashSet<&'a str>,
    /// The names of token volumes that stay for the containers that bring them.
    used: HashSet<&'a str>,
    /// The indices of these containers, each with the name of a volume that it may have.
    brought: HashSet<(usize, &'a str)>,
}

/// A volume that has one of our names.
#[derive(Clone, Copy, Debug)]
pub(super) struct PresentVolume<'a> {
    /// Its index among the volumes.
    pub(super) index: usize,
    pub(super) name: &'a str,
    /// True if it is exactly what should be there.
    pub(super) is_equal: bool,
    pub(super) ownership: Ownership,
}

/// The owner of a thing of our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Ours, to be made what it should be, or to be removed.
    Ours,
    /// Containers that bring their own pair of variables use it as we would have them use it. It stays for them, and for the lock
    /// to judge.
    Used,
    /// Somebody else's.
    Foreign,
}

/// An init container that has one of our names.
#[derive(Clone, Copy, Debug)]
pub(super) struct PresentInitContainer<'a> {
    /// Its index among the init containers.
    pub(super) index: usize,
    pub(super) name: &'a str,
    /// True if it is exactly what should be there.
    pub(super) is_equal: bool,
    pub(super) is_ours: bool,
}

impl<'a> Actual<'a> {
    pub(super) fn of(context: &Context<'a>, desired: &Desired<'_>) -> Self {
        let spec = &context.pod.spec;
        let volumes = || {
            let volumes = spec.volumes.iter().flatten().enumerate();
            volumes.filter(|(_, volume)| has_our_name(context, desired, volume))
        };
        let init_containers = || {
            let init_containers = spec.init_containers.iter().flatten().enumerate();
            init_containers.filter(|(_, container)| is_added_container(&container.name))
        };
        if volumes().next().is_none() && init_containers().next().is_none() {
            return Self::default();
        }
        let whole = Whole::read(context.text);
        let mut actual = Self::default();
        actual.find_volumes(context, desired, &whole, volumes());
        actual.find_init_containers(context, desired, &whole, init_containers());
        actual
    }

    fn find_volumes(
        &mut self,
        context: &Context<'a>,
        desired: &Desired<'_>,
        whole: &Whole<'_>,
        volumes: impl Iterator<Item = (usize, &'a Volume<Text<'a>>)>,
    ) {
        self.brought = brought_volumes(context, desired);
        let brought: HashSet<&str> = self.brought.iter().map(|(_, name)| *name).collect();
        let mounted = mounted_sidecar_volumes(context);
        for (index, volume) in volumes {
            let name = &*volume.name;
            let wanted = desired.volume(name);
            let is_equal = wanted.is_some_and(|wanted| whole.is_volume(index, wanted));
            // What is to become something else is nothing that a container can have brought.
            let is_used = brought.contains(name) && (is_equal || wanted.is_none());
            let ownership = if is_used {
                Ownership::Used
            } else if is_equal || (is_recorded(context, volume) && !mounted.contains(name)) {
                Ownership::Ours
            } else {
                Ownership::Foreign
            };
            self.add_volume(PresentVolume {
                index,
                name,
                is_equal,
                ownership,
            });
        }
    }

    fn find_init_containers(
        &mut self,
        context: &Context<'a>,
        desired: &Desired<'_>,
        whole: &Whole<'_>,
        init_containers: impl Iterator<Item = (usize, &'a Container<Text<'a>>)>,
    ) {
        // What should be there and was not found yet. A second one like it is one too many.
        let wanted = |name| Some((name, WantedInitContainer::of(desired.init_container(name)?)));
        let mut missing: Vec<_> = [CONFIG_WRITER, SIDECAR].into_iter().filter_map(wanted).collect();
        for (index, container) in init_containers {
            let name = &*container.name;
            let found = missing
                .iter()
                .position(|(wanted, whole_wanted)| *wanted == name && whole.is_init_container(index, whole_wanted));
            let is_equal = found.map(|at| missing.swap_remove(at)).is_some();
            let is_recorded = context.record.is_some_and(|record| match name {
                SIDECAR => record.sidecar,
                _ => record.config_writer.is_some(),
            });
            self.init_containers.push(PresentInitContainer {
                index,
                name,
                is_equal,
                is_ours: is_equal || is_recorded,
            });
        }
    }

    fn add_volume(&mut self, present: PresentVolume<'a>) {
        if is_sidecar_volume(present.name) {
            return self.sidecar_volumes.push(present);
        }
        match present.ownership {
            Ownership::Ours => {}
            Ownership::Used => drop(self.used.insert(present.name)),
            Ownership::Foreign => drop(self.foreign.insert(present.name)),
        }
        self.token_volumes.push(present);
    }

    /// True if the volume of this name is the pod's own, and not what we would write.
    pub(super) fn is_foreign(&self, volume: &str) -> bool {
        self.foreign.contains(volume)
    }

    /// True if a mount of a token volume may be changed: an earlier review made it, as far as the record says.
    pub(super) fn owns_mount(&self, context: &Context<'_>, mount: &VolumeMount<Text<'_>>) -> bool {
        context.record.is_some_and(can_own_containers_volumes) && !self.foreign.contains(&*mount.name)
    }

    /// True if a mount stays because its container brings the pair of variables that goes with it.
    pub(super) fn keeps_mount(
        &self,
        context: &Context<'a>,
        desired: &Desired<'_>,
        container: usize,
        mount: &VolumeMount<Text<'a>>,
    ) -> bool {
        self.used.contains(&*mount.name)
            && self.brought.contains(&(container, &*mount.name))
            && is_brought_mount(context, desired, mount)
    }

    /// The names of the volumes that hold only what is desired, or go: nothing else of these names stays in the pod, which may
    /// bring several volumes of one name.
    pub(super) fn settled(&self, desired: &Desired<'_>) -> Vec<Cow<'static, str>> {
        let present = || self.token_volumes.iter().chain(&self.sidecar_volumes);
        let stays = present().filter(|present| present.ownership != Ownership::Ours);
        let stays: HashSet<&str> = stays.map(|present| present.name).collect();
        let names = desired.volumes.iter().map(|volume| &volume.name);
        let desired_ones = names.filter(|name| !stays.contains(&***name)).cloned();
        let gone = present().filter(|present| !stays.contains(present.name) && desired.volume(present.name).is_none());
        desired_ones
            .chain(gone.map(|present| Cow::Owned(present.name.to_owned())))
            .collect()
    }
}

/// True if a volume has the name of one of ours.
fn has_our_name(context: &Context<'_>, desired: &Desired<'_>, volume: &Volume<Text<'_>>) -> bool {
    context.place.is_containers_volume(&volume.name)
        || is_sidecar_volume(&volume.name)
        || association::is_volume(context, desired.association.as_ref(), &volume.name)
}

/// True if a mount is what goes with a pair of variables: of the token, or of a token for a third party that came with it.
fn is_brought_mount<'a>(context: &Context<'a>, desired: &Desired<'_>, mount: &VolumeMount<Text<'a>>) -> bool {
    context.is_token_mount(mount) || desired.outbound.is_shared_mount(mount)
}

/// The token volumes that containers with a pair of their own mount as we would and may have, each with the container's index.
fn brought_volumes<'a>(context: &Context<'a>, desired: &Desired<'_>) -> HashSet<(usize, &'a str)> {
    let mut brought = HashSet::new();
    let mut shared = None;
    for (index, slot) in context.containers.iter().enumerate() {
        let mounts = slot.container.volume_mounts.iter().flatten();
        let mut exact = mounts
            .filter(|mount| is_brought_mount(context, desired, mount))
            .peekable();
        if exact.peek().is_some() && is_user(context, desired, index, slot) {
            let shared = shared.get_or_insert_with(|| SharedTokens::of(context, desired));
            for name in exact.map(|mount| &*mount.name) {
                // The same mount may stand there any number of times.
                if !brought.contains(&(index, name)) && shared.may_have(&slot.container.name, name) {
                    brought.insert((index, name));
                }
            }
        }
    }
    brought
}

/// The names of the sidecar's volumes that other containers mount.
fn mounted_sidecar_volumes<'a>(context: &Context<'a>) -> HashSet<&'a str> {
    let mounts = context
        .containers
        .iter()
        .flat_map(|slot| slot.container.volume_mounts.iter().flatten());
    mounts
        .map(|mount| &*mount.name)
        .filter(|name| is_sidecar_volume(name))
        .collect()
}

/// True if the container gets nothing and brings the whole pair.
fn is_user<'a>(context: &Context<'a>, desired: &Desired<'_>, index: usize, slot: &Slot<'a>) -> bool {
    desired.equipment(index).is_none() && context.brings_the_pair(slot.container)
}

/// True if a record says that the volume is ours, and it can be.
fn is_recorded(context: &Context<'_>, volume: &Volume<Text<'_>>) -> bool {
    context.record.is_some_and(|record| {
        if is_sidecar_volume(&volume.name) {
            record.sidecar
        } else if context.place.is_containers_volume(&volume.name) {
            can_own_containers_volumes(record) && can_hold_tokens(volume)
        } else {
            association::is_recorded_volume(context, volume)
        }
    })
}

/// True if the record can be of a review that added volumes which containers mount. One that gave the token of EKS Pod Identity has taken
/// away those of the review before, so what has their names now is the pod's own.
fn can_own_containers_volumes(record: &GrantRecord<'_>) -> bool {
    record.association.is_none()
}

/// True if a volume can be a token volume of ours: a tmpfs, or projected, and service account tokens are all there is in it.
fn can_hold_tokens(volume: &Volume<Text<'_>>) -> bool {
    let medium = volume.empty_dir.as_ref().and_then(|folder| folder.medium.as_ref());
    medium.is_some_and(|medium| **medium == *"Memory") || volume.has_only_tokens()
}
