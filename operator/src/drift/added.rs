//! The containers that the webhook added to a pod, as the pod has them now: a webhook that is asked later may have changed them.
//!
//! They are compared with the hashes in the record, which are of what decides where credentials come from. An image is compared with that
//! of new pods. The sidecar's other variables are compared with nothing, since the record does not have them.

use tokenscope_core::credentials_endpoint::ENDPOINT_VARIABLE;
use tokenscope_core::sidecar::variables::ISSUER_CA;
use tokenscope_core::{GrantRecord, hash_of_texts, pod};

use super::IssuerAuthority;
use super::pod::KeptWriter;

/// The sidecar, if there is one.
pub(super) fn sidecar(pod: &pod::Pod<Box<str>>) -> Option<&pod::Container<Box<str>>> {
    init_container(pod, pod::SIDECAR)
}

fn init_container<'a>(pod: &'a pod::Pod<Box<str>>, name: &str) -> Option<&'a pod::Container<Box<str>>> {
    let mut init_containers = pod.spec.init_containers.iter().flatten();
    init_containers.find(|container| *container.name == *name)
}

/// True if the sidecar is told to serve what it was told at admission, as far as the record has that. Of several variables of one name the
/// last counts, as for the kubelet.
pub(super) fn serves_as_recorded(sidecar: &pod::Container<Box<str>>, record: &GrantRecord<'_>) -> bool {
    let Some(recorded) = record.endpoint.as_deref() else {
        return true;
    };
    let told = sidecar
        .variable(ENDPOINT_VARIABLE)
        .and_then(|told| told.value.as_deref());
    told.is_some_and(|told| hash_of_texts([told]) == *recorded)
}

/// The authority of the issuer that the sidecar knows.
pub(super) fn issuer_authority(sidecar: &pod::Container<Box<str>>) -> Option<IssuerAuthority> {
    IssuerAuthority::first_of(sidecar.variable(ISSUER_CA)?.value.as_deref()?)
}

/// The writer of config files, if the record has one: it must be there with the arguments that were recorded.
pub(super) fn config_writer(pod: &pod::Pod<Box<str>>, record: &GrantRecord<'_>) -> Option<KeptWriter> {
    let recorded = record.config_writer.as_ref()?;
    let arguments = |container: &pod::Container<Box<str>>| {
        let arguments = container.args.as_ref().filter(|arguments| !arguments.is_beyond())?;
        Some(hash_of_texts(arguments.iter().map(|argument| &**argument)))
    };
    let as_recorded = init_container(pod, pod::CONFIG_WRITER).filter(|container| {
        let has_command = container.command.as_ref().is_some_and(|command| !command.is_empty());
        !has_command && arguments(container).as_deref() == Some(&**recorded)
    });
    Some(as_recorded.map_or(KeptWriter::Lost, |container| {
        KeptWriter::Present(container.image.clone().unwrap_or_default())
    }))
}
