//! From a pod to the facts that decisions look at.

use super::{AddedVariables, Container, Pod};
use crate::{
    Container as ContainerFacts, GrantRecord, OwnRole, PodFacts, ProjectedToken,
    arn::shortened,
    bounds::{Beyond, MOST_CONTAINERS},
};
use std::{collections::HashMap, sync::Arc};

/// The lifetime that the API server gives a projected token for which none is set
/// (ServiceAccountTokenProjection.expirationSeconds).
const DEFAULT_EXPIRATION: i64 = 3600;

impl<S: AsRef<str>> Pod<S> {
    /// The facts that a decision looks at, without what `record` says that we added ourselves. Tokens and drivers are those of
    /// all volumes, our own too.
    pub fn facts(&self, record: Option<&GrantRecord<'_>>) -> PodFacts<'_> {
        let added = AddedVariables::of(record);
        let annotations = self.metadata.annotations.as_ref();
        PodFacts {
            labels: self.metadata.labels.pairs().borrowed(),
            annotations: annotations.map(|found| found.pairs().borrowed()).unwrap_or_default(),
            annotation_count: annotations.map_or(0, super::Annotations::count),
            containers: self
                .users_containers(record)
                .map(|(_, _, container)| container.facts(&added))
                .collect(),
            tokens: self.tokens(),
            csi_drivers: self.csi_drivers().collect(),
            beyond: self.beyond(),
        }
    }

    /// The bounds that the pod exceeds. How long values of annotations are, the decision looks at itself.
    pub fn beyond(&self) -> Vec<Beyond> {
        let spec = &self.spec;
        let containers = [&spec.init_containers, &spec.containers];
        let count = |list: &Option<super::Containers<S>>| list.as_ref().map_or(0, super::List::count);
        let too_many_mounts = |container: &&Container<S>| {
            let mounts = container.volume_mounts.as_ref();
            mounts.is_some_and(super::List::is_beyond)
        };
        let mut beyond = Vec::new();
        if containers.into_iter().map(count).sum::<usize>() > MOST_CONTAINERS {
            beyond.push(Beyond::Containers);
        }
        if spec.volumes.as_ref().is_some_and(super::List::is_beyond) {
            beyond.push(Beyond::Volumes);
        }
        if let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.is_beyond()) {
            let volume = shortened(volume.name.as_ref());
            beyond.push(Beyond::Sources { volume });
        }
        if let Some(container) = self.all_containers().find(too_many_mounts) {
            let container = shortened(container.name.as_ref());
            beyond.push(Beyond::Mounts { container });
        }
        if self.metadata.labels.is_beyond() {
            beyond.push(Beyond::Labels);
        }
        let annotations = self.metadata.annotations.as_ref();
        if annotations.is_some_and(super::Annotations::is_beyond) {
            beyond.push(Beyond::Annotations);
        }
        beyond
    }

    fn csi_drivers(&self) -> impl Iterator<Item = &str> {
        let volumes = self.spec.volumes.iter().flatten();
        volumes.filter_map(|volume| Some(volume.csi.as_ref()?.driver.as_ref()))
    }

    fn tokens(&self) -> Vec<ProjectedToken<'_>> {
        let volumes = self.spec.volumes.iter().flatten();
        let with_tokens: Vec<_> = volumes.filter(|volume| !volume.tokens().is_empty()).collect();
        let mut containers: HashMap<&str, Vec<&str>> = with_tokens
            .iter()
            .map(|volume| (volume.name.as_ref(), Vec::new()))
            .collect();
        if containers.is_empty() {
            return Vec::new();
        }
        for container in self.all_containers() {
            let name = container.name.as_ref();
            for mount in container.volume_mounts.iter().flatten() {
                if let Some(known) = containers.get_mut(mount.name.as_ref())
                    && known.last() != Some(&name)
                {
                    known.push(name);
                }
            }
        }
        let containers: HashMap<&str, Arc<[&str]>> = containers
            .into_iter()
            .map(|(volume, containers)| (volume, containers.into()))
            .collect();
        let mut tokens = Vec::new();
        for volume in with_tokens {
            let name = volume.name.as_ref();
            tokens.extend(volume.tokens().iter().map(|token| {
                ProjectedToken {
                    volume: name,
                    audience: token
                        .audience
                        .as_ref()
                        .map(AsRef::as_ref)
                        .filter(|audience| !audience.is_empty()),
                    expiration_seconds: token.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION),
                    containers: containers.get(name).cloned().unwrap_or_default(),
                }
            }));
        }
        tokens
    }
}

impl<S: AsRef<str>> Container<S> {
    fn facts(&self, added: &AddedVariables<'_>) -> ContainerFacts<'_> {
        let own = |name: &str| self.variable(name).filter(|_| !added.has(self.name.as_ref(), name));
        ContainerFacts {
            name: self.name.as_ref(),
            own_role: own("AWS_ROLE_ARN").map_or(OwnRole::Absent, |variable| match &variable.value {
                Some(value) if variable.value_from.is_none() && !value.as_ref().contains("$(") => {
                    OwnRole::Literal(value.as_ref())
                }
                _ => OwnRole::Indirect,
            }),
            own_token_file: own("AWS_WEB_IDENTITY_TOKEN_FILE").is_some(),
        }
    }
}
