//! The native sidecar that keeps a pod's tokens, as the webhook writes it into the pod.

use std::borrow::Cow;

use crate::json::push_string;
use tokenscope_core::pod::{Csi, SIDECAR, SOCKET_VOLUME, Text};
use tokenscope_core::sidecar::{PROGRAM, READY, SOCKET_FOLDER, SidecarSettings, TOKEN_FILE, WorkloadApi, variables};
use tokenscope_core::{Grant, Hint, SpiffeId, TrustDomain};

use super::context::Context;
use super::pieces::{DesiredToken, unexpanded};
use crate::patch::Json;

/// The sidecar of one pod.
#[derive(Clone, Debug)]
pub(super) struct SidecarContainer<'a> {
    /// What the installation says about it.
    settings: &'a SidecarSettings,
    /// Its environment: names and values.
    environment: Vec<(&'static str, Cow<'a, str>)>,
    /// The volumes that the tokens are written to, and where each is mounted.
    token_volumes: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The volume that has the Workload API's socket, mounted at [`SOCKET_FOLDER`].
    pub(super) socket_volume: Cow<'a, str>,
}

impl<'a> SidecarContainer<'a> {
    pub(super) fn of(tokens: &[DesiredToken<'a>], grant: &'a Grant, context: &Context<'a>) -> Self {
        let settings = &context.settings.sidecar;
        let folder = |token: &DesiredToken<'_>| (token.volume.clone(), context.place.sidecar_folder(&token.volume));
        let token_volumes: Vec<_> = tokens.iter().map(folder).collect();
        Self {
            settings,
            environment: environment(tokens, &token_volumes, grant, context),
            token_volumes,
            socket_volume: own_workload_api(context).map_or(Cow::Borrowed(SOCKET_VOLUME), Cow::Borrowed),
        }
    }
}

fn environment<'a>(
    tokens: &[DesiredToken<'a>],
    token_volumes: &[(Cow<'static, str>, Cow<'static, str>)],
    grant: &'a Grant,
    context: &Context<'a>,
) -> Vec<(&'static str, Cow<'a, str>)> {
    let settings = &context.settings.sidecar;
    // The first one is in the sidecar's own directory.
    let file = |(token, (_, folder)): (&DesiredToken<'_>, &(Cow<'_, str>, Cow<'_, str>))| {
        if *folder == context.place.folder {
            return format!("{TOKEN_FILE}={}", token.audience);
        }
        format!("{folder}/{TOKEN_FILE}={}", token.audience)
    };
    let files: Vec<String> = tokens.iter().zip(token_volumes).map(file).collect();
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
    let mut environment = vec![
        (variables::DIRECTORY, Cow::Borrowed(context.place.folder)),
        (variables::JWT_SVIDS, unexpanded(&files.join(" ")).into_owned().into()),
        (variables::SOCKET, Cow::Owned(socket)),
    ];
    environment.extend(identity);
    environment.push((variables::LOG_LEVEL, unexpanded(&settings.log_level)));
    // Whoever may run commands in the container can choose the program's arguments.
    environment.push((variables::INJECTED, Cow::Borrowed("true")));
    environment
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
        *volume.name != *SOCKET_VOLUME && volume.csi.as_ref().is_some_and(is_fit)
    });
    found.map(|volume| &*volume.name)
}

impl Json for SidecarContainer<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(SIDECAR);
        text.push_str("\",\"image\":");
        push_string(text, &self.settings.image);
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
        // No other container starts before there is a token. An identity may come minutes after its pod, and what is
        // killed meanwhile only waits longer.
        text.push_str("],\"startupProbe\":{\"exec\":{\"command\":[");
        push_string(text, PROGRAM);
        text.push(',');
        push_string(text, READY);
        text.push_str("]},\"periodSeconds\":1,\"timeoutSeconds\":5,\"failureThreshold\":900},\"volumeMounts\":[");
        for (volume, folder) in &self.token_volumes {
            text.push_str("{\"name\":\"");
            text.push_str(volume);
            text.push_str("\",\"mountPath\":\"");
            text.push_str(folder);
            text.push_str("\"},");
        }
        text.push_str("{\"name\":");
        push_string(text, &self.socket_volume);
        text.push_str(",\"mountPath\":\"");
        text.push_str(SOCKET_FOLDER);
        text.push_str("\",\"readOnly\":true}],\"resources\":");
        text.push_str(&self.settings.resources);
        text.push_str(",\"securityContext\":");
        text.push_str(&self.settings.security_context);
        text.push('}');
    }
}
