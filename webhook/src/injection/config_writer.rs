//! The init container that writes the containers' AWS config files, as the webhook puts it into the pod.
//!
//! The text stands in its arguments, which can't be changed once the pod is there.

use std::borrow::Cow;

use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER, ConfigFile, MOST_CONFIG_BYTES, MOST_CONFIG_FILES};
use tokenscope_core::pod::{CONFIG_VOLUME, CONFIG_WRITER};
use tokenscope_core::sidecar::{SidecarSettings, WRITE, variables};
use tokenscope_core::{Grant, SessionName, TokenSource, hash_of_texts};

use super::context::Context;
use crate::json::push_string;
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

    /// The path to which the writer writes it.
    fn path(&self) -> String {
        let file_name = CONFIG_FILE.strip_prefix(CONFIG_FOLDER).unwrap_or_default();
        [&*self.folder(), file_name].concat()
    }

    /// The folder where the writer has the volume.
    fn folder(&self) -> Cow<'static, str> {
        match self.volume.strip_prefix(CONFIG_VOLUME) {
            None | Some("") => Cow::Borrowed(CONFIG_FOLDER),
            Some(suffix) => Cow::Owned([CONFIG_FOLDER, suffix].concat()),
        }
    }
}

/// The different config files of one pod, within their bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct DesiredConfigFiles {
    files: Vec<DesiredConfigFile>,
    /// The bytes of the writer's arguments for them.
    bytes: usize,
    /// The reason why there can't be as many as are wanted. From then on none is kept.
    excess: Option<Excess>,
}

/// A bound that the config files of a pod exceed. `Display` is the sentence that users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Excess {
    #[error(
        "the pod's containers would have too many different AWS config files, and at most {MOST_CONFIG_FILES} are written: give its containers fewer different roles"
    )]
    Files,
    #[error(
        "the AWS config files of the pod's containers would have too many bytes, and at most {MOST_CONFIG_BYTES} are written: give its containers fewer different roles, or the policy fewer profiles"
    )]
    Bytes,
}

impl DesiredConfigFiles {
    /// The index of the file that `text` makes. Beyond the bounds no text is made, and no file has the index.
    pub(super) fn index_of(&mut self, text: impl FnOnce() -> String) -> usize {
        let next = self.files.len();
        if self.excess.is_some() {
            return next;
        }
        let text = text();
        if let Some(known) = self.files.iter().position(|file| file.text == text) {
            return known;
        }
        if next >= MOST_CONFIG_FILES {
            self.excess = Some(Excess::Files);
            return next;
        }
        let file = DesiredConfigFile::new(text, next == 0);
        self.bytes += file.path().len() + file.text.len();
        if WRITE.len() + self.bytes > MOST_CONFIG_BYTES {
            self.excess = Some(Excess::Bytes);
            return next;
        }
        self.files.push(file);
        next
    }

    /// The files that are kept.
    pub(super) fn kept(&self) -> &[DesiredConfigFile] {
        &self.files
    }

    /// The bound that they exceed.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.excess
    }
}

/// The text of a container's file. The kubelet puts the pod's name into the arguments.
pub(super) fn text(file: &ConfigFile, token_file: &str, pod_name_fits: bool) -> String {
    let pod_name = pod_name_fits.then(|| format!("$({})", variables::POD_NAME));
    file.text(token_file, pod_name.as_deref())
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
    /// Its resources, a JSON object.
    resources: &'a str,
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
        let mut arguments = vec![WRITE.to_owned()];
        for file in files {
            arguments.extend([file.path(), file.text.clone()]);
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
            resources: settings.resources_in(context.request.namespace),
        })
    }

    /// The hash of its arguments, for the record.
    pub(super) fn hash(&self) -> String {
        hash_of_texts(self.arguments.iter().map(String::as_str))
    }

    /// The reason why it can't run in this pod.
    pub(super) fn obstacle(context: &Context<'_>) -> Option<String> {
        context.windows.then(|| {
            "an AWS config file is written by a program that runs on Linux only, and the pod needs Windows: give it a role by a policy with delivery.type File".to_owned()
        })
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
        text.push_str(self.resources);
        text.push_str(",\"securityContext\":");
        text.push_str(&self.settings.security_context);
        text.push('}');
    }
}
