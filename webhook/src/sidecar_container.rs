//! The native sidecar that keeps a pod's tokens, as the webhook writes it into the pod.

use std::borrow::Cow;

use tokenscope_core::Sidecar;
use tokenscope_core::json::push_string;
use tokenscope_core::pod::SIDECAR;

/// Where the Workload API's socket is in the sidecar.
pub const SOCKET_FOLDER: &str = "/spiffe-workload-api";

/// The sidecar of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarContainer<'a> {
    /// What the installation says about it.
    pub settings: &'a Sidecar,
    /// Its environment: names and values.
    pub variables: Vec<(&'static str, Cow<'a, str>)>,
    /// The volume that the tokens are written to.
    pub token_volume: &'static str,
    /// Where that volume is mounted.
    pub token_folder: &'static str,
    /// The volume that has the Workload API's socket, mounted at [`SOCKET_FOLDER`].
    pub socket_volume: Cow<'a, str>,
}

impl SidecarContainer<'_> {
    /// The container as JSON.
    pub fn json(&self) -> String {
        let mut text = String::with_capacity(2048);
        self.write(&mut text);
        text
    }

    /// Writes the container as JSON behind `text`.
    pub fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(SIDECAR);
        text.push_str("\",\"image\":");
        push_string(text, &self.settings.image);
        text.push_str(",\"imagePullPolicy\":");
        push_string(text, &self.settings.pull_policy);
        text.push_str(",\"restartPolicy\":\"Always\",\"env\":[");
        for (index, (name, value)) in self.variables.iter().enumerate() {
            text.push_str(if index > 0 { ",{\"name\":\"" } else { "{\"name\":\"" });
            text.push_str(name);
            text.push_str("\",\"value\":");
            push_string(text, value);
            text.push('}');
        }
        // No other container starts before there is a token. An identity may come minutes after its pod, and what is
        // killed meanwhile only waits longer.
        text.push_str(concat!(
            "],\"startupProbe\":{\"exec\":{\"command\":[\"/tokenscope-sidecar\",\"ready\"]},",
            "\"periodSeconds\":1,\"timeoutSeconds\":5,\"failureThreshold\":900}",
            ",\"volumeMounts\":[{\"name\":\""
        ));
        text.push_str(self.token_volume);
        text.push_str("\",\"mountPath\":\"");
        text.push_str(self.token_folder);
        text.push_str("\"},{\"name\":");
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
