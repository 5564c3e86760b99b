//! The pod under review, and what is known about it.

use tokenscope_core::lock::holds_locked_token;
use tokenscope_core::pod::{AddedVariables, Container, EnvVar, Pod, Text, VolumeMount};
use tokenscope_core::{GrantRecord, Request, Settings};

use super::paths::is_within;
use super::pieces::{DesiredMount, ROLE_ARN, TOKEN_FILE};
use super::place::TokenPlace;

/// The material of a review.
#[derive(Clone, Copy, Debug)]
pub struct Reviewed<'a> {
    /// The pod.
    pub pod: &'a Pod<Text<'a>>,
    /// The whole review, of which `pod` was read.
    pub text: &'a str,
    /// The record of an earlier review of ours, as far as the pod says. It proves nothing: whoever creates a pod can write
    /// it.
    pub record: Option<&'a GrantRecord<'a>>,
    /// The request that the pod gave, which was decided about.
    pub request: &'a Request<'a>,
    /// The installation's settings.
    pub settings: &'a Settings,
}

/// The same, prepared for many questions.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) pod: &'a Pod<Text<'a>>,
    pub(super) text: &'a str,
    pub(super) record: Option<&'a GrantRecord<'a>>,
    pub(super) request: &'a Request<'a>,
    pub(super) settings: &'a Settings,
    /// The containers of the request, in its order.
    pub(super) containers: Vec<Slot<'a>>,
    /// The place of tokens.
    pub(super) place: TokenPlace,
    /// True if the pod needs Windows.
    pub(super) windows: bool,
    /// The variables that the record says are ours.
    added: AddedVariables<'a>,
}

/// A container, and where it stands in the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    /// `initContainers` or `containers`.
    pub(super) list: &'static str,
    /// Its index there.
    pub(super) index: usize,
    pub(super) container: &'a Container<Text<'a>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(reviewed: &Reviewed<'a>) -> Self {
        let &Reviewed {
            pod,
            text,
            record,
            request,
            settings,
        } = reviewed;
        let slot = |(list, index, container)| Slot { list, index, container };
        Self {
            pod,
            text,
            record,
            request,
            settings,
            containers: pod.users_containers().map(slot).collect(),
            place: TokenPlace::of(settings),
            windows: pod.needs_windows(),
            added: AddedVariables::of(record),
        }
    }

    /// True if an earlier review added this variable.
    pub(super) fn has_added(&self, container: &Container<Text<'a>>, variable: &str) -> bool {
        self.added.has(&container.name, variable)
    }

    /// A variable that is the container's own.
    pub(super) fn own<'c>(&self, container: &'c Container<Text<'a>>, name: &str) -> Option<&'c EnvVar<Text<'a>>> {
        container.variable(name).filter(|_| !self.has_added(container, name))
    }

    /// True if the container's own variable says that its token is where ours are.
    pub(super) fn has_own_file_in_place(&self, file: &EnvVar<Text<'a>>) -> bool {
        let value = file.value.as_ref().filter(|_| file.value_from.is_none());
        value.is_some_and(|path| is_within(path, self.place.folder, self.windows))
    }

    /// True if the container has a role and our token's path of its own: it was equipped by somebody before, as the EKS
    /// webhook does it, or it is a copy of a container that we equipped.
    pub(super) fn brings_the_pair(&self, container: &Container<Text<'a>>) -> bool {
        let file = self.own(container, TOKEN_FILE);
        file.is_some_and(|file| self.has_own_file_in_place(file)) && self.own(container, ROLE_ARN).is_some()
    }

    /// True if this is exactly how one of our token volumes is mounted.
    pub(super) fn is_token_mount(&self, mount: &VolumeMount<Text<'a>>) -> bool {
        let exact = DesiredMount {
            volume: &mount.name,
            path: self.place.folder,
        };
        self.place.is_token_volume(&mount.name) && exact.is_written(mount)
    }

    /// True if the API server's own policies look for the mark on this pod, or will once the lock denies.
    pub(super) fn needs_mark(&self) -> bool {
        let lock = &self.settings.lock;
        let by_driver = || {
            let volumes = self.pod.spec.volumes.iter().flatten();
            lock.applies_to(self.request.namespace)
                && volumes
                    .filter_map(|volume| volume.csi.as_ref())
                    .any(|csi| lock.lists_driver(csi.driver.as_ref()))
        };
        let by_lock = || holds_locked_token(self.request, self.settings) || by_driver();
        self.request.needs_mark() || (lock.mode.marks() && by_lock())
    }
}
