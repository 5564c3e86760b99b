//! The native sidecar that keeps a pod's tokens or serves credentials, as the webhook writes it into the pod.

mod written;

use std::borrow::Cow;

use tokenscope_core::credentials_endpoint::ENDPOINT_VARIABLE;
use tokenscope_core::pod::{Csi, SIDECAR, SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME, Text, is_sidecar_volume};
use tokenscope_core::sidecar::{PROGRAM, READY, SidecarSettings, WorkloadApi, variables};
use tokenscope_core::{Grant, TokenExpiration, TokenSource};

use self::written::WrittenTokens;
use super::context::Context;
use super::endpoint::{DesiredEndpoint, TooLong};
use super::pieces::{Content, DesiredToken, DesiredVolume, unexpanded};
use crate::json::push_string;
use crate::patch::{Json, push_number};

/// The sidecar of one pod.
#[derive(Clone, Debug)]
pub(super) struct SidecarContainer<'a> {
    /// The installation's settings of it.
    settings: &'a SidecarSettings,
    image: &'a str,
    /// Its `resources`, a JSON object.
    resources: &'a str,
    environment: Environment<'a>,
    /// True if it serves credentials. The kubelet then puts the pod's name into the environment.
    serves: bool,
    mounts: Vec<SidecarMount<'a>>,
    /// The source of its tokens.
    origin: Origin<'a>,
    source: TokenSource,
    /// The reason why it can't be told what it serves.
    too_long: Option<TooLong>,
}

/// A volume, and where the sidecar has it.
#[derive(Clone, Debug)]
struct SidecarMount<'a> {
    volume: Cow<'a, str>,
    folder: Cow<'a, str>,
    read_only: bool,
}

/// The source of the sidecar's tokens, and the read-only volume that it needs for it.
#[derive(Clone, Copy, Debug)]
enum Origin<'a> {
    /// A SPIFFE provider, by the Workload API, whose socket is in the volume of this name.
    WorkloadApi(&'a str),
    /// tokenscope's own issuer of this URL, for the pod's token in the volume [`SUBJECT_TOKEN_VOLUME`].
    Issuer(&'a str),
    /// The kubelet, which writes them itself.
    Kubelet,
}

/// The time that the token is valid that is shown to the issuer, as the kubelet's default is; the kubelet renews it before.
const SUBJECT_TOKEN_EXPIRATION: TokenExpiration = TokenExpiration::HOUR;

impl<'a> SidecarContainer<'a> {
    /// `None` where nothing is to be kept and nobody served, or no issuer is there: nothing is granted by it then.
    pub(super) fn of(
        tokens: &[DesiredToken<'a>],
        endpoint: &DesiredEndpoint<'a>,
        grant: &'a Grant,
        context: &Context<'a>,
        pod_name_fits: bool,
    ) -> Option<Self> {
        let settings = &context.settings.sidecar;
        let (origin, image) = match grant.source {
            TokenSource::ServiceAccount if endpoint.is_empty() => return None,
            TokenSource::ServiceAccount => (Origin::Kubelet, &settings.endpoint_image),
            TokenSource::Spiffe => {
                let volume = own_workload_api(context).unwrap_or(SOCKET_VOLUME);
                (Origin::WorkloadApi(volume), &settings.image)
            }
            TokenSource::Issuer => (
                Origin::Issuer(context.settings.issuer.as_deref()?),
                &settings.issuer_image,
            ),
        };
        // What the kubelet writes the sidecar doesn't.
        let tokens = if grant.source == TokenSource::ServiceAccount {
            &[]
        } else {
            tokens
        };
        let written = WrittenTokens { tokens, endpoint };
        let mut environment = written.environment(origin, grant, context);
        environment.push((variables::LOG_LEVEL, unexpanded(&settings.log_level)));
        // Whoever may run commands in the container can choose the program's arguments.
        environment.push((variables::INJECTED, Cow::Borrowed("true")));
        let mut too_long = None;
        if !endpoint.is_empty() {
            match endpoint.text(settings, pod_name_fits, context.containers.len()) {
                Ok(text) => environment.push((ENDPOINT_VARIABLE, Cow::Owned(text))),
                Err(error) => too_long = Some(error),
            }
        }
        Some(Self {
            settings,
            image: if endpoint.is_empty() {
                image
            } else {
                &settings.endpoint_image
            },
            resources: settings.resources_in(context.request.namespace),
            environment,
            serves: !endpoint.is_empty(),
            mounts: written.mounts(origin, context),
            origin,
            source: grant.source,
            too_long,
        })
    }

    /// The text of the settings of what it serves, if it serves anything.
    pub(super) fn endpoint_text(&self) -> Option<&str> {
        let mut variables = self.environment.iter();
        variables.find_map(|(name, value)| (*name == ENDPOINT_VARIABLE).then_some(&**value))
    }

    /// The volumes that the pod gets for the sidecar alone, without what it brings itself and serves.
    pub(super) fn own_volumes(
        &self,
        endpoint: &DesiredEndpoint<'a>,
        context: &Context<'a>,
    ) -> impl Iterator<Item = DesiredVolume<'a>> + use<'a> {
        let of_origin = match self.origin {
            Origin::WorkloadApi(SOCKET_VOLUME) => {
                Some((SOCKET_VOLUME, Content::Socket(&context.settings.sidecar.workload_api)))
            }
            Origin::WorkloadApi(_) | Origin::Kubelet => None,
            Origin::Issuer(url) => Some((
                SUBJECT_TOKEN_VOLUME,
                Content::Token {
                    audience: url,
                    expiration: SUBJECT_TOKEN_EXPIRATION,
                },
            )),
        };
        let of_origin = of_origin.map(|(name, content)| DesiredVolume {
            name: Cow::Borrowed(name),
            content,
        });
        of_origin.into_iter().chain(endpoint.source_volume(self.source))
    }

    /// The reasons why it can't run in this pod, a sentence each.
    pub(super) fn obstacles(&self, context: &Context<'_>) -> Vec<String> {
        let mut obstacles = Vec::new();
        if context.windows {
            let what = match self.origin {
                Origin::WorkloadApi(_) => "tokens from SPIFFE are kept",
                Origin::Issuer(_) => "tokens from tokenscope's issuer are kept",
                Origin::Kubelet => "credentials are served",
            };
            let with = if self.serves {
                "delivery.type File and token.source"
            } else {
                "token.source"
            };
            obstacles.push(format!(
                "{what} by a sidecar that runs on Linux only, and the pod needs Windows: give it a role by a policy with {with} ServiceAccount"
            ));
        }
        obstacles.extend(self.too_long.map(|too_long| too_long.to_string()));
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

/// Names and values of variables.
type Environment<'a> = Vec<(&'static str, Cow<'a, str>)>;

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
        if self.serves {
            // Before the variable that has it in its value.
            text.push_str("{\"name\":\"");
            text.push_str(variables::POD_NAME);
            text.push_str("\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}}");
        }
        for (index, (name, value)) in self.environment.iter().enumerate() {
            let is_first = index == 0 && !self.serves;
            text.push_str(if is_first { "{\"name\":\"" } else { ",{\"name\":\"" });
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
        for (index, mount) in self.mounts.iter().enumerate() {
            text.push_str(if index > 0 { ",{\"name\":" } else { "{\"name\":" });
            push_string(text, &mount.volume);
            text.push_str(",\"mountPath\":");
            push_string(text, &mount.folder);
            text.push_str(if mount.read_only { ",\"readOnly\":true}" } else { "}" });
        }
        text.push_str("],\"resources\":");
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
