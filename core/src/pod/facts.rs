//! From a pod to the facts that decisions look at.

use super::token_volumes::token_volumes;
use super::{AddedVariables, Container, EnvVar, Pod};
use crate::{
    ContainerFacts, GrantRecord, OwnConfiguration, OwnRole, PodFacts,
    arn::shortened,
    bounds::{Beyond, MOST_CONTAINERS},
    config_file::CONFIG_FILE,
};

impl<S: AsRef<str>> Pod<S> {
    /// The facts that a decision looks at, without what `record` says that we added ourselves. Token volumes are all
    /// that it has, our own too.
    pub fn facts(&self, record: Option<&GrantRecord<'_>>) -> PodFacts<'_> {
        let added = AddedVariables::of(record);
        let annotations = self.metadata.annotations.as_ref();
        PodFacts {
            labels: self.metadata.labels.pairs().borrowed(),
            annotations: annotations.map(|found| found.pairs().borrowed()).unwrap_or_default(),
            annotation_count: annotations.map_or(0, super::PodAnnotations::count),
            containers: self
                .users_containers()
                .map(|(_, _, container)| container.facts(&added))
                .collect(),
            token_volumes: token_volumes(self),
            beyond: self.beyond(),
        }
    }

    /// The bounds that the pod exceeds. How long values of annotations are, the decision looks at itself.
    pub fn beyond(&self) -> Vec<Beyond> {
        let spec = &self.spec;
        let containers = [&spec.init_containers, &spec.containers];
        let count = |list: &Option<super::Containers<S>>| list.as_ref().map_or(0, super::BoundedList::count);
        let too_many_mounts = |container: &&Container<S>| {
            let mounts = container.volume_mounts.as_ref();
            mounts.is_some_and(super::BoundedList::is_beyond)
        };
        let mut beyond = Vec::new();
        if containers.into_iter().map(count).sum::<usize>() > MOST_CONTAINERS {
            beyond.push(Beyond::Containers);
        }
        if spec.volumes.as_ref().is_some_and(super::BoundedList::is_beyond) {
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
        if annotations.is_some_and(super::PodAnnotations::is_beyond) {
            beyond.push(Beyond::Annotations);
        }
        beyond
    }
}

impl<S: AsRef<str>> Container<S> {
    fn facts(&self, added: &AddedVariables<'_>) -> ContainerFacts<&str> {
        let own = |name: &str| self.variable(name).filter(|_| !added.has(self.name.as_ref(), name));
        let agents = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ];
        let without_role = match agents.into_iter().find_map(own) {
            Some(_) => OwnRole::Agent,
            None => OwnRole::Absent,
        };
        ContainerFacts {
            name: self.name.as_ref(),
            own_role: own("AWS_ROLE_ARN").map_or(without_role, |variable| match &variable.value {
                Some(value) if variable.value_from.is_none() && !value.as_ref().contains("$(") => {
                    OwnRole::Literal(value.as_ref())
                }
                _ => OwnRole::Indirect,
            }),
            own_token_file: own("AWS_WEB_IDENTITY_TOKEN_FILE").is_some(),
            own_configuration: own_configuration(own),
        }
    }
}

/// A config file of the container's own counts before a profile, since that would be looked for in it.
fn own_configuration<'c, S: AsRef<str> + 'c>(own: impl Fn(&str) -> Option<&'c EnvVar<S>>) -> OwnConfiguration<&'c str> {
    let literal = |variable: &'c EnvVar<S>| {
        let value = variable.value.as_ref().map(AsRef::as_ref)?;
        (variable.value_from.is_none() && !value.contains("$(")).then_some(value)
    };
    if let Some(file) = own("AWS_CONFIG_FILE")
        && literal(file) != Some(CONFIG_FILE)
    {
        return OwnConfiguration::Elsewhere(file.name);
    }
    let Some(profile) = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(own) else {
        return OwnConfiguration::Absent;
    };
    literal(profile).map_or(OwnConfiguration::Elsewhere(profile.name), OwnConfiguration::Profile)
}
