//! What the sidecar serves to a pod's containers, and what each of them gets for it: a URL, and a file with an authorization token that
//! no other container sees.

use std::borrow::Cow;

use tokenscope_core::config_file::FileHop;
use tokenscope_core::credentials_endpoint::{
    AUTHORIZATION_FILE, AUTHORIZATION_FILE_VARIABLE, AUTHORIZATION_FOLDER, AUTHORIZATION_FOLDERS, CredentialsEndpoint,
    FULL_URI_VARIABLE, MOST_ENDPOINT_BYTES, SOURCE_TOKEN_FOLDER, ServedContainer, ServedOutbound, ServedRole,
    ServedSessionPolicy, TokenByAudience, url_of,
};
use tokenscope_core::delivery::SessionDuration;
use tokenscope_core::outbound::{AwsSubject, OutboundToken};
use tokenscope_core::pod::{AUTHORIZATION_VOLUME, Container, SOURCE_TOKEN_VOLUME, Text};
use tokenscope_core::sidecar::{SidecarSettings, TOKEN_FILE, variables};
use tokenscope_core::{Audience, Grant, GrantedEndpoint, SessionName, TokenExpiration, TokenSource, hash_of_texts};

use super::context::Context;
use super::pieces::{Content, DesiredVariable, DesiredVolume, ProjectedToken};
use super::variables::ContainerVariables;

/// The credentials that are served to a pod's containers.
#[derive(Debug, Default)]
pub(super) struct DesiredEndpoint<'a> {
    containers: Vec<ServedSlot<'a>>,
    /// The tokens that roles are taken with, one for each audience.
    sources: Vec<ProjectedToken<'a>>,
}

/// A container that is served.
#[derive(Debug)]
struct ServedSlot<'a> {
    name: &'a str,
    grant: &'a Grant,
    endpoint: &'a GrantedEndpoint,
    /// The volume of its authorization token.
    volume: String,
    /// The index of the token that its first role is taken with.
    source: usize,
    /// The tokens for third parties that AWS signs for it.
    outbound: Vec<ServedToken<'a>>,
}

/// A token for a third party that AWS signs for a container's role.
#[derive(Debug)]
pub(super) struct ServedToken<'a> {
    pub(super) token: &'a OutboundToken,
    pub(super) volume: String,
    /// The folder at which the sidecar has the volume.
    pub(super) folder: String,
}

/// The JSON for the sidecar would be too long. `Display` is the sentence that users read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "what the sidecar is told of the containers that it serves would have too many bytes, and at most {MOST_ENDPOINT_BYTES} are written: give the role to fewer containers, or shorten aws.sessionPolicy, aws.roleChain or outboundTokens of the policy"
)]
pub(super) struct TooLong;

impl<'a> DesiredEndpoint<'a> {
    /// True if no container is served.
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Serves one more container, and says which one of the served it is.
    pub(super) fn serve(
        &mut self,
        name: &'a str,
        grant: &'a Grant,
        endpoint: &'a GrantedEndpoint,
        outbound: Vec<ServedToken<'a>>,
    ) -> usize {
        let source = self.source(&grant.audience, grant);
        self.containers.push(ServedSlot {
            name,
            grant,
            endpoint,
            // Like the name itself, it is the same however many containers another webhook puts before this one.
            volume: [AUTHORIZATION_VOLUME, "-", &hash_of_texts([name])].concat(),
            source,
            outbound,
        });
        self.containers.len() - 1
    }

    fn source(&mut self, audience: &'a Audience, grant: &Grant) -> usize {
        let mut known = self.sources.iter_mut().enumerate();
        if let Some((index, token)) = known.find(|(_, token)| token.audience == audience.as_str()) {
            token.expiration = token.expiration.min(grant.expiration);
            return index;
        }
        self.sources.push(ProjectedToken {
            audience: audience.as_str(),
            expiration: grant.expiration,
            file: if self.sources.is_empty() {
                Cow::Borrowed(TOKEN_FILE)
            } else {
                Cow::Owned([TOKEN_FILE, "-", &audience.short_hash()].concat())
            },
        });
        self.sources.len() - 1
    }

    /// The tokens that roles are taken with.
    pub(super) fn sources(&self) -> &[ProjectedToken<'a>] {
        &self.sources
    }

    /// The volume of a served container's authorization token.
    pub(super) fn authorization_volume(&self, served: usize) -> Option<&str> {
        self.containers.get(served).map(|container| container.volume.as_str())
    }

    /// The volumes of authorization tokens.
    pub(super) fn authorization_volumes(&self) -> impl Iterator<Item = DesiredVolume<'a>> {
        self.containers.iter().map(|container| DesiredVolume {
            name: Cow::Owned(container.volume.clone()),
            content: Content::Memory,
        })
    }

    /// The volume of the tokens that roles are taken with, which is the sidecar's alone. The kubelet writes the cluster's own, and the
    /// sidecar all others.
    pub(super) fn source_volume(&self, source: TokenSource) -> Option<DesiredVolume<'a>> {
        (!self.is_empty()).then(|| DesiredVolume {
            name: Cow::Borrowed(SOURCE_TOKEN_VOLUME),
            content: match source {
                TokenSource::ServiceAccount => Content::Tokens(self.sources.clone()),
                TokenSource::Spiffe | TokenSource::Issuer => Content::Memory,
            },
        })
    }

    /// The volumes of authorization tokens as the sidecar mounts them, each with its folder.
    pub(super) fn folders(&self) -> impl Iterator<Item = (String, String)> {
        let folder = |container: &ServedSlot<'_>| [AUTHORIZATION_FOLDERS, "/", container.name].concat();
        self.containers
            .iter()
            .map(move |container| (container.volume.clone(), folder(container)))
    }

    /// The volumes of tokens for third parties as the sidecar mounts them to write them, each with its folder.
    pub(super) fn outbound_folders(&self) -> impl Iterator<Item = (String, String)> {
        let tokens = self.containers.iter().flat_map(|container| &container.outbound);
        tokens.map(|served| (served.volume.clone(), served.folder.clone()))
    }

    /// The value of the sidecar's variable, as the kubelet is to read it. `containers` is how many the pod has, the sidecar apart.
    pub(super) fn text(
        &self,
        settings: &SidecarSettings,
        pod_name_fits: bool,
        containers: usize,
    ) -> Result<String, TooLong> {
        let mut endpoint = CredentialsEndpoint {
            port: settings.endpoint_port,
            containers: Vec::with_capacity(self.containers.len()),
            has_all_containers: false,
            sts_url: settings.sts_url.clone(),
            sts_authorities: settings.sts_authorities.clone(),
        };
        let mut bytes = 0;
        for container in &self.containers {
            let served = self.served(container, pod_name_fits);
            // Strings, numbers and lists of them always serialise.
            bytes += serde_json::to_string(&served).map_or(0, |text| text.len());
            if bytes > MOST_ENDPOINT_BYTES {
                return Err(TooLong);
            }
            endpoint.containers.push(served);
        }
        let gives_tokens = endpoint.containers.iter().any(|served| !served.tokens.is_empty());
        endpoint.has_all_containers = gives_tokens && endpoint.containers.len() == containers;
        let text = serde_json::to_string(&endpoint).unwrap_or_default();
        if text.len() > MOST_ENDPOINT_BYTES {
            return Err(TooLong);
        }
        Ok(for_the_kubelet(&text))
    }

    fn served(&self, container: &ServedSlot<'_>, pod_name_fits: bool) -> ServedContainer {
        let (grant, endpoint) = (container.grant, container.endpoint);
        let name = |name: Option<&SessionName>| match name? {
            SessionName::PodName => pod_name_fits.then(|| POD_NAME.into()),
            SessionName::Text(text) => Some(text.clone()),
        };
        let hop = |hop: &FileHop| ServedRole {
            role: hop.role.clone(),
            external_id: hop.external_id.clone(),
            session_name: name(hop.session_name.as_ref()),
        };
        let policy = &endpoint.policy;
        let file = self
            .sources
            .get(container.source)
            .map_or(TOKEN_FILE, |token| &*token.file);
        ServedContainer {
            name: container.name.into(),
            token_file: [SOURCE_TOKEN_FOLDER, "/", file].concat().into(),
            role: ServedRole {
                role: grant.role.clone(),
                external_id: None,
                session_name: name(grant.session_name.as_ref()),
            },
            chain: endpoint.chain.iter().map(hop).collect(),
            duration_seconds: endpoint.duration.map(SessionDuration::seconds),
            session_policy: (!policy.is_empty()).then(|| ServedSessionPolicy {
                inline: policy.inline.as_ref().map(|document| document.as_str().into()),
                arns: policy.arns.iter().map(|arn| arn.as_str().into()).collect(),
            }),
            regions: endpoint.regions.iter().map(|region| region.as_str().into()).collect(),
            outbound: container.outbound.iter().filter_map(ServedToken::settings).collect(),
            tokens: grant.given_tokens().into_iter().map(given).collect(),
        }
    }
}

impl ServedToken<'_> {
    /// The settings for the sidecar; `None` for a token that AWS doesn't sign.
    fn settings(&self) -> Option<ServedOutbound> {
        let (token, aws) = (self.token, self.token.aws()?);
        Some(ServedOutbound {
            name: token.name.clone(),
            file: [&*self.folder, "/", TOKEN_FILE].concat().into(),
            audience: token.audience.clone(),
            duration_seconds: token.expiration.seconds(),
            algorithm: aws.algorithm,
            origin_identity: aws.subject != AwsSubject::Role,
            scope: aws.subject.scope().cloned(),
        })
    }
}

fn given((audience, expiration): (&Audience, TokenExpiration)) -> TokenByAudience {
    TokenByAudience {
        audience: audience.clone(),
        most_seconds: expiration.seconds(),
    }
}

/// The pod's name, which the kubelet fills in.
const POD_NAME: &str = "$(TOKENSCOPE_POD_NAME)";
/// A session's name of that, as JSON. Inside of another text the quotation marks would have backslashes before them, so nothing that a
/// policy or a pod says reads like it.
const POD_NAME_IN_JSON: &str = r#""sessionName":"$$(TOKENSCOPE_POD_NAME)""#;
const _: () = assert!(variables::POD_NAME.len() + 3 == POD_NAME.len());

/// Each `$` twice, but for that of the pod's name.
fn for_the_kubelet(text: &str) -> String {
    if !text.contains('$') {
        return text.to_owned();
    }
    let text = text.replace('$', "$$");
    text.replace(POD_NAME_IN_JSON, &POD_NAME_IN_JSON.replace("$$", "$"))
}

/// True if a session of the grant has the pod's name.
pub(super) fn names_pod(grant: &Grant, endpoint: &GrantedEndpoint) -> bool {
    let hops = endpoint.chain.iter().map(|hop| &hop.session_name);
    hops.chain([&grant.session_name])
        .any(|name| *name == Some(SessionName::PodName))
}

/// The variables of a container that is served.
pub(super) fn variables<'a>(
    container: &Container<Text<'a>>,
    grant: &'a Grant,
    context: &Context<'a>,
) -> Vec<DesiredVariable<'a>> {
    let mut variables = ContainerVariables::of(container, context);
    variables.add_regional_endpoints(grant.sts_regional_endpoints);
    variables.add_region(grant.region.as_ref());
    variables.add_metadata_disabled(grant.disables_instance_metadata);
    variables.add(FULL_URI_VARIABLE, url(&container.name, context));
    variables.add(
        AUTHORIZATION_FILE_VARIABLE,
        [AUTHORIZATION_FOLDER, "/", AUTHORIZATION_FILE].concat(),
    );
    variables.into_desired()
}

fn url(container: &str, context: &Context<'_>) -> String {
    url_of(context.settings.sidecar.endpoint_port, container)
}

/// The reason why a served container's own variable keeps its SDK from the sidecar: it has the URL of another port, as a copy of a pod of
/// another installation does.
pub(super) fn other_port(container: &Container<Text<'_>>, context: &Context<'_>) -> Option<String> {
    let own = context.own(container, FULL_URI_VARIABLE)?;
    let wanted = url(&container.name, context);
    (own.value.as_deref() != Some(&*wanted)).then(|| {
        format!(
            "container {} sets {FULL_URI_VARIABLE} itself, to another port than that of the pod's sidecar, which serves credentials at {wanted}: remove the variable",
            &*container.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_fills_in_the_pods_name_and_nothing_else() {
        assert_eq!(POD_NAME, format!("$({})", variables::POD_NAME));
        let text = r#"{"role":"a$(X)/$$","sessionName":"$(TOKENSCOPE_POD_NAME)","inline":"{\"sessionName\":\"$(TOKENSCOPE_POD_NAME)\"}"}"#;
        assert_eq!(
            for_the_kubelet(text),
            r#"{"role":"a$$(X)/$$$$","sessionName":"$(TOKENSCOPE_POD_NAME)","inline":"{\"sessionName\":\"$$(TOKENSCOPE_POD_NAME)\"}"}"#
        );
        assert_eq!(for_the_kubelet("{}"), "{}");
    }
}
