//! The parts that a pod should carry after a decision.

use std::borrow::Cow;

use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER};
use tokenscope_core::pod::{CONFIG_WRITER, Container, SIDECAR, Text};
use tokenscope_core::{Audience, Grant, Granted, SessionName, TokenExpiration, TokenSource};

use super::config_writer::{self, ConfigWriter, DesiredConfigFile};
use super::context::Context;
use super::pieces::{
    CONFIG_FILE_VARIABLE, Content, DEFAULT_REGION, DesiredMount, DesiredToken, DesiredVariable, DesiredVolume,
    METADATA_DISABLED, REGION, ROLE_ARN, ROLE_SESSION_NAME, STS_REGIONAL_ENDPOINTS, TOKEN_FILE, VARIABLES,
    VariableValue, unexpanded,
};
use super::sidecar::SidecarContainer;
use super::warnings;
use crate::patch::Json;

/// The injection of the granted containers, and what they need for it. The default is what a pod without a grant should
/// carry: nothing.
#[derive(Debug, Default)]
pub(super) struct Desired<'a> {
    /// One for each granted container, in the pod's order.
    pub(super) containers: Vec<ContainerInjection<'a>>,
    /// One for each distinct audience.
    pub(super) tokens: Vec<DesiredToken<'a>>,
    /// The tokens' volumes, in the order of the tokens, and the one that is the sidecar's alone.
    pub(super) volumes: Vec<DesiredVolume<'a>>,
    /// One for each distinct config file.
    pub(super) config_files: Vec<DesiredConfigFile>,
    /// The init container that writes them.
    pub(super) config_writer: Option<ConfigWriter<'a>>,
    /// The sidecar that keeps the tokens, where the kubelet doesn't.
    pub(super) sidecar: Option<SidecarContainer<'a>>,
    /// True if a role session name had to be left out.
    omits_session_name: bool,
}

/// The injection of one container.
#[derive(Debug)]
pub(super) struct ContainerInjection<'a> {
    /// Its index among the request's containers.
    pub(super) container: usize,
    pub(super) grant: &'a Grant,
    pub(super) variables: Vec<DesiredVariable<'a>>,
    /// Which of the tokens it mounts; `None` where its own file is elsewhere.
    token: Option<usize>,
    /// Which of the config files it mounts.
    config_file: Option<usize>,
}

impl<'a> Desired<'a> {
    pub(super) fn of(granted: &'a Granted, context: &Context<'a>) -> Self {
        let mut desired = Self {
            containers: Vec::with_capacity(granted.containers.len()),
            tokens: Vec::with_capacity(1),
            ..Self::default()
        };
        for granted in &granted.containers {
            // The decision's indices are those of the request, which was made from these containers.
            if let Some(slot) = context.containers.get(granted.container) {
                desired.equip(granted.container, slot.container, &granted.grant, context);
            }
        }
        desired.add_volumes(context);
        desired
    }

    /// The injection of the container with this index, if it gets anything.
    pub(super) fn equipment(&self, container: usize) -> Option<&ContainerInjection<'a>> {
        let found = self
            .containers
            .binary_search_by_key(&container, |equipment| equipment.container);
        found.ok().and_then(|at| self.containers.get(at))
    }

    /// The mounts of the container with this index.
    pub(super) fn mounts(&self, container: usize, context: &Context<'_>) -> Vec<DesiredMount<'_>> {
        let Some(equipment) = self.equipment(container) else {
            return Vec::new();
        };
        let token = equipment.token.and_then(|token| self.tokens.get(token));
        let token = token.map(|token| (&token.volume, context.place.folder));
        let file = equipment.config_file.and_then(|file| self.config_files.get(file));
        let file = file.map(|file| (&file.volume, CONFIG_FOLDER));
        let mounts = token.into_iter().chain(file);
        mounts.map(|(volume, path)| DesiredMount { volume, path }).collect()
    }

    /// The init container that should have this name.
    pub(super) fn init_container(&self, name: &str) -> Option<&dyn Json> {
        match name {
            SIDECAR => self.sidecar.as_ref().map(|sidecar| sidecar as &dyn Json),
            CONFIG_WRITER => self.config_writer.as_ref().map(|writer| writer as &dyn Json),
            _ => None,
        }
    }

    /// The content that the volume of this name should have.
    pub(super) fn volume(&self, name: &str) -> Option<&DesiredVolume<'a>> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    fn equip(&mut self, index: usize, container: &Container<Text<'a>>, grant: &'a Grant, context: &Context<'a>) {
        let own_file = context.own(container, TOKEN_FILE);
        // A file of its own elsewhere comes from a volume of its own, so it needs nothing of ours.
        let mounts = own_file.is_none_or(|file| context.has_own_file_in_place(file));
        let config_file = self.config_file(grant, context);
        let variables = match config_file {
            Some(_) => by_config_file(container, grant, context),
            None => self.by_variables(container, grant, context),
        };
        let token = mounts.then(|| self.token(&grant.audience, grant.expiration, context));
        self.containers.push(ContainerInjection {
            container: index,
            grant,
            variables,
            token,
            config_file,
        });
    }

    /// The variables of web identity, and those of the SDK's settings.
    fn by_variables(
        &mut self,
        container: &Container<Text<'a>>,
        grant: &'a Grant,
        context: &Context<'a>,
    ) -> Vec<DesiredVariable<'a>> {
        let has_own = |name: &str| context.own(container, name).is_some();
        let text = |text: &'a str| VariableValue::Text(Cow::Borrowed(text));
        let mut variables = Vec::with_capacity(VARIABLES.len());
        let mut add = |name, value| variables.push(DesiredVariable { name, value });

        if grant.sts_regional_endpoints && !has_own(STS_REGIONAL_ENDPOINTS) {
            add(STS_REGIONAL_ENDPOINTS, text("regional"));
        }
        if let Some(region) = &grant.region
            && !has_own(REGION)
            && !has_own(DEFAULT_REGION)
        {
            add(DEFAULT_REGION, text(region.as_str()));
            add(REGION, text(region.as_str()));
        }
        if !has_own(ROLE_ARN) {
            add(ROLE_ARN, VariableValue::Text(unexpanded(grant.role.as_str())));
        }
        if !has_own(TOKEN_FILE) {
            let path = context.place.token_file(context.windows);
            add(TOKEN_FILE, VariableValue::Text(path));
        }
        if let Some(session_name) = &grant.session_name
            && !has_own(ROLE_SESSION_NAME)
        {
            match session_name {
                SessionName::Text(name) => add(ROLE_SESSION_NAME, text(name)),
                SessionName::PodName if pod_name_fits(context) => add(ROLE_SESSION_NAME, VariableValue::PodName),
                SessionName::PodName => self.omits_session_name = true,
            }
        }
        if grant.disables_instance_metadata && !has_own(METADATA_DISABLED) {
            add(METADATA_DISABLED, text("true"));
        }
        variables
    }

    /// The index of the config file of a grant, if it has one.
    fn config_file(&mut self, grant: &Grant, context: &Context<'_>) -> Option<usize> {
        let fits = pod_name_fits(context);
        let text = config_writer::text(grant, &context.place.token_file(false), fits)?;
        self.omits_session_name |= !fits && config_writer::names_pod(grant);
        let known = self.config_files.iter().position(|file| file.text == text);
        Some(known.unwrap_or_else(|| {
            let is_first = self.config_files.is_empty();
            self.config_files.push(DesiredConfigFile::new(text, is_first));
            self.config_files.len() - 1
        }))
    }

    /// The index of the token for `audience`, which is valid for at most `expiration`.
    fn token(&mut self, audience: &'a Audience, expiration: TokenExpiration, context: &Context<'_>) -> usize {
        let mut tokens = self.tokens.iter_mut().enumerate();
        if let Some((index, token)) = tokens.find(|(_, token)| token.audience == audience) {
            token.expiration = token.expiration.min(expiration);
            return index;
        }
        let volume = if self.tokens.is_empty() {
            context.place.first_volume()
        } else {
            context.place.volume_of(audience)
        };
        self.tokens.push(DesiredToken {
            audience,
            expiration,
            volume,
        });
        self.tokens.len() - 1
    }

    /// Those of one pod have one source. What the cluster doesn't sign needs somebody who keeps it.
    fn add_volumes(&mut self, context: &Context<'a>) {
        let first = self.containers.first().map(|equipment| equipment.grant);
        let kept = first.filter(|grant| grant.source != TokenSource::ServiceAccount && !self.tokens.is_empty());
        let volume = |token: &DesiredToken<'a>| DesiredVolume {
            name: token.volume.clone(),
            content: match kept {
                Some(_) => Content::Memory,
                None => Content::Token {
                    audience: token.audience.as_str(),
                    expiration: token.expiration,
                },
            },
        };
        self.volumes = self.tokens.iter().map(volume).collect();
        let of_file = |file: &DesiredConfigFile| DesiredVolume {
            name: file.volume.clone(),
            content: Content::Memory,
        };
        self.volumes.extend(self.config_files.iter().map(of_file));
        let names_pod = self.config_files.iter().any(|file| file.text.contains("$("));
        self.config_writer =
            first.and_then(|grant| ConfigWriter::of(&self.config_files, grant.source, names_pod, context));
        self.sidecar = kept.and_then(|grant| SidecarContainer::of(&self.tokens, grant, context));
        self.volumes
            .extend(self.sidecar.as_ref().and_then(|sidecar| sidecar.own_volume(context)));
    }

    /// Says what whoever creates the pod should know.
    pub(super) fn warn(&self, context: &Context<'_>, warned: &mut Vec<String>) {
        for equipment in &self.containers {
            if let Some(slot) = context.containers.get(equipment.container) {
                warnings::of_container(slot.container, equipment.grant, context, warned);
                for wanted in self.mounts(equipment.container, context) {
                    warnings::of_mounts(context, slot.container, wanted.path, warned);
                }
            }
        }
        if self.omits_session_name {
            warned.push(format!(
                "AWS_ROLE_SESSION_NAME is left out: STS takes 2 to 64 characters, and the pod's name has {}",
                context.pod.metadata.name.as_ref().map_or(0, |name| name.len())
            ));
        }
    }
}

/// The variables that go with a config file. Those of web identity are left out, since some SDKs prefer them to the file, and so is
/// the region, which each of the file's profiles has.
fn by_config_file<'a>(
    container: &Container<Text<'a>>,
    grant: &Grant,
    context: &Context<'a>,
) -> Vec<DesiredVariable<'a>> {
    let variables = [
        (STS_REGIONAL_ENDPOINTS, "regional", grant.sts_regional_endpoints),
        (METADATA_DISABLED, "true", grant.disables_instance_metadata),
        (CONFIG_FILE_VARIABLE, CONFIG_FILE, true),
    ];
    let missing = variables
        .into_iter()
        .filter(|(name, _, wanted)| *wanted && context.own(container, name).is_none());
    let variable = |(name, value, _)| DesiredVariable {
        name,
        value: VariableValue::Text(Cow::Borrowed(value)),
    };
    missing.map(variable).collect()
}

/// True if STS takes the pod's name as a role session name: 2 to 64 characters, and all that a pod's name can have are
/// allowed there. A generated name never has more than 63.
fn pod_name_fits(context: &Context<'_>) -> bool {
    let name = context.pod.metadata.name.as_ref().filter(|name| !name.is_empty());
    name.is_none_or(|name| (2..=64).contains(&name.len()))
}
