//! The native sidecar that keeps a pod's tokens, as the webhook writes it into the pod.

use std::borrow::Cow;

use crate::json::push_string;
use tokenscope_core::pod::{Csi, SIDECAR, SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME, Text, is_sidecar_volume};
use tokenscope_core::sidecar::{
    PROGRAM, READY, SOCKET_FOLDER, SUBJECT_TOKEN_FOLDER, SidecarSettings, TOKEN_FILE, WorkloadApi, variables,
};
use tokenscope_core::{Grant, Hint, SpiffeId, TokenExpiration, TokenSource, TrustDomain};

use super::context::Context;
use super::pieces::{Content, DesiredToken, DesiredVolume, unexpanded};
use crate::patch::{Json, push_number};

/// The sidecar of one pod.
#[derive(Clone, Debug)]
pub(super) struct SidecarContainer<'a> {
    /// What the installation says about it.
    settings: &'a SidecarSettings,
    image: &'a str,
    /// Its `resources`, a JSON object.
    resources: &'a str,
    /// Its environment: names and values.
    environment: Vec<(&'static str, Cow<'a, str>)>,
    /// The volumes that the tokens are written to, and where each is mounted.
    token_volumes: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// What it gets the tokens with.
    origin: Origin<'a>,
}

/// Whom the sidecar gets tokens from, and the read-only volume that it needs for that.
#[derive(Clone, Copy, Debug)]
enum Origin<'a> {
    /// A SPIFFE provider, by the Workload API, whose socket is in the volume of this name.
    WorkloadApi(&'a str),
    /// tokenscope's own issuer of this URL, for the pod's token in the volume [`SUBJECT_TOKEN_VOLUME`].
    Issuer(&'a str),
}

/// How long the token is valid that is shown to the issuer, as the kubelet's default is; the kubelet renews it before.
const SUBJECT_TOKEN_EXPIRATION: TokenExpiration = TokenExpiration::HOUR;

impl<'a> SidecarContainer<'a> {
    /// `None` where the cluster itself signs the tokens, or no issuer is there: nothing is granted by it then.
    pub(super) fn of(tokens: &[DesiredToken<'a>], grant: &'a Grant, context: &Context<'a>) -> Option<Self> {
        let settings = &context.settings.sidecar;
        let (origin, image) = match grant.source {
            TokenSource::ServiceAccount => return None,
            TokenSource::Spiffe => {
                let volume = own_workload_api(context).unwrap_or(SOCKET_VOLUME);
                (Origin::WorkloadApi(volume), &settings.image)
            }
            TokenSource::Issuer => (
                Origin::Issuer(context.settings.issuer.as_deref()?),
                &settings.issuer_image,
            ),
        };
        let folder = |token: &DesiredToken<'_>| (token.volume.clone(), context.place.sidecar_folder(&token.volume));
        let token_volumes: Vec<_> = tokens.iter().map(folder).collect();
        let files = files(tokens, &token_volumes, context);
        let mut environment = vec![(variables::DIRECTORY, Cow::Borrowed(context.place.folder))];
        match origin {
            Origin::WorkloadApi(_) => add_workload_api(&mut environment, files, grant, settings),
            Origin::Issuer(url) => add_issuer(&mut environment, files, url, tokens, settings),
        }
        environment.push((variables::LOG_LEVEL, unexpanded(&settings.log_level)));
        // Whoever may run commands in the container can choose the program's arguments.
        environment.push((variables::INJECTED, Cow::Borrowed("true")));
        Some(Self {
            settings,
            image,
            resources: settings.resources_in(context.request.namespace),
            environment,
            token_volumes,
            origin,
        })
    }

    /// The volume that the pod gets for the sidecar alone, unless it brings one that serves.
    pub(super) fn own_volume(&self, context: &Context<'a>) -> Option<DesiredVolume<'a>> {
        let content = match self.origin {
            Origin::WorkloadApi(SOCKET_VOLUME) => Content::Socket(&context.settings.sidecar.workload_api),
            Origin::WorkloadApi(_) => return None,
            Origin::Issuer(url) => Content::Token {
                audience: url,
                expiration: SUBJECT_TOKEN_EXPIRATION,
            },
        };
        Some(DesiredVolume {
            name: Cow::Borrowed(match self.origin {
                Origin::WorkloadApi(_) => SOCKET_VOLUME,
                Origin::Issuer(_) => SUBJECT_TOKEN_VOLUME,
            }),
            content,
        })
    }

    /// The reasons why it can't run in this pod, a sentence each.
    pub(super) fn obstacles(&self, context: &Context<'_>) -> Vec<String> {
        let mut obstacles = Vec::new();
        if context.windows {
            let source = match self.origin {
                Origin::WorkloadApi(_) => "SPIFFE",
                Origin::Issuer(_) => "tokenscope's issuer",
            };
            obstacles.push(format!(
                "tokens from {source} are kept by a sidecar that runs on Linux only, and the pod needs Windows: give it a role by a policy with token.source ServiceAccount"
            ));
        }
        obstacles.extend(self.settings.unsupported.as_deref().map(ToOwned::to_owned));
        if let Origin::Issuer(_) = self.origin {
            obstacles.extend(self.obstacles_of_the_issuer(context));
        }
        obstacles
    }

    fn obstacles_of_the_issuer(&self, context: &Context<'_>) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.settings.issuer_authorities.is_none() {
            obstacles.push(
                "the authorities of the issuer's certificate are not known yet, so no pod can get tokens from it: try again in a minute, and look at the webhook's log if that lasts".to_owned(),
            );
        }
        // The API server's own policies refuse each token for the issuer there, since no mark is evidence of a review there.
        let namespace = context.request.namespace;
        if context.settings.never_denies(namespace) {
            obstacles.push(format!(
                "pods of namespace {namespace} get no tokens from tokenscope's issuer, since the chart's value guard.excludeNamespaces names it: use another namespace, or a policy with another token.source"
            ));
        }
        obstacles
    }
}

/// The tokens' files: `FILE=AUDIENCE`, separated by white space.
fn files(
    tokens: &[DesiredToken<'_>],
    token_volumes: &[(Cow<'static, str>, Cow<'static, str>)],
    context: &Context<'_>,
) -> Cow<'static, str> {
    // The first one is in the sidecar's own directory.
    let file = |(token, (_, folder)): (&DesiredToken<'_>, &(Cow<'_, str>, Cow<'_, str>))| {
        if *folder == context.place.folder {
            return format!("{TOKEN_FILE}={}", token.audience);
        }
        format!("{folder}/{TOKEN_FILE}={}", token.audience)
    };
    let files: Vec<String> = tokens.iter().zip(token_volumes).map(file).collect();
    Cow::Owned(unexpanded(&files.join(" ")).into_owned())
}

fn add_workload_api<'a>(
    environment: &mut Vec<(&'static str, Cow<'a, str>)>,
    files: Cow<'a, str>,
    grant: &'a Grant,
    settings: &SidecarSettings,
) {
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
    environment.push((variables::JWT_SVIDS, files));
    environment.push((variables::SOCKET, Cow::Owned(socket)));
    environment.extend(identity);
}

fn add_issuer<'a>(
    environment: &mut Vec<(&'static str, Cow<'a, str>)>,
    files: Cow<'a, str>,
    url: &'a str,
    tokens: &[DesiredToken<'_>],
    settings: &'a SidecarSettings,
) {
    let endpoint = settings.issuer_endpoint.as_deref().unwrap_or(url);
    let authorities = settings.issuer_authorities.as_deref().unwrap_or_default();
    // The sidecar asks for one lifetime, so that of the strictest policy is everybody's.
    let shortest = tokens.iter().map(|token| token.expiration.seconds()).min();
    environment.extend([
        (variables::ISSUED_TOKENS, files),
        (variables::ISSUER, unexpanded(endpoint)),
        (variables::ISSUER_CA, unexpanded(authorities)),
        (
            variables::SUBJECT_TOKEN,
            Cow::Owned([SUBJECT_TOKEN_FOLDER, "/", TOKEN_FILE].concat()),
        ),
    ]);
    environment.extend(shortest.map(|seconds| (variables::TOKEN_LIFETIME, Cow::Owned(seconds.to_string()))));
}

/// A volume of the pod's own that has the Workload API's socket already.
fn own_workload_api<'a>(context: &Context<'a>) -> Option<&'a str> {
    let WorkloadApi::Csi { driver } = &context.settings.sidecar.workload_api else {
        return None;
    };
    let mut volumes = context.pod.spec.volumes.iter().flatten();
    let found = volumes.find(|volume| {
        // The driver refuses to mount it writable.
        let is_fit = |csi: &Csi<Text<'_>>| *csi.driver == **driver && csi.read_only == Some(true);
        // What bears one of our names may be replaced or removed in this review.
        let is_users = !is_sidecar_volume(&volume.name) && !context.place.is_token_volume(&volume.name);
        is_users && volume.csi.as_ref().is_some_and(is_fit)
    });
    found.map(|volume| &*volume.name)
}

impl Json for SidecarContainer<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(SIDECAR);
        text.push_str("\",\"image\":");
        push_string(text, self.image);
        text.push_str(",\"imagePullPolicy\":");
        push_string(text, &self.settings.pull_policy);
        text.push_str(",\"restartPolicy\":\"Always\",\"env\":[");
        for (index, (name, value)) in self.environment.iter().enumerate() {
            text.push_str(if index > 0 { ",{\"name\":\"" } else { "{\"name\":\"" });
            text.push_str(name);
            text.push_str("\",\"value\":");
            push_string(text, value);
            text.push('}');
        }
        text.push(']');
        // No other container starts before there is a token. An identity may come minutes after its pod, and what is
        // killed meanwhile only waits longer.
        write_probe(text, "startupProbe", 1, 900);
        // The kubelet makes an Event of each failure, with the line that says which token has expired and why.
        if let Some(readiness) = self.settings.readiness {
            write_probe(text, "readinessProbe", readiness.period_seconds, readiness.failures);
        }
        text.push_str(",\"volumeMounts\":[");
        for (volume, folder) in &self.token_volumes {
            text.push_str("{\"name\":\"");
            text.push_str(volume);
            text.push_str("\",\"mountPath\":\"");
            text.push_str(folder);
            text.push_str("\"},");
        }
        text.push_str("{\"name\":");
        let (volume, folder) = match self.origin {
            Origin::WorkloadApi(volume) => (volume, SOCKET_FOLDER),
            Origin::Issuer(_) => (SUBJECT_TOKEN_VOLUME, SUBJECT_TOKEN_FOLDER),
        };
        push_string(text, volume);
        text.push_str(",\"mountPath\":\"");
        text.push_str(folder);
        text.push_str("\",\"readOnly\":true}],\"resources\":");
        text.push_str(self.resources);
        text.push_str(",\"securityContext\":");
        text.push_str(&self.settings.security_context);
        text.push('}');
    }
}

/// A probe that asks the program whether every file is there and valid now: it never fails while a token is valid, whoever is away.
fn write_probe(text: &mut String, name: &str, period_seconds: u32, failures: u32) {
    text.push_str(",\"");
    text.push_str(name);
    text.push_str("\":{\"exec\":{\"command\":[");
    push_string(text, PROGRAM);
    text.push(',');
    push_string(text, READY);
    text.push_str("]},\"periodSeconds\":");
    push_number(text, period_seconds as usize);
    text.push_str(",\"timeoutSeconds\":5,\"failureThreshold\":");
    push_number(text, failures as usize);
    text.push('}');
}
