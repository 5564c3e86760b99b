//! The way from what a pod carries of ours to what it should carry.
//!
//! Nothing is touched but what [`super::actual`] says is ours. Indices of one list change only by the operations on that list, and
//! all changes inside of init containers come before those of our own, which move them.

use tokenscope_core::pod::{CONFIG_WRITER, EnvVar, SIDECAR, Text};

use super::actual::{Actual, Ownership, PresentInitContainer, PresentVolume};
use super::association;
use super::config_writer::ConfigWriter;
use super::context::Context;
use super::desired::Desired;
use super::list::{DesiredItem, ListDifference, Order};
use super::other_variables::OtherVariable;
use super::pieces::{DesiredVariable, DesiredVolume, PresentVariable, VARIABLES};
use super::sidecar::SidecarContainer;
use super::slot::Slot;
use crate::patch::{Json, Patch, Pointer};

/// Writes the changes of the pod's specification.
pub(super) fn write<'a>(context: &Context<'a>, desired: &Desired<'a>, actual: &Actual<'a>, patch: &mut Patch) {
    let spec = Pointer::ROOT.member("spec");
    volumes(context, desired, actual, spec, patch);
    for (index, slot) in context.containers.iter().enumerate() {
        let containers = spec.member(slot.list);
        let container = containers.index(slot.index);
        variables(context, desired, index, slot, container, patch);
        mounts(context, desired, actual, index, slot, container, patch);
    }
    init_containers(context, desired, actual, spec, patch);
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
    let wanted: &[DesiredVariable<'_>] = desired.variables(index);
    // An empty variable is one that is not there: it makes room for ours, and stays otherwise.
    let makes_room = |is_empty: bool, name: &str| is_empty && wanted.iter().any(|variable| variable.name == name);
    let is_ours = |present: &EnvVar<Text<'_>>| {
        VARIABLES.contains(&present.name)
            && (context.has_added(slot.container, present.name) || makes_room(present.is_empty(), present.name))
    };
    let is_other = |present: &OtherVariable<'_>| {
        context.others.has_added(&slot.container.name, &present.name) || makes_room(present.is_empty(), &present.name)
    };
    let fixed = slot.container.variables().iter().filter(|present| is_ours(present));
    let fixed = fixed.map(|present| (present.index, PresentVariable::from(present)));
    let others = context
        .others
        .of_container(index)
        .iter()
        .filter(|present| is_other(present));
    let others = others.map(|present| (present.index, PresentVariable::from(present)));
    let ours: Vec<_> = fixed.chain(others).collect();
    let ours: Vec<_> = ours.iter().map(|(index, present)| (*index, present)).collect();
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
    let wanted = desired.mounts(index, context);
    let present = slot.container.volume_mounts.iter().flatten().enumerate();
    let ours = present.filter(|(_, mount)| {
        let is_right = || wanted.iter().any(|wanted| wanted.is_written(mount));
        let is_kept = || actual.keeps_mount(context, desired, index, mount);
        let is_containers = context.place.is_containers_volume(&mount.name);
        is_right()
            || association::has_added_mount(context, slot.container, mount)
            || (is_containers && actual.owns_mount(context, mount) && !is_kept())
    });
    let ours: Vec<_> = ours.collect();
    list.write(&ours, &wanted, patch);
}

fn init_containers<'a>(
    context: &Context<'_>,
    desired: &Desired<'a>,
    actual: &Actual<'a>,
    spec: Pointer<'_>,
    patch: &mut Patch,
) {
    let list = ListDifference {
        path: spec.member("initContainers"),
        exists: context.pod.spec.init_containers.is_some(),
        // So that each of the others finds its files, too.
        order: Order::AlwaysFirst,
    };
    let ours = actual.init_containers.iter().filter(|present| present.is_ours);
    let ours: Vec<_> = ours.map(|present| (present.index, present)).collect();
    let writer = desired.config_writer.as_ref().map(InitContainer::ConfigWriter);
    let sidecar = desired.sidecar.as_ref().map(InitContainer::Sidecar);
    let wanted: Vec<_> = writer.into_iter().chain(sidecar).collect();
    list.write(&ours, &wanted, patch);
}

/// An init container of ours. The writer ends, and then the sidecar starts.
enum InitContainer<'d, 'a> {
    ConfigWriter(&'d ConfigWriter<'a>),
    Sidecar(&'d SidecarContainer<'a>),
}

impl Json for InitContainer<'_, '_> {
    fn write(&self, text: &mut String) {
        match self {
            Self::ConfigWriter(writer) => writer.write(text),
            Self::Sidecar(sidecar) => sidecar.write(text),
        }
    }
}

impl<'a> DesiredItem for InitContainer<'_, 'a> {
    type Present = PresentInitContainer<'a>;

    fn is_in_place_of(&self, present: &Self::Present) -> bool {
        present.name
            == match self {
                Self::ConfigWriter(_) => CONFIG_WRITER,
                Self::Sidecar(_) => SIDECAR,
            }
    }

    fn is(&self, present: &Self::Present) -> bool {
        self.is_in_place_of(present) && present.is_equal
    }
}
