//! What in a granted container keeps its SDK from the granted role, although nothing is wrong with the grant.

use tokenscope_core::pod::{Container, Text, Volume};
use tokenscope_core::{Grant, Region, Request, asks_itself};

use super::context::Context;
use super::paths::{PathParts, is_within};
use super::pieces::{CONFIG_FILE_VARIABLE, DEFAULT_REGION, REGION};

/// Adds what whoever creates the pod should know of a container.
pub(super) fn of_container<'a>(
    container: &Container<Text<'a>>,
    grant: &Grant,
    context: &Context<'a>,
    warnings: &mut Vec<String>,
) {
    other_credentials(container, warnings);
    other_configuration(container, grant, context, warnings);
    region(container, grant, warnings);
}

/// The warning for a pod that EKS's label keeps from what annotations of ours ask for.
pub(super) fn of_skipping_label(request: &Request<'_>) -> Option<String> {
    let asks = asks_itself(&request.pod.annotations) || asks_itself(&request.service_account_annotations);
    asks.then(|| {
        "label eks.amazonaws.com/skip-pod-identity-webhook keeps tokenscope away too, so the pod gets no role although an annotation \
         tokenscope.io/role-arn asks for one: remove the label"
            .to_owned()
    })
}

/// Adds a warning if a folder of ours lies in a mount that can't be written: the container runtime can't make it there, and the container
/// doesn't start.
pub(super) fn of_mounts(
    context: &Context<'_>,
    container: &Container<Text<'_>>,
    folder: &str,
    warnings: &mut Vec<String>,
) {
    if context.windows {
        return;
    }
    let mounts = container.volume_mounts.iter().flatten();
    let others = mounts.filter(|mount| !context.place.is_containers_volume(&mount.name));
    let around = others.filter(|mount| is_within(folder, &mount.mount_path, false));
    // Mounts lie in each other; the folder is made in the innermost.
    let Some(innermost) = around.max_by_key(|mount| PathParts::of(&mount.mount_path, false).count()) else {
        return;
    };
    let mut volumes = context.pod.spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| *volume.name == *innermost.name);
    if innermost.read_only == Some(true) || volume.is_some_and(Volume::is_read_only) {
        warnings.push(format!(
            "container {} mounts volume {} read-only at {}: the folder {folder} can't be made there, and the container \
             doesn't start unless the volume has that folder",
            &*container.name, &*innermost.name, &*innermost.mount_path
        ));
    }
}

/// SDKs look at access keys in the environment before they look at a web identity token.
fn other_credentials(container: &Container<Text<'_>>, warnings: &mut Vec<String>) {
    let name = &*container.name;
    if container.variable("AWS_ACCESS_KEY_ID").is_some() {
        warnings.push(format!(
            "container {name} sets AWS_ACCESS_KEY_ID, which SDKs prefer to the granted role: remove it"
        ));
    } else if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        warnings.push(format!(
            "container {name} has envFrom: if that brings AWS_ACCESS_KEY_ID, SDKs prefer it to the granted role"
        ));
    }
}

/// Several SDKs look into the profile that is named before they look at a web identity token. A container that gets a config file
/// has chosen one of its profiles.
fn other_configuration<'a>(
    container: &Container<Text<'a>>,
    grant: &Grant,
    context: &Context<'a>,
    warnings: &mut Vec<String>,
) {
    let shared = "AWS_SHARED_CREDENTIALS_FILE";
    let files = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", CONFIG_FILE_VARIABLE, shared];
    let set: Vec<&str> = files
        .into_iter()
        .filter(|name| context.own(container, name).is_some())
        .filter(|name| grant.config_file.is_none() || *name == shared)
        .collect();
    if !set.is_empty() {
        warnings.push(format!(
            "container {} sets {}: SDKs may take credentials from there and not the granted role",
            &*container.name,
            set.join(" and ")
        ));
    }
}

/// STS of one partition knows no role of another one.
fn region(container: &Container<Text<'_>>, grant: &Grant, warnings: &mut Vec<String>) {
    let name = &*container.name;
    let partition = grant.role.partition();
    let mut own = [REGION, DEFAULT_REGION]
        .into_iter()
        .filter_map(|name| container.variable(name));
    let region = match own.next() {
        // One that comes from elsewhere is not known here.
        Some(own) if own.value_from.is_some() => return,
        Some(own) => own.value.as_deref(),
        None => grant.region.as_ref().map(Region::as_str),
    };
    match region {
        Some(region) if region.contains("$(") => {}
        Some(region) => {
            let of_region = tokenscope_core::partition_of_region(region);
            if of_region.is_some_and(|of_region| of_region != partition) {
                warnings.push(format!(
                    "container {name} has region {region}, whose STS knows no role of partition {partition}: set a region of {partition}"
                ));
            }
        }
        None if partition != "aws" => warnings.push(format!(
            "container {name} has no region, so SDKs ask sts.amazonaws.com, which knows no role of partition {partition}: set spec.aws.region"
        )),
        None => {}
    }
}
