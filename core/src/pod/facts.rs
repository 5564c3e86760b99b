//! From a pod to the facts that decisions look at.

use super::token_volumes::token_volumes;
use super::{AddedVariables, Container, EnvVar, Pod};
use crate::arn::shortened;
use crate::bounds::{Beyond, MOST_CONTAINERS};
use crate::config_file::CONFIG_FILE;
use crate::credentials_endpoint::{
    AUTHORIZATION_FILE, AUTHORIZATION_FILE_VARIABLE, AUTHORIZATION_FOLDER, CREDENTIALS_PATH, FULL_URI_VARIABLE,
};
use crate::delivery::ProfileName;
use crate::pod_identity::POD_LABEL;
use crate::{ContainerFacts, GrantRecord, OwnConfiguration, OwnRole, Pairs, PodFacts};

impl<S: AsRef<str>> Pod<S> {
    /// The facts that a decision looks at, without what `record` says that we added ourselves. Token volumes are all
    /// that it has, our own too.
    pub fn facts<'p>(&'p self, record: Option<&'p GrantRecord<'_>>) -> PodFacts<'p> {
        let added = AddedVariables::of(record);
        let annotations = self.metadata.annotations.as_ref();
        PodFacts {
            labels: labels(self.metadata.labels.pairs(), record),
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
        let is_others =
            |name: &str| own(name).is_some_and(|variable| !is_of_our_endpoint(variable, self.name.as_ref()));
        let agents = [FULL_URI_VARIABLE, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        let authorizations = [AUTHORIZATION_FILE_VARIABLE, "AWS_CONTAINER_AUTHORIZATION_TOKEN"];
        let without_role = if agents.into_iter().any(is_others) {
            OwnRole::Agent
        } else {
            OwnRole::Absent
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
            own_agent: agents.into_iter().chain(authorizations).any(is_others),
            own_configuration: own_configuration(own),
        }
    }
}

/// True if a variable says what ours says, as in the copy of a pod that we equipped. Which port is ours nobody knows here.
fn is_of_our_endpoint<S: AsRef<str>>(variable: &EnvVar<S>, container: &str) -> bool {
    let Some(value) = variable.value.as_ref().filter(|_| variable.value_from.is_none()) else {
        return false;
    };
    match variable.name {
        FULL_URI_VARIABLE => {
            let rest = value.as_ref().strip_prefix("http://127.0.0.1:");
            let port_and_name = rest.and_then(|rest| rest.split_once(CREDENTIALS_PATH));
            port_and_name.is_some_and(|(port, name)| port.parse::<u16>().is_ok() && name == container)
        }
        AUTHORIZATION_FILE_VARIABLE => {
            let file = value.as_ref().strip_prefix(AUTHORIZATION_FOLDER);
            file.and_then(|file| file.strip_prefix('/')) == Some(AUTHORIZATION_FILE)
        }
        _ => false,
    }
}

/// The labels without the one that an earlier review wrote for EKS Pod Identity: it has the value that the pod had at admission.
fn labels<'p, S: AsRef<str>>(present: &'p Pairs<S>, record: Option<&'p GrantRecord<'_>>) -> Pairs<&'p str> {
    let Some(record) = record.filter(|record| record.association.is_some()) else {
        return present.borrowed();
    };
    let others = present.iter().filter(|(key, _)| *key != POD_LABEL);
    let before = record.labels.as_ref().and_then(|labels| labels.value(POD_LABEL));
    others.chain(before.map(|value| (POD_LABEL, value))).collect()
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
    // No file of ours has another name, and so nobody keeps a text that is none.
    let can_be_ours = |name: &&str| *name == "default" || name.parse::<ProfileName>().is_ok();
    literal(profile)
        .filter(can_be_ours)
        .map_or(OwnConfiguration::Elsewhere(profile.name), OwnConfiguration::Profile)
}
