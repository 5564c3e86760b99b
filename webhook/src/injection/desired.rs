//! The parts that a pod should carry after a decision.

use std::ptr;

use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER};
use tokenscope_core::credentials_endpoint::AUTHORIZATION_FOLDER;
use tokenscope_core::outbound::OUTBOUND_FOLDER;
use tokenscope_core::pod::{CONFIG_WRITER, Container, SIDECAR, Text, is_outbound_volume};
use tokenscope_core::{Associated, Audience, Grant, Granted, SessionName, TokenExpiration, TokenSource};

use super::association::DesiredAssociation;
use super::config_writer::{self, ConfigWriter, DesiredConfigFile, DesiredConfigFiles};
use super::context::Context;
use super::endpoint::{self, DesiredEndpoint, ServedToken};
use super::outbound::{self, DesiredOutbound};
use super::pieces::{
    CONFIG_FILE_VARIABLE, Content, DesiredMount, DesiredToken, DesiredVariable, DesiredVolume, ROLE_ARN,
    ROLE_SESSION_NAME, TOKEN_FILE, VariableValue, unexpanded,
};
use super::sidecar::SidecarContainer;
use super::variables::ContainerVariables;
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
    /// The tokens' volumes, in the order of the tokens, those of authorization tokens and config files, and those that are the sidecar's alone.
    pub(super) volumes: Vec<DesiredVolume<'a>>,
    /// One for each distinct config file.
    pub(super) config_files: DesiredConfigFiles,
    /// The init container that writes them.
    pub(super) config_writer: Option<ConfigWriter<'a>>,
    /// The credentials that the sidecar serves.
    pub(super) endpoint: DesiredEndpoint<'a>,
    /// The tokens for third parties.
    pub(super) outbound: DesiredOutbound<'a>,
    /// The sidecar that keeps the tokens, where the kubelet doesn't, or serves credentials.
    pub(super) sidecar: Option<SidecarContainer<'a>>,
    /// The parts that containers get in place of all this, where an association of EKS Pod Identity decides the role.
    pub(super) association: Option<DesiredAssociation<'a>>,
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
    /// The index of the token that it mounts; `None` where its own file is elsewhere.
    token: Option<usize>,
    /// The index of the config file that it mounts.
    config_file: Option<usize>,
    /// Its index among the served containers.
    served: Option<usize>,
    /// The index of the set of tokens for third parties that it mounts.
    outbound: Option<usize>,
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

    pub(super) fn of_associated(associated: &'a Associated, context: &Context<'a>) -> Self {
        Self {
            volumes: vec![DesiredAssociation::volume(associated, context)],
            association: Some(DesiredAssociation::of(associated, context)),
            ..Self::default()
        }
    }

    /// The variables that the container with this index should have of ours.
    pub(super) fn variables(&self, container: usize) -> &[DesiredVariable<'a>] {
        match &self.association {
            Some(association) => association.variables(container),
            None => self.equipment(container).map_or(&[], |equipment| &equipment.variables),
        }
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
        if let Some(association) = &self.association {
            return association.mount(container, context).into_iter().collect();
        }
        let Some(equipment) = self.equipment(container) else {
            return Vec::new();
        };
        let token = equipment.token.and_then(|token| self.tokens.get(token));
        let token = token.map(|token| (&*token.volume, context.place.folder));
        let file = equipment
            .config_file
            .and_then(|file| self.config_files.kept().get(file));
        let file = file.map(|file| (&*file.volume, CONFIG_FOLDER));
        let authorization = equipment
            .served
            .and_then(|served| self.endpoint.authorization_volume(served));
        let authorization = authorization.map(|volume| (volume, AUTHORIZATION_FOLDER));
        let mounts = token.into_iter().chain(file).chain(authorization);
        let mounts = mounts.map(|(volume, path)| DesiredMount { volume, path });
        mounts.chain(self.outbound.mounts(equipment.outbound)).collect()
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

    fn equip(&mut self, index: usize, container: &'a Container<Text<'a>>, grant: &'a Grant, context: &Context<'a>) {
        let outbound = self.outbound.index_of(&grant.outbound, &container.name);
        let is_missing =
            |variable: &DesiredVariable<'_>| !context.others.has_own(index, &container.name, variable.name);
        let of_outbound = outbound::variables(&grant.outbound, context.windows).filter(is_missing);
        if let Some(endpoint) = &grant.endpoint {
            self.omits_session_name |= !pod_name_fits(context) && endpoint::names_pod(grant, endpoint);
            let of_aws = self.outbound.of_aws(outbound).into_iter();
            let of_aws = of_aws.map(|(token, volume)| ServedToken {
                token,
                volume: volume.to_owned(),
                folder: context.place.sidecar_folder(volume).into_owned(),
            });
            let served = self.endpoint.serve(&container.name, grant, endpoint, of_aws.collect());
            return self.containers.push(ContainerInjection {
                container: index,
                grant,
                variables: endpoint::variables(container, grant, context)
                    .into_iter()
                    .chain(of_outbound)
                    .collect(),
                token: None,
                config_file: None,
                served: Some(served),
                outbound,
            });
        }
        let own_file = context.own(container, TOKEN_FILE);
        // A file of its own elsewhere comes from a volume of its own, so it needs nothing of ours.
        let mounts = own_file.is_none_or(|file| context.has_own_file_in_place(file));
        let config_file = self.config_file(grant, context);
        let mut variables = match config_file {
            Some(_) => by_config_file(container, grant, context),
            None => self.by_variables(container, grant, context),
        };
        variables.extend(of_outbound);
        let token = mounts.then(|| self.token(&grant.audience, grant.expiration, context));
        self.containers.push(ContainerInjection {
            container: index,
            grant,
            variables,
            token,
            config_file,
            served: None,
            outbound,
        });
    }

    /// The variables of web identity, and those of the SDK's settings.
    fn by_variables(
        &mut self,
        container: &Container<Text<'a>>,
        grant: &'a Grant,
        context: &Context<'a>,
    ) -> Vec<DesiredVariable<'a>> {
        let mut variables = ContainerVariables::of(container, context);
        variables.add_regional_endpoints(grant.sts_regional_endpoints);
        variables.add_region(grant.region.as_ref());
        variables.add(ROLE_ARN, unexpanded(grant.role.as_str()));
        variables.add(TOKEN_FILE, context.place.token_file(context.windows));
        match &grant.session_name {
            Some(SessionName::Text(name)) => variables.add(ROLE_SESSION_NAME, &**name),
            Some(SessionName::PodName) if pod_name_fits(context) => {
                variables.add_value(ROLE_SESSION_NAME, VariableValue::PodName);
            }
            Some(SessionName::PodName) => self.omits_session_name |= !variables.has_own(ROLE_SESSION_NAME),
            None => {}
        }
        variables.add_metadata_disabled(grant.disables_instance_metadata);
        variables.into_desired()
    }

    /// The index of the config file of a grant, if it has one.
    fn config_file(&mut self, grant: &Grant, context: &Context<'_>) -> Option<usize> {
        let file = grant.config_file.as_ref()?;
        // Containers with one role share the grant.
        if let Some(known) = self.containers.iter().find(|known| ptr::eq(known.grant, grant)) {
            return known.config_file;
        }
        let fits = pod_name_fits(context);
        self.omits_session_name |= !fits && config_writer::names_pod(grant);
        let text = || config_writer::text(file, &context.place.token_file(false), fits);
        Some(self.config_files.index_of(text))
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
        let issued: Vec<_> = self.outbound.issued().collect();
        if let Some(grant) = first.filter(|_| self.tokens.is_empty() && self.endpoint.is_empty() && !issued.is_empty())
        {
            // The sidecar's own directory is that of the first token, also where containers have theirs elsewhere.
            self.token(&grant.audience, grant.expiration, context);
        }
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
        self.volumes.extend(self.endpoint.authorization_volumes());
        let of_file = |file: &DesiredConfigFile| DesiredVolume {
            name: file.volume.clone(),
            content: Content::Memory,
        };
        self.volumes.extend(self.config_files.kept().iter().map(of_file));
        self.volumes.extend(self.outbound.volumes());
        let names_pod = self.config_files.kept().iter().any(|file| file.text.contains("$("));
        self.config_writer =
            first.and_then(|grant| ConfigWriter::of(self.config_files.kept(), grant.source, names_pod, context));
        let with_sidecar = kept.or_else(|| first.filter(|_| !self.endpoint.is_empty()));
        let fits = pod_name_fits(context);
        let tokens: Vec<_> = self.tokens.iter().cloned().chain(issued).collect();
        self.sidecar =
            with_sidecar.and_then(|grant| SidecarContainer::of(&tokens, &self.endpoint, grant, context, fits));
        if let Some(sidecar) = &self.sidecar {
            self.volumes.extend(sidecar.own_volumes(&self.endpoint, context));
        }
    }

    /// Says what whoever creates the pod should know.
    pub(super) fn warn(&self, context: &Context<'_>, warned: &mut Vec<String>) {
        for equipment in &self.containers {
            if let Some(slot) = context.containers.get(equipment.container) {
                warnings::of_container(slot.container, equipment.grant, context, warned);
                let mounts = self.mounts(equipment.container, context);
                let is_outbound = |mount: &&DesiredMount<'_>| is_outbound_volume(mount.volume);
                let outbound = mounts.iter().find(is_outbound).map(|_| OUTBOUND_FOLDER);
                let others = mounts.iter().filter(|mount| !is_outbound(mount));
                for folder in others.map(|mount| mount.path).chain(outbound) {
                    warnings::of_mounts(context, slot.container, folder, warned);
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
    let mut variables = ContainerVariables::of(container, context);
    variables.add_regional_endpoints(grant.sts_regional_endpoints);
    variables.add_metadata_disabled(grant.disables_instance_metadata);
    variables.add(CONFIG_FILE_VARIABLE, CONFIG_FILE);
    variables.into_desired()
}

/// True if STS takes the pod's name as a role session name: 2 to 64 characters, and all that a pod's name can have are
/// allowed there. A generated name never has more than 63.
fn pod_name_fits(context: &Context<'_>) -> bool {
    let name = context.pod.metadata.name.as_ref().filter(|name| !name.is_empty());
    name.is_none_or(|name| (2..=64).contains(&name.len()))
}
