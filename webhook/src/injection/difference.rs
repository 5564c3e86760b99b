//! The way from what a pod carries of ours to what it should carry.
//!
//! Nothing is touched but what [`super::actual`] says is ours. Indices of one list change only by the operations on that list, and
//! all changes inside of init containers come before the sidecar's own, which moves them.

use tokenscope_core::pod::{EnvVar, Text};

use super::actual::{Actual, Ownership, PresentSidecar, PresentVolume};
use super::context::{Context, Slot};
use super::desired::Desired;
use super::list::{DesiredItem, ListDifference, Order};
use super::pieces::{DesiredVariable, DesiredVolume, VARIABLES};
use super::sidecar::SidecarContainer;
use crate::patch::{Patch, Pointer};

/// Writes the changes of the pod's specification.
pub(super) fn write(context: &Context<'_>, desired: &Desired<'_>, actual: &Actual<'_>, patch: &mut Patch) {
    let spec = Pointer::ROOT.member("spec");
    volumes(context, desired, actual, spec, patch);
    for (index, slot) in context.containers.iter().enumerate() {
        let containers = spec.member(slot.list);
        let container = containers.index(slot.index);
        variables(context, desired, index, slot, container, patch);
        mounts(context, desired, actual, index, slot, container, patch);
    }
    sidecar(context, desired, actual, spec, patch);
}

fn volumes(context: &Context<'_>, desired: &Desired<'_>, actual: &Actual<'_>, spec: Pointer<'_>, patch: &mut Patch) {
    let list = ListDifference {
        path: spec.member("volumes"),
        exists: context.pod.spec.volumes.is_some(),
        order: Order::First,
    };
    let present = actual.token_volumes.iter().chain(&actual.sidecar_volumes);
    let ours = present.filter(|volume| volume.is_equal || volume.ownership == Ownership::Ours);
    let ours: Vec<_> = ours.map(|volume| (volume.index, volume)).collect();
    list.write(&ours, &desired.volumes, patch);
}

impl<'a> DesiredItem for DesiredVolume<'a> {
    type Present = PresentVolume<'a>;

    fn is_in_place_of(&self, present: &PresentVolume<'a>) -> bool {
        self.name == present.name
    }

    fn is(&self, present: &PresentVolume<'a>) -> bool {
        self.name == present.name && present.is_equal
    }
}

fn variables<'a>(
    context: &Context<'a>,
    desired: &Desired<'a>,
    index: usize,
    slot: &Slot<'a>,
    container: Pointer<'_>,
    patch: &mut Patch,
) {
    let list = ListDifference {
        path: container.member("env"),
        exists: slot.container.env.is_some(),
        order: Order::Last,
    };
    let wanted: &[DesiredVariable<'_>] = desired.equipment(index).map_or(&[], |equipment| &equipment.variables);
    // An empty variable is one that is not there: it makes room for ours, and stays otherwise.
    let is_ours = |present: &EnvVar<Text<'_>>| {
        VARIABLES.contains(&present.name)
            && (context.has_added(slot.container, present.name)
                || (present.is_empty() && wanted.iter().any(|variable| variable.name == present.name)))
    };
    let present = slot.container.variables().iter();
    let ours: Vec<_> = present
        .filter(|present| is_ours(present))
        .map(|present| (present.index, present))
        .collect();
    list.write(&ours, wanted, patch);
}

fn mounts<'a>(
    context: &Context<'a>,
    desired: &Desired<'a>,
    actual: &Actual<'_>,
    index: usize,
    slot: &Slot<'a>,
    container: Pointer<'_>,
    patch: &mut Patch,
) {
    let list = ListDifference {
        path: container.member("volumeMounts"),
        exists: slot.container.volume_mounts.is_some(),
        order: Order::Last,
    };
    let wanted = desired.mount(index, context);
    let present = slot.container.volume_mounts.iter().flatten().enumerate();
    let ours = present.filter(|(_, mount)| {
        let is_right = || wanted.is_some_and(|wanted| wanted.is_written(mount));
        let is_kept = || actual.keeps_mount(context, desired, index, slot, mount);
        context.place.is_token_volume(&mount.name) && (is_right() || (actual.owns_mount(context, mount) && !is_kept()))
    });
    let ours: Vec<_> = ours.collect();
    list.write(&ours, wanted.as_slice(), patch);
}

fn sidecar(context: &Context<'_>, desired: &Desired<'_>, actual: &Actual<'_>, spec: Pointer<'_>, patch: &mut Patch) {
    let list = ListDifference {
        path: spec.member("initContainers"),
        exists: context.pod.spec.init_containers.is_some(),
        // So that each of the others finds a token, too.
        order: Order::AlwaysFirst,
    };
    let ours = actual.sidecars.iter().filter(|sidecar| sidecar.is_ours);
    let ours: Vec<_> = ours.map(|sidecar| (sidecar.index, sidecar)).collect();
    list.write(&ours, desired.sidecar.as_slice(), patch);
}

impl DesiredItem for SidecarContainer<'_> {
    type Present = PresentSidecar;

    fn is_in_place_of(&self, _: &PresentSidecar) -> bool {
        true
    }

    fn is(&self, present: &PresentSidecar) -> bool {
        present.is_equal
    }
}
