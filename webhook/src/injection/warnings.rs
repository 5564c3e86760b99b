//! Settings of a granted container that keep its SDK from the granted role, although nothing is wrong with the grant.

use tokenscope_core::annotations::{CONTAINERS, ROLE_ARN};
use tokenscope_core::config_file::CONFIG_FOLDER;
use tokenscope_core::delivery::ProfileName;
use tokenscope_core::pod::{Container, Text, Volume};
use tokenscope_core::text::up_to;
use tokenscope_core::{Grant, Region, Request, asks_itself, is_misspelt_region};

use super::context::Context;
use super::paths::{PathParts, is_within};
use super::pieces::{CONFIG_FILE_VARIABLE, DEFAULT_REGION, REGION, ROLE_ARN as ROLE_VARIABLE};

/// The most bytes of a list of containers in a warning.
const MOST_LIST_BYTES: usize = 100;

/// Adds what whoever creates the pod should know of a container.
pub(super) fn of_container<'a>(
    container: &Container<Text<'a>>,
    grant: &Grant,
    context: &Context<'a>,
    warnings: &mut Vec<String>,
) {
    other_credentials(container, grant, warnings);
    other_configuration(container, grant, context, warnings);
    warnings.extend(other_role(container, grant, context));
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

/// The warning for a pod that names containers and no role, where no policy assigns one either.
pub(super) fn of_list_without_role(request: &Request<'_>) -> Option<String> {
    let list = request.pod.annotations.value(CONTAINERS)?;
    Some(format!(
        "annotation {CONTAINERS} of the pod is {:?} and has no effect: no annotation names a role for this pod, and no policy assigns one. \
         Name one by {ROLE_ARN}, or remove the list",
        up_to(list, MOST_LIST_BYTES)
    ))
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
    let is_read_only = innermost.read_only == Some(true) || volume.is_some_and(Volume::is_read_only);
    if folder == CONFIG_FOLDER && !is_read_only {
        warnings.push(format!(
            "container {} mounts volume {} at {}, around the folder of the AWS config file: whatever else can write to that volume can \
             replace the file; mount the volume elsewhere",
            &*container.name, &*innermost.name, &*innermost.mount_path
        ));
    }
    if is_read_only {
        warnings.push(format!(
            "container {} mounts volume {} read-only at {}: the folder {folder} can't be made there, and the container \
             doesn't start unless the volume has that folder",
            &*container.name, &*innermost.name, &*innermost.mount_path
        ));
    }
}

/// SDKs look at access keys in the environment before they look at a web identity token.
fn other_credentials(container: &Container<Text<'_>>, grant: &Grant, warnings: &mut Vec<String>) {
    let name = &*container.name;
    if container.variable("AWS_ACCESS_KEY_ID").is_some() {
        warnings.push(format!(
            "container {name} sets AWS_ACCESS_KEY_ID, which SDKs prefer to the granted role: remove it"
        ));
    } else if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        warnings.push(format!(
            "container {name} has envFrom: if that brings {}, SDKs prefer it to the granted role",
            preferred(grant)
        ));
    }
}

/// The variables that ours can't keep away, by which SDKs find other credentials first. Ours take the place of those of `envFrom` that
/// have their names.
fn preferred(grant: &Grant) -> &'static str {
    if grant.endpoint.is_some() {
        "AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    } else if grant.config_file.is_some() {
        // boto3 and the AWS CLI take this role in place of that of a profile which takes it with the token.
        "AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ROLE_ARN or AWS_WEB_IDENTITY_TOKEN_FILE"
    } else {
        "AWS_ACCESS_KEY_ID, AWS_PROFILE or AWS_CONFIG_FILE"
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

/// In a profile that takes its role with the token, boto3 and the AWS CLI take the role of the variable in place of the profile's
/// (botocore 1.44.8, `AssumeRoleWithWebIdentityProvider`).
fn other_role<'a>(container: &Container<Text<'a>>, grant: &Grant, context: &Context<'a>) -> Option<String> {
    let file = grant.config_file.as_ref()?;
    context.own(container, ROLE_VARIABLE)?;
    let mut variables = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter();
    let (variable, chosen) =
        variables.find_map(|variable| Some((variable, context.own(container, variable)?.value.as_deref()?)))?;
    let is_chosen = |name: &ProfileName| name.as_str() == chosen;
    let mut profiles = file.profiles.iter();
    let profile = profiles.find(|profile| profile.name.as_ref().is_some_and(is_chosen))?;
    (profile.chain.is_empty() && profile.first.role != grant.role).then(|| {
        format!(
            "container {} sets {ROLE_VARIABLE} and {variable}: boto3 and the AWS CLI take that role in place of the profile's; remove {ROLE_VARIABLE}, and name the role by an annotation",
            &*container.name
        )
    })
}

/// STS of one partition knows no role of another one.
fn region(container: &Container<Text<'_>>, grant: &Grant, warnings: &mut Vec<String>) {
    let name = &*container.name;
    let partition = grant.role.partition();
    let is_other = |region: &str| {
        let of_region = tokenscope_core::partition_of_region(region);
        of_region.is_some_and(|of_region| of_region != partition)
    };
    if let Some(endpoint) = &grant.endpoint {
        let other = endpoint.regions.iter().find(|region| is_other(region.as_str()));
        warnings.extend(other.map(|region| {
            format!(
                "the sidecar asks STS of region {} for the role of container {name}, which knows no role of partition {partition}: set regions of {partition} in spec.aws",
                region.as_str()
            )
        }));
        let misspelt = endpoint
            .regions
            .iter()
            .find(|region| is_misspelt_region(region.as_str()));
        warnings.extend(misspelt.map(|region| {
            format!(
                "the sidecar asks STS of region {} for the role of container {name}, which is not written as AWS writes regions, such as eu-central-1: correct it in spec.aws",
                region.as_str()
            )
        }));
        return;
    }
    let own = [REGION, DEFAULT_REGION]
        .into_iter()
        .filter_map(|name| container.variable(name));
    // One that comes from elsewhere is not known here. Of the two some SDKs read only the second.
    let own: Vec<Option<&str>> = own
        .map(|own| own.value.as_deref().filter(|_| own.value_from.is_none()))
        .collect();
    let of_grant = grant.region.as_ref().map(Region::as_str);
    if own.is_empty() && of_grant.is_none() && partition != "aws" {
        warnings.push(format!(
            "container {name} has no region, so SDKs ask sts.amazonaws.com, which knows no role of partition {partition}: set spec.aws.region"
        ));
    }
    let regions = own.iter().copied().chain(own.is_empty().then_some(of_grant)).flatten();
    // What a variable of the pod adds is not known here.
    let mut regions = regions.filter(|region| !region.contains("$("));
    warnings.extend(regions.find_map(|region| {
        if is_other(region) {
            return Some(format!(
                "container {name} has region {region}, whose STS knows no role of partition {partition}: set a region of {partition}"
            ));
        }
        is_misspelt_region(region).then(|| {
            format!(
                "container {name} has region {region:?}, which is not written as AWS writes regions, such as eu-central-1: SDKs find no STS there"
            )
        })
    }));
}
