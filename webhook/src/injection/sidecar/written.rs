//! The sidecar's variables about the tokens that it writes, and its volumes for them.

use std::borrow::Cow;

use tokenscope_core::credentials_endpoint::SOURCE_TOKEN_FOLDER;
use tokenscope_core::pod::{SOURCE_TOKEN_VOLUME, SUBJECT_TOKEN_VOLUME};
use tokenscope_core::sidecar::{SOCKET_FOLDER, SUBJECT_TOKEN_FOLDER, SidecarSettings, TOKEN_FILE, variables};
use tokenscope_core::{Grant, Hint, SpiffeId, TokenExpiration, TrustDomain};

use super::super::context::Context;
use super::super::endpoint::DesiredEndpoint;
use super::super::pieces::{DesiredToken, unexpanded};
use super::{Environment, Origin, SidecarMount};

/// The tokens that the sidecar writes: for containers that see them, and for itself.
#[derive(Clone, Copy)]
pub(super) struct WrittenTokens<'d, 'a> {
    pub(super) tokens: &'d [DesiredToken<'a>],
    pub(super) endpoint: &'d DesiredEndpoint<'a>,
}

impl<'a> WrittenTokens<'_, 'a> {
    /// The variables about the tokens, and about whom the sidecar gets them from.
    pub(super) fn environment(self, origin: Origin<'a>, grant: &'a Grant, context: &Context<'a>) -> Environment<'a> {
        let settings = &context.settings.sidecar;
        let mut environment = Vec::with_capacity(12);
        match origin {
            Origin::Kubelet => {}
            Origin::WorkloadApi(_) => {
                self.add_files(&mut environment, variables::JWT_SVIDS, context);
                add_workload_api(&mut environment, grant, settings);
            }
            Origin::Issuer(url) => {
                self.add_files(&mut environment, variables::ISSUED_TOKENS, context);
                add_issuer(&mut environment, url, self.shortest(), settings);
            }
        }
        environment
    }

    /// Adds the folder of the files, and the files: `FILE=AUDIENCE`, separated by white space.
    fn add_files(self, environment: &mut Environment<'a>, variable: &'static str, context: &Context<'_>) {
        // The first one is in the sidecar's own directory.
        let has_own = |token: &DesiredToken<'_>| token.volume == context.place.first_volume();
        let directory = match self.tokens.first() {
            Some(first) if has_own(first) => context.place.folder,
            _ => SOURCE_TOKEN_FOLDER,
        };
        let file = |folder: &str, file: &str, audience: &str| {
            if *folder == *directory {
                return format!("{file}={audience}");
            }
            format!("{folder}/{file}={audience}")
        };
        let seen = self.tokens.iter().map(|token| {
            let folder = context.place.sidecar_folder(&token.volume);
            file(&folder, TOKEN_FILE, token.audience.as_str())
        });
        let own = self.endpoint.sources().iter();
        let own = own.map(|token| file(SOURCE_TOKEN_FOLDER, &token.file, token.audience));
        let files: Vec<String> = seen.chain(own).collect();
        environment.push((variables::DIRECTORY, Cow::Borrowed(directory)));
        environment.push((variable, Cow::Owned(unexpanded(&files.join(" ")).into_owned())));
    }

    /// The sidecar asks for one lifetime, so that of the strictest policy is everybody's.
    fn shortest(self) -> Option<TokenExpiration> {
        let seen = self.tokens.iter().map(|token| token.expiration);
        seen.chain(self.endpoint.sources().iter().map(|token| token.expiration))
            .min()
    }

    /// The volumes as the sidecar has them.
    pub(super) fn mounts(self, origin: Origin<'a>, context: &Context<'_>) -> Vec<SidecarMount<'a>> {
        let mount = |volume: Cow<'a, str>, folder: Cow<'a, str>, read_only| SidecarMount {
            volume,
            folder,
            read_only,
        };
        let seen = self.tokens.iter().map(|token| {
            let folder = context.place.sidecar_folder(&token.volume);
            mount(token.volume.clone(), folder, false)
        });
        let folders = self.endpoint.folders();
        let folders = folders.chain(self.endpoint.outbound_folders());
        let written = folders.map(|(volume, folder)| mount(volume.into(), folder.into(), false));
        let source = (!self.endpoint.is_empty()).then(|| {
            let read_only = matches!(origin, Origin::Kubelet);
            mount(SOURCE_TOKEN_VOLUME.into(), SOURCE_TOKEN_FOLDER.into(), read_only)
        });
        let of_origin = match origin {
            Origin::WorkloadApi(volume) => Some((volume, SOCKET_FOLDER)),
            Origin::Issuer(_) => Some((SUBJECT_TOKEN_VOLUME, SUBJECT_TOKEN_FOLDER)),
            Origin::Kubelet => None,
        };
        let of_origin = of_origin.map(|(volume, folder)| mount(volume.into(), folder.into(), true));
        seen.chain(written).chain(source).chain(of_origin).collect()
    }
}

fn add_workload_api<'a>(environment: &mut Environment<'a>, grant: &'a Grant, settings: &SidecarSettings) {
    let socket = format!("unix://{SOCKET_FOLDER}/{}", settings.socket_file);
    let spiffe = &grant.spiffe;
    let identity = [
        (variables::SPIFFE_ID, spiffe.id.as_ref().map(SpiffeId::as_str)),
        (variables::HINT, spiffe.hint.as_ref().map(Hint::as_str)),
        (
            variables::TRUST_DOMAIN,
            spiffe.trust_domain.as_ref().map(TrustDomain::as_str),
        ),
        (variables::X509_SVID, spiffe.x509_svid.then_some("true")),
        (variables::JWT_BUNDLE, spiffe.jwt_bundle.then_some("true")),
    ];
    let identity = identity
        .into_iter()
        .filter_map(|(name, value)| Some((name, unexpanded(value?))));
    environment.push((variables::SOCKET, Cow::Owned(socket)));
    environment.extend(identity);
}

fn add_issuer<'a>(
    environment: &mut Environment<'a>,
    url: &'a str,
    shortest: Option<TokenExpiration>,
    settings: &'a SidecarSettings,
) {
    let endpoint = settings.issuer_endpoint.as_deref().unwrap_or(url);
    let authorities = settings.issuer_authorities.as_deref().unwrap_or_default();
    environment.extend([
        (variables::ISSUER, unexpanded(endpoint)),
        (variables::ISSUER_CA, unexpanded(authorities)),
        (
            variables::SUBJECT_TOKEN,
            Cow::Owned([SUBJECT_TOKEN_FOLDER, "/", TOKEN_FILE].concat()),
        ),
    ]);
    let lifetime = shortest.map(|shortest| Cow::Owned(shortest.seconds().to_string()));
    environment.extend(lifetime.map(|lifetime| (variables::TOKEN_LIFETIME, lifetime)));
}
