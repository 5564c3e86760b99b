//! The place of tokens in a pod: the names of their volumes, and the folder in which a container finds its own.

use std::borrow::Cow;

use tokenscope_core::outbound::OUTBOUND_FOLDER;
use tokenscope_core::pod::{
    EKS_TOKEN_VOLUME, OUTBOUND_VOLUME, TOKEN_VOLUME, is_authorization_volume, is_config_volume, is_outbound_volume,
    is_token_volume, path_on_windows,
};
use tokenscope_core::{Audience, Settings};

/// The names of one mode: ours, or those of the EKS webhook.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenPlace {
    /// The volume of a pod's first audience.
    first: &'static str,
    /// The folder where a container's token volume is mounted.
    pub(super) folder: &'static str,
    /// The file there.
    file: &'static str,
}

impl TokenPlace {
    pub(super) fn of(settings: &Settings) -> Self {
        if settings.eks_compatible {
            return Self {
                first: EKS_TOKEN_VOLUME,
                folder: "/var/run/secrets/eks.amazonaws.com/serviceaccount",
                file: "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            };
        }
        Self {
            first: TOKEN_VOLUME,
            folder: "/var/run/secrets/tokenscope.io/aws",
            file: "/var/run/secrets/tokenscope.io/aws/token",
        }
    }

    /// The volume of the pod's first audience.
    pub(super) fn first_volume(self) -> Cow<'static, str> {
        Cow::Borrowed(self.first)
    }

    /// The volume of a further audience: each has one of its own, so that a container sees no other's token.
    pub(super) fn volume_of(self, audience: &Audience) -> Cow<'static, str> {
        Cow::Owned([self.first, "-", &audience.short_hash()].concat())
    }

    /// True if it is the name of one of these volumes.
    pub(super) fn is_token_volume(self, name: &str) -> bool {
        is_token_volume(name, self.first)
    }

    /// True if it is the name of one of these volumes, or of one with a config file, an authorization token or a token for a third party.
    pub(super) fn is_containers_volume(self, name: &str) -> bool {
        self.is_token_volume(name)
            || is_config_volume(name)
            || is_authorization_volume(name)
            || is_outbound_volume(name)
    }

    /// The folder where the sidecar has a volume, to write all of them: the first one where its containers have it, too.
    pub(super) fn sidecar_folder(self, volume: &str) -> Cow<'static, str> {
        if let Some(suffix) = volume.strip_prefix(OUTBOUND_VOLUME) {
            return Cow::Owned([OUTBOUND_FOLDER, suffix].concat());
        }
        match volume.strip_prefix(self.first) {
            None | Some("") => Cow::Borrowed(self.folder),
            Some(suffix) => Cow::Owned([self.folder, suffix].concat()),
        }
    }

    /// The path of a container's token, as a program in the container writes it.
    pub(super) fn token_file(self, windows: bool) -> Cow<'static, str> {
        if windows {
            return Cow::Owned(path_on_windows(self.file));
        }
        Cow::Borrowed(self.file)
    }
}

#[cfg(test)]
mod tests {
    use tokenscope_core::sidecar::TOKEN_FILE;

    use super::*;

    #[test]
    fn the_file_is_in_the_folder() {
        for settings in [Settings::default(), Settings::eks_compatible()] {
            let place = TokenPlace::of(&settings);
            assert_eq!(place.token_file(false), [place.folder, "/", TOKEN_FILE].concat());
            let on_windows = ["C:", &place.folder.replace('/', "\\"), "\\", TOKEN_FILE].concat();
            assert_eq!(place.token_file(true), on_windows);
        }
    }
}
