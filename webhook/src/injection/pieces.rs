//! The volumes, mounts and variables that the webhook writes into a pod.

use std::borrow::Cow;

use tokenscope_core::credentials_endpoint::{AUTHORIZATION_FILE_VARIABLE, FULL_URI_VARIABLE};
use tokenscope_core::pod::{
    EnvVar, IsSet, Text, VolumeMount, is_authorization_volume, is_config_volume, is_outbound_volume,
};
use tokenscope_core::sidecar::{TOKEN_FILE as FILE, WorkloadApi};
use tokenscope_core::{Audience, TokenExpiration};

use super::list::DesiredItem;
use super::other_variables::OtherVariable;
use crate::json::push_string;
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
pub(super) const VARIABLES: [&str; 10] = [
    STS_REGIONAL_ENDPOINTS,
    DEFAULT_REGION,
    REGION,
    ROLE_ARN,
    TOKEN_FILE,
    FULL_URI_VARIABLE,
    AUTHORIZATION_FILE_VARIABLE,
    ROLE_SESSION_NAME,
    METADATA_DISABLED,
    CONFIG_FILE_VARIABLE,
];

/// A token, which has a volume of its own: a container sees the one that it was granted, and no other.
#[derive(Clone, Debug)]
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

/// A token in a volume of several.
#[derive(Clone, Debug)]
pub(super) struct ProjectedToken<'a> {
    pub(super) audience: &'a str,
    pub(super) expiration: TokenExpiration,
    /// Its file in the volume.
    pub(super) file: Cow<'static, str>,
}

/// The content of a volume of ours.
#[derive(Clone, Debug)]
pub(super) enum Content<'a> {
    /// A token that the kubelet keeps.
    Token {
        /// Its audience.
        audience: &'a str,
        /// Its lifetime.
        expiration: TokenExpiration,
    },
    /// Several tokens that the kubelet keeps.
    Tokens(Vec<ProjectedToken<'a>>),
    /// The token that the agent of EKS Pod Identity takes.
    AgentToken {
        /// Its audience.
        audience: &'a str,
        /// Its lifetime.
        expiration: TokenExpiration,
        /// Its file.
        path: &'a str,
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
        match &self.content {
            Content::Token { audience, expiration } => write_projected(text, [(*audience, *expiration, FILE)]),
            Content::Tokens(tokens) => {
                let tokens = tokens.iter();
                write_projected(
                    text,
                    tokens.map(|token| (token.audience, token.expiration, &*token.file)),
                );
            }
            Content::AgentToken {
                audience,
                expiration,
                path,
            } => write_projected(text, [(*audience, *expiration, *path)]),
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

/// The rest of a projected volume with these tokens: each one's audience, lifetime and file.
fn write_projected<'t>(text: &mut String, tokens: impl IntoIterator<Item = (&'t str, TokenExpiration, &'t str)>) {
    text.push_str("\",\"projected\":{\"sources\":[");
    for (index, (audience, expiration, file)) in tokens.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str("{\"serviceAccountToken\":{\"audience\":");
        push_string(text, audience);
        text.push_str(",\"expirationSeconds\":");
        push_number(text, expiration.seconds() as usize);
        text.push_str(",\"path\":");
        push_string(text, file);
        text.push_str("}}");
    }
    text.push(']');
}

/// A read-only mount of the volume of a token, a config file, an authorization token or a token for a third party.
#[derive(Clone, Copy, Debug)]
pub(super) struct DesiredMount<'a> {
    pub(super) volume: &'a str,
    pub(super) path: &'a str,
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
        text.push_str("\",\"mountPath\":");
        push_string(text, self.path);
        text.push_str(",\"readOnly\":true}");
    }
}

impl<'a> DesiredItem for DesiredMount<'a> {
    type Present = VolumeMount<Text<'a>>;

    /// A container has one mount of each kind, so any other of it is in its place; but of tokens for third parties it has several.
    fn is_in_place_of(&self, present: &Self::Present) -> bool {
        let kind = |volume: &str| {
            (
                is_config_volume(volume),
                is_authorization_volume(volume),
                is_outbound_volume(volume),
            )
        };
        kind(self.volume) == kind(&present.name)
            && (!is_outbound_volume(self.volume) || *present.mount_path == *self.path)
    }

    fn is(&self, present: &Self::Present) -> bool {
        self.is_written(present)
    }
}

/// An environment variable of ours.
#[derive(Clone, Debug)]
pub(super) struct DesiredVariable<'a> {
    pub(super) name: &'a str,
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

/// An environment variable that a container has.
#[derive(Clone, Copy, Debug)]
pub(super) struct PresentVariable<'p> {
    pub(super) name: &'p str,
    value: Option<&'p str>,
    has_source: bool,
    /// The field of the pod that its value comes from.
    field: Option<&'p str>,
}

impl<'p> From<&'p EnvVar<Text<'_>>> for PresentVariable<'p> {
    fn from(variable: &'p EnvVar<Text<'_>>) -> Self {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        Self {
            name: variable.name,
            value: variable.value.as_deref(),
            has_source: variable.value_from.is_some(),
            field: field.map(|field| &*field.field_path),
        }
    }
}

impl<'p> From<&'p OtherVariable<'_>> for PresentVariable<'p> {
    fn from(variable: &'p OtherVariable<'_>) -> Self {
        Self {
            name: &variable.name,
            value: variable.value.as_deref(),
            has_source: variable.value_from.is_there(),
            field: None,
        }
    }
}

impl<'a> DesiredItem for DesiredVariable<'a> {
    type Present = PresentVariable<'a>;

    fn is_in_place_of(&self, present: &Self::Present) -> bool {
        present.name == self.name
    }

    fn is(&self, present: &Self::Present) -> bool {
        let value = present.value.filter(|value| !value.is_empty());
        present.name == self.name
            && match &self.value {
                VariableValue::Text(text) => !present.has_source && value == Some(text),
                VariableValue::PodName => value.is_none() && present.field == Some("metadata.name"),
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
