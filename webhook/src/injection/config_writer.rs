//! The init container that writes the containers' AWS config files, as the webhook puts it into the pod.
//!
//! The text stands in its arguments, and so in the pod's specification: nobody can change that once the pod is there.

use std::borrow::Cow;

use crate::json::push_string;
use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER, MOST_CONFIG_BYTES, MOST_CONFIG_FILES};
use tokenscope_core::pod::{CONFIG_VOLUME, CONFIG_WRITER};
use tokenscope_core::sidecar::{SidecarSettings, WRITE, variables};
use tokenscope_core::{Grant, SessionName, TokenSource, hash_of_texts};

use super::context::Context;
use crate::patch::Json;

/// A config file that containers get, which has a volume of its own.
#[derive(Clone, Debug)]
pub(super) struct DesiredConfigFile {
    /// The volume's name.
    pub(super) volume: Cow<'static, str>,
    pub(super) text: String,
}

impl DesiredConfigFile {
    /// The volume is named for the text, unless it is the pod's first.
    pub(super) fn new(text: String, is_first: bool) -> Self {
        let volume = if is_first {
            Cow::Borrowed(CONFIG_VOLUME)
        } else {
            Cow::Owned(format!("{CONFIG_VOLUME}-{}", hash_of_texts([text.as_str()])))
        };
        Self { volume, text }
    }

    /// The folder where the writer has the volume.
    fn folder(&self) -> Cow<'static, str> {
        match self.volume.strip_prefix(CONFIG_VOLUME) {
            None | Some("") => Cow::Borrowed(CONFIG_FOLDER),
            Some(suffix) => Cow::Owned([CONFIG_FOLDER, suffix].concat()),
        }
    }
}

/// The text of a container's file. The kubelet puts the pod's name into the arguments.
pub(super) fn text(grant: &Grant, token_file: &str, pod_name_fits: bool) -> Option<String> {
    let pod_name = pod_name_fits.then(|| format!("$({})", variables::POD_NAME));
    Some(grant.config_file.as_ref()?.text(token_file, pod_name.as_deref()))
}

/// True if a session of the grant has the pod's name.
pub(super) fn names_pod(grant: &Grant) -> bool {
    let profiles = grant.config_file.iter().flat_map(|file| &file.profiles);
    let mut hops = profiles.flat_map(|profile| std::iter::once(&profile.first).chain(&profile.chain));
    hops.any(|hop| hop.session_name == Some(SessionName::PodName))
}

/// The writer of one pod.
#[derive(Clone, Debug)]
pub(super) struct ConfigWriter<'a> {
    settings: &'a SidecarSettings,
    image: &'a str,
    /// The volumes and where each is mounted.
    volumes: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    arguments: Vec<String>,
    names_pod: bool,
}

impl<'a> ConfigWriter<'a> {
    /// `None` where there is no file to write.
    pub(super) fn of(
        files: &[DesiredConfigFile],
        source: TokenSource,
        names_pod: bool,
        context: &Context<'a>,
    ) -> Option<Self> {
        if files.is_empty() {
            return None;
        }
        let settings = &context.settings.sidecar;
        let file_name = CONFIG_FILE.strip_prefix(CONFIG_FOLDER).unwrap_or_default();
        let mut arguments = vec![WRITE.to_owned()];
        for file in files {
            arguments.extend([[&*file.folder(), file_name].concat(), file.text.clone()]);
        }
        Some(Self {
            settings,
            // A pod with tokens of the issuer has that image for its sidecar anyway.
            image: match source {
                TokenSource::Issuer => &settings.issuer_image,
                TokenSource::ServiceAccount | TokenSource::Spiffe => &settings.image,
            },
            volumes: files.iter().map(|file| (file.volume.clone(), file.folder())).collect(),
            arguments,
            names_pod,
        })
    }

    /// The hash of its arguments, for the record.
    pub(super) fn hash(&self) -> String {
        hash_of_texts(self.arguments.iter().map(String::as_str))
    }

    /// The reasons why it can't run in this pod, a sentence each.
    pub(super) fn obstacles(&self, context: &Context<'_>) -> Vec<String> {
        let mut obstacles = Vec::new();
        if context.windows {
            obstacles.push(
                "an AWS config file is written by a program that runs on Linux only, and the pod needs Windows: give it a role by a policy with delivery.type File".to_owned(),
            );
        }
        let files = self.volumes.len();
        if files > MOST_CONFIG_FILES {
            obstacles.push(format!(
                "the pod's containers would have {files} different AWS config files, and at most {MOST_CONFIG_FILES} are written: give its containers fewer different roles"
            ));
        }
        let bytes: usize = self.arguments.iter().map(String::len).sum();
        if bytes > MOST_CONFIG_BYTES {
            obstacles.push(format!(
                "the AWS config files of the pod's containers would have {bytes} bytes, and at most {MOST_CONFIG_BYTES} are written: give its containers fewer different roles, or the policy fewer profiles"
            ));
        }
        obstacles
    }
}

impl Json for ConfigWriter<'_> {
    fn write(&self, text: &mut String) {
        text.push_str("{\"name\":\"");
        text.push_str(CONFIG_WRITER);
        text.push_str("\",\"image\":");
        push_string(text, self.image);
        text.push_str(",\"imagePullPolicy\":");
        push_string(text, &self.settings.pull_policy);
        text.push_str(",\"args\":[");
        for (index, argument) in self.arguments.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            push_string(text, argument);
        }
        text.push(']');
        if self.names_pod {
            text.push_str(",\"env\":[{\"name\":\"");
            text.push_str(variables::POD_NAME);
            text.push_str("\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}}]");
        }
        text.push_str(",\"volumeMounts\":[");
        for (index, (volume, folder)) in self.volumes.iter().enumerate() {
            text.push_str(if index > 0 { ",{\"name\":\"" } else { "{\"name\":\"" });
            text.push_str(volume);
            text.push_str("\",\"mountPath\":\"");
            text.push_str(folder);
            text.push_str("\"}");
        }
        text.push_str("],\"resources\":");
        text.push_str(&self.settings.resources);
        text.push_str(",\"securityContext\":");
        text.push_str(&self.settings.security_context);
        text.push('}');
    }
}
