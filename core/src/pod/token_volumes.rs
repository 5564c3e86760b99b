//! The volumes of a pod that hold service account tokens, and the containers that mount them.

use std::collections::HashMap;

use super::{Pod, Volume};
use crate::{HeldToken, TokenVolume};

/// The volumes with projected service account tokens, in the pod's order. The cost is linear in the pod's mounts, and in what comes
/// out: at most as many containers as the pod has for each volume.
///
/// A pod under review may bring several volumes of one name, and which of them stays is not known here. Whoever mounts the name
/// counts for each of them.
///
/// An inline CSI volume is among them, without tokens: which ones its driver gets is said by the driver's `CSIDriver` object.
pub(super) fn token_volumes<S: AsRef<str>>(pod: &Pod<S>) -> Vec<TokenVolume<'_>> {
    let mut volumes: Vec<TokenVolume<'_>> = pod.spec.volumes.iter().flatten().filter_map(token_volume).collect();
    if volumes.is_empty() {
        return volumes;
    }
    let mut users: HashMap<&str, Vec<&str>> = volumes.iter().map(|volume| (volume.name, Vec::new())).collect();
    for container in pod.all_containers() {
        for mount in container.volume_mounts.iter().flatten() {
            if let Some(containers) = users.get_mut(mount.name.as_ref()) {
                // Several mounts of one container stand together.
                if containers.last() != Some(&container.name.as_ref()) {
                    containers.push(container.name.as_ref());
                }
            }
        }
    }
    for volume in &mut volumes {
        volume.containers = users.get(volume.name).cloned().unwrap_or_default();
    }
    volumes
}

fn token_volume<S: AsRef<str>>(volume: &Volume<S>) -> Option<TokenVolume<'_>> {
    let csi_driver = volume.csi.as_ref().map(|csi| csi.driver.as_ref());
    let tokens: Vec<_> = volume
        .tokens()
        .iter()
        .map(|token| HeldToken {
            audience: token
                .audience
                .as_ref()
                .map(AsRef::as_ref)
                .filter(|audience| !audience.is_empty()),
            expiration_seconds: token.expiration_seconds,
        })
        .collect();
    (csi_driver.is_some() || !tokens.is_empty()).then(|| TokenVolume {
        name: volume.name.as_ref(),
        csi_driver,
        tokens,
        containers: Vec::new(),
    })
}
