//! The volumes, mounts and variables that the webhook writes into a pod.

use std::borrow::Cow;

use crate::json::push_string;
use tokenscope_core::pod::{EnvVar, IsSet, Text, VolumeMount, is_config_volume};
use tokenscope_core::sidecar::{TOKEN_FILE as FILE, WorkloadApi};
use tokenscope_core::{Audience, TokenExpiration};

use super::list::DesiredItem;
use crate::patch::{Json, push_number};

pub(super) const STS_REGIONAL_ENDPOINTS: &str = "AWS_STS_REGIONAL_ENDPOINTS";
pub(super) const DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
pub(super) const REGION: &str = "AWS_REGION";
pub(super) const ROLE_ARN: &str = "AWS_ROLE_ARN";
pub(super) const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
pub(super) const ROLE_SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
pub(super) const CONFIG_FILE_VARIABLE: &str = "AWS_CONFIG_FILE";
pub(super) const METADATA_DISABLED: &str = "AWS_EC2_METADATA_DISABLED";

/// The variables that a container may get, those of the EKS webhook in the order in which it adds them. A record that names any other
/// variable is not ours, and does not make that one ours.
pub(super) const VARIABLES: [&str; 8] = [
    STS_REGIONAL_ENDPOINTS,
    DEFAULT_REGION,
    REGION,
    ROLE_ARN,
    TOKEN_FILE,
    ROLE_SESSION_NAME,
    METADATA_DISABLED,
    CONFIG_FILE_VARIABLE,
];

/// A token, which has a volume of its own: a container sees the one that it was granted, and no other.
#[derive(Debug)]
pub(super) struct DesiredToken<'a> {
    pub(super) audience: &'a Audience,
    pub(super) expiration: TokenExpiration,
    /// The volume's name.
    pub(super) volume: Cow<'static, str>,
}

/// A volume of ours.
#[derive(Clone, Debug)]
pub(super) struct DesiredVolume<'a> {
    pub(super) name: Cow<'static, str>,
    pub(super) content: Content<'a>,
}

/// The content of a volume of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// A token that the kubelet keeps.
    Token {
        /// Whom it is for.
        audience: &'a str,
        /// How long it is valid.
        expiration: TokenExpiration,
    },
    /// Files of our own programs: a tmpfs, so that no token reaches a disk.
    Memory,
    /// The socket of the SPIFFE Workload API.
    Socket(&'a WorkloadApi),
}

impl Json for DesiredVolume<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(&self.name);
        match self.content {
            Content::Token { audience, expiration } => {
                text.push_str("\",\"projected\":{\"sources\":[{\"serviceAccountToken\":{\"audience\":");
                push_string(text, audience);
                text.push_str(",\"expirationSeconds\":");
                push_number(text, expiration.seconds() as usize);
                text.push_str(",\"path\":\"");
                text.push_str(FILE);
                text.push_str("\"}}]");
            }
            // A few tokens of a few kilobytes each, each twice while it is replaced.
            Content::Memory => text.push_str("\",\"emptyDir\":{\"medium\":\"Memory\",\"sizeLimit\":\"1Mi\""),
            Content::Socket(WorkloadApi::Csi { driver }) => {
                text.push_str("\",\"csi\":{\"driver\":");
                push_string(text, driver);
                text.push_str(",\"readOnly\":true");
            }
            // Not made where it is missing: on a new node the agent makes it, and until then the pod waits.
            Content::Socket(WorkloadApi::HostPath { path }) => {
                text.push_str("\",\"hostPath\":{\"path\":");
                push_string(text, path);
                text.push_str(",\"type\":\"Directory\"");
            }
        }
        text.push_str("}}");
    }
}

/// A read-only mount of the volume of a token or a config file.
#[derive(Clone, Copy, Debug)]
pub(super) struct DesiredMount<'a> {
    pub(super) volume: &'a str,
    pub(super) path: &'static str,
}

impl DesiredMount<'_> {
    /// True if `present` is exactly this.
    pub(super) fn is_written(&self, present: &VolumeMount<Text<'_>>) -> bool {
        *present.name == *self.volume
            && *present.mount_path == *self.path
            && present.read_only == Some(true)
            && ![
                present.sub_path,
                present.sub_path_expr,
                present.mount_propagation,
                present.recursive_read_only,
            ]
            .into_iter()
            .any(IsSet::is_set)
    }
}

impl Json for DesiredMount<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(self.volume);
        text.push_str("\",\"mountPath\":\"");
        text.push_str(self.path);
        text.push_str("\",\"readOnly\":true}");
    }
}

impl<'a> DesiredItem for DesiredMount<'a> {
    type Present = VolumeMount<Text<'a>>;

    /// A container has one mount of each kind, so any other of it is in its place.
    fn is_in_place_of(&self, present: &Self::Present) -> bool {
        is_config_volume(self.volume) == is_config_volume(&present.name)
    }

    fn is(&self, present: &Self::Present) -> bool {
        self.is_written(present)
    }
}

/// An environment variable of ours.
#[derive(Clone, Debug)]
pub(super) struct DesiredVariable<'a> {
    pub(super) name: &'static str,
    pub(super) value: VariableValue<'a>,
}

/// The value of a variable of ours.
#[derive(Clone, Debug)]
pub(super) enum VariableValue<'a> {
    /// This text, which the kubelet takes as it is.
    Text(Cow<'a, str>),
    /// The pod's name, by the downward API.
    PodName,
}

impl Json for DesiredVariable<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(self.name);
        match &self.value {
            VariableValue::Text(value) => {
                text.push_str("\",\"value\":");
                push_string(text, value);
                text.push('}');
            }
            VariableValue::PodName => {
                text.push_str("\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}}");
            }
        }
    }
}

impl<'a> DesiredItem for DesiredVariable<'a> {
    type Present = EnvVar<Text<'a>>;

    fn is_in_place_of(&self, present: &Self::Present) -> bool {
        present.name == self.name
    }

    fn is(&self, present: &Self::Present) -> bool {
        let field = present.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = present.value.as_deref().filter(|value| !value.is_empty());
        present.name == self.name
            && match &self.value {
                VariableValue::Text(text) => present.value_from.is_none() && value == Some(text),
                VariableValue::PodName => {
                    value.is_none() && field.is_some_and(|field| *field.field_path == *"metadata.name")
                }
            }
    }
}

/// The text as it must stand in a variable's value so that the kubelet does not expand it: `$(NAME)` is a reference to
/// another variable there, `$$` a dollar sign. A role's path may hold such characters.
pub(super) fn unexpanded(text: &str) -> Cow<'_, str> {
    if text.contains('$') {
        return Cow::Owned(text.replace('$', "$$"));
    }
    Cow::Borrowed(text)
}
