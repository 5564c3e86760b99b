//! The pod under review, and what is known about it.

use std::borrow::Cow;
use std::collections::HashSet;

use tokenscope_core::annotations::{Mark, OF_SERVICE_ACCOUNTS};
use tokenscope_core::lock::holds_locked_token_beside;
use tokenscope_core::pod::{AddedVariables, Container, Containers, EnvVar, Pod, Text, VolumeMount, is_added_container};
use tokenscope_core::{Decision, GrantRecord, Pairs, PolicySet, Request, Settings, annotations};

use super::other_variables::OtherVariables;
use super::paths::is_within;
use super::pieces::{DesiredMount, ROLE_ARN, TOKEN_FILE};
use super::place::TokenPlace;
use super::slot::Slot;

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
    /// The policies by which it was decided.
    pub policies: &'a PolicySet,
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
    pub(super) policies: &'a PolicySet,
    pub(super) settings: &'a Settings,
    /// The containers of the request, in its order.
    pub(super) containers: Vec<Slot<'a>>,
    /// The place of tokens.
    pub(super) place: TokenPlace,
    /// True if the pod needs Windows.
    pub(super) windows: bool,
    /// The variables that the record says are ours.
    added: AddedVariables<'a>,
    /// The containers that the record says have the role of an association of EKS Pod Identity.
    associated: HashSet<&'a str>,
    /// The variables whose names policies choose.
    pub(super) others: OtherVariables<'a>,
}

impl<'a> Context<'a> {
    pub(super) fn new(reviewed: &Reviewed<'a>, decision: &Decision) -> Self {
        let &Reviewed {
            pod,
            text,
            record,
            request,
            policies,
            settings,
        } = reviewed;
        let slot = |(list, index, container)| Slot { list, index, container };
        let containers: Vec<_> = pod.users_containers().map(slot).collect();
        let associating = record.filter(|record| record.association.is_some());
        let associated = associating.into_iter().flat_map(GrantRecord::roles);
        Self {
            pod,
            text,
            record,
            request,
            policies,
            settings,
            place: TokenPlace::of(settings),
            windows: pod.needs_windows(),
            added: AddedVariables::of(record),
            associated: associated.map(|(container, _)| container).collect(),
            others: OtherVariables::of(text, &containers, decision, record),
            containers,
        }
    }

    /// True if an earlier review added this variable.
    pub(super) fn has_added(&self, container: &Container<Text<'a>>, variable: &str) -> bool {
        self.added.has(&container.name, variable)
    }

    /// True if an earlier review gave the container of this name the role of an association of EKS Pod Identity, as far as the
    /// record says.
    pub(super) fn was_associated(&self, container: &str) -> bool {
        self.associated.contains(container)
    }

    /// True if a container of the pod has the name of one that the webhook adds, also behind the bound of a list.
    pub(super) fn bears_added_name(&self) -> bool {
        let lists = [&self.pod.spec.init_containers, &self.pod.spec.containers];
        let mut containers = lists.into_iter().flatten().flat_map(|list| list.iter());
        containers.any(|container| is_added_container(&container.name)) || self.hides_added_name()
    }

    /// True if one behind the bound of a list has such a name, so that nobody can tell if it is exactly ours.
    pub(super) fn hides_added_name(&self) -> bool {
        let lists = [&self.pod.spec.init_containers, &self.pod.spec.containers];
        lists.into_iter().flatten().any(Containers::has_passed_over_told)
    }

    /// A record of what of the request decisions read: the pod's labels and annotations, and the annotations of its service account.
    /// Nothing is granted in it yet.
    pub(super) fn record_of_request(&self) -> GrantRecord<'a> {
        let pod = &self.request.pod;
        let of_account = &self.request.service_account_annotations;
        GrantRecord {
            labels: Some(recorded(&pod.labels, |key| key != annotations::REVIEWED)),
            annotations: Some(recorded(&pod.annotations, annotations::decides)),
            service_account_annotations: Some(recorded(of_account, |key| OF_SERVICE_ACCOUNTS.contains(&key))),
            ..GrantRecord::default()
        }
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
        self.request.needs_mark() || (self.settings.lock.mode.marks() && self.holds_locked(&[]))
    }

    /// The mark of a pod that gets nothing: what it is without once the volumes of these names are gone. The guard's CEL looks at the same.
    pub(super) fn mark_of_untouched(&self, gone: &[Cow<'_, str>]) -> Mark {
        let has_more = || self.request.pod.volumes_beyond().next().is_some();
        if self.holds_locked(gone) || has_more() {
            Mark::Untouched
        } else if self.request.may_ask_itself() {
            Mark::HoldsNothing
        } else {
            Mark::AsksNothing
        }
    }

    /// True if the pod holds a token that the lock is about, by itself or by a listed CSI driver, beside the volumes that go.
    fn holds_locked(&self, gone: &[Cow<'_, str>]) -> bool {
        let gone: HashSet<&str> = gone.iter().map(AsRef::as_ref).collect();
        let goes = |name: &str| gone.contains(name);
        let lock = &self.settings.lock;
        let by_driver = || {
            let volumes = self.pod.spec.volumes.iter().flatten();
            lock.applies_to(self.request.namespace)
                && volumes
                    .filter_map(|volume| volume.csi.as_ref())
                    .any(|csi| lock.lists_driver(csi.driver.as_ref()))
        };
        holds_locked_token_beside(self.request, self.settings, goes) || by_driver()
    }
}

fn recorded<'a>(pairs: &'a Pairs<&'a str>, keep: impl Fn(&str) -> bool) -> Pairs<Cow<'a, str>> {
    let kept = pairs.iter().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)))
        .collect()
}
