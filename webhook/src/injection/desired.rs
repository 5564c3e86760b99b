//! The parts that a pod should carry after a decision.

use std::borrow::Cow;

use tokenscope_core::pod::{Container, Text};
use tokenscope_core::{Audience, Grant, Granted, SessionName, TokenExpiration, TokenSource};

use super::context::Context;
use super::pieces::{
    Content, DEFAULT_REGION, DesiredMount, DesiredToken, DesiredVariable, DesiredVolume, METADATA_DISABLED, REGION,
    ROLE_ARN, ROLE_SESSION_NAME, STS_REGIONAL_ENDPOINTS, TOKEN_FILE, VARIABLES, VariableValue, unexpanded,
};
use super::sidecar::SidecarContainer;
use super::warnings;

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

    /// The mount of the container with this index, if it gets one.
    pub(super) fn mount(&self, container: usize, context: &Context<'_>) -> Option<DesiredMount<'_>> {
        let token = self.tokens.get(self.equipment(container)?.token?)?;
        Some(DesiredMount {
            volume: &token.volume,
            path: context.place.folder,
        })
    }

    /// The content that the volume of this name should have.
    pub(super) fn volume(&self, name: &str) -> Option<&DesiredVolume<'a>> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    fn equip(&mut self, index: usize, container: &Container<Text<'a>>, grant: &'a Grant, context: &Context<'a>) {
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
        let own_file = context.own(container, TOKEN_FILE);
        if own_file.is_none() {
            let path = context.place.token_file(context.windows);
            add(TOKEN_FILE, VariableValue::Text(Cow::Owned(path)));
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
        // A file of its own elsewhere comes from a volume of its own, so it needs nothing of ours.
        let mounts = own_file.is_none_or(|file| context.has_own_file_in_place(file));
        let token = mounts.then(|| self.token(&grant.audience, grant.expiration, context));
        self.containers.push(ContainerInjection {
            container: index,
            grant,
            variables,
            token,
        });
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
        self.sidecar = kept.and_then(|grant| SidecarContainer::of(&self.tokens, grant, context));
        self.volumes
            .extend(self.sidecar.as_ref().and_then(|sidecar| sidecar.own_volume(context)));
    }

    /// Says what whoever creates the pod should know.
    pub(super) fn warn(&self, context: &Context<'_>, warned: &mut Vec<String>) {
        for equipment in &self.containers {
            if let Some(slot) = context.containers.get(equipment.container) {
                warnings::of_container(slot.container, equipment.grant, warned);
                if let Some(wanted) = self.mount(equipment.container, context) {
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

/// True if STS takes the pod's name as a role session name: 2 to 64 characters, and all that a pod's name can have are
/// allowed there. A generated name never has more than 63.
fn pod_name_fits(context: &Context<'_>) -> bool {
    let name = context.pod.metadata.name.as_ref().filter(|name| !name.is_empty());
    name.is_none_or(|name| (2..=64).contains(&name.len()))
}
