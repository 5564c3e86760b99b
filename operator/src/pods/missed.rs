//! Reports about pods that run without what they should have: Warning Events on them and their owners.

use std::collections::HashSet;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ObjectReference;
use tokenscope_core::kubernetes_names::{is_label, is_subdomain};
use tokenscope_core::pod::OwnerReference;

use crate::events::{EventReason, Notice};
use crate::index::MissedPodReport;

/// For how long a pod must be known as missed: watches don't arrive in the order in which things happened.
pub(super) const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// The number of owners that are remembered, so that each is told once, not once a pod.
const REMEMBERED: usize = 4096;

/// The pods that were told of.
#[derive(Default)]
pub(super) struct ReportedPods {
    told: HashSet<Box<str>>,
    /// By namespace and UID: whoever creates a pod writes which owner it has, and must not silence what is told in another namespace.
    told_owners: HashSet<(Box<str>, Box<str>)>,
}

impl ReportedPods {
    /// True if the pod of this UID was told of.
    pub(super) fn is_told(&self, uid: &str) -> bool {
        self.told.contains(uid)
    }

    /// Notes that it was.
    pub(super) fn note_told(&mut self, uid: &str) {
        self.told.insert(uid.into());
    }

    /// True if an owner of this UID is told of for the first time in this namespace, which is noted.
    pub(super) fn is_new_owner(&mut self, namespace: &str, uid: &str) -> bool {
        if self.told_owners.len() >= REMEMBERED {
            self.told_owners.clear();
        }
        self.told_owners.insert((namespace.into(), uid.into()))
    }

    /// Forgets all pods but these.
    pub(super) fn keep(&mut self, is_missed: impl Fn(&str) -> bool) {
        self.told.retain(|uid| is_missed(uid));
    }
}

/// The Events about a missed pod: on itself, and on its owner if `with_owner`.
pub(super) fn notices(namespace: &str, report: &MissedPodReport, with_owner: bool) -> Vec<Notice> {
    let MissedPodReport { pod, message } = report;
    let itself = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: None,
    };
    let mut notices = vec![notice(namespace, &itself, format!("it {message}"))];
    if let Some(owner) = pod.owner.as_ref().filter(|owner| with_owner && can_exist(owner)) {
        let of_owner = format!("its pod {} (and maybe others) {message}", pod.name);
        notices.push(notice(namespace, owner, of_owner));
    }
    notices
}

/// True if there can be such an object. The API server stores nearly any text in a pod's owner references, and an Event has no use for it.
fn can_exist(owner: &OwnerReference<Box<str>>) -> bool {
    const MOST_KIND_BYTES: usize = 63;
    const MOST_UID_BYTES: usize = 128;
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &*owner.api_version));
    let is_kind = !owner.kind.is_empty() && owner.kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_uid = owner.uid.bytes().all(|byte| byte.is_ascii_graphic());
    (group.is_empty() || is_subdomain(group))
        && is_label(version)
        && is_kind
        && owner.kind.len() <= MOST_KIND_BYTES
        && is_subdomain(&owner.name)
        && is_uid
        && owner.uid.len() <= MOST_UID_BYTES
}

fn notice(namespace: &str, about: &OwnerReference<Box<str>>, message: String) -> Notice {
    Notice {
        name: Some(format!("tokenscope-missed.{}", about.uid)),
        about: ObjectReference {
            api_version: Some(about.api_version.to_string()),
            kind: Some(about.kind.to_string()),
            name: Some(about.name.to_string()),
            uid: Some(about.uid.to_string()),
            namespace: Some(namespace.into()),
            ..ObjectReference::default()
        },
        verified_as: None,
        reason: EventReason::CredentialsMissed.as_str(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut OwnerReference<Box<str>>, &str);

    #[test]
    fn what_is_no_longer_missed_is_forgotten() {
        let mut progress = ReportedPods::default();
        progress.note_told("a");
        progress.keep(|uid| uid == "b");
        assert!(!progress.is_told("a"));
    }

    #[test]
    fn an_owner_that_can_not_exist_is_not_written_of() {
        let owner = || OwnerReference::<Box<str>> {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "orders-6d4cf56db6".into(),
            uid: "705ab4f5-6393-11e8-b7cc-42010a800002".into(),
            controller: Some(true),
        };
        assert!(can_exist(&owner()));
        assert!(can_exist(&OwnerReference {
            api_version: "v1".into(),
            ..owner()
        }));
        let long: Box<str> = "a".repeat(1 << 20).into();
        let changes: [Change; 4] = [
            |owner, text| owner.api_version = text.into(),
            |owner, text| owner.kind = text.into(),
            |owner, text| owner.name = text.into(),
            |owner, text| owner.uid = text.into(),
        ];
        for change in changes {
            for text in [&*long, "a\u{1b}[31m", "a\nb", "a\u{202e}b"] {
                let mut owner = owner();
                change(&mut owner, text);
                assert!(!can_exist(&owner), "{:?}", text.chars().take(8).collect::<String>());
            }
        }
    }

    #[test]
    fn an_owner_is_told_of_once_in_its_namespace_whoever_names_its_uid_in_another_one() {
        let mut progress = ReportedPods::default();
        assert!(progress.is_new_owner("hostile", "rs"));
        assert!(progress.is_new_owner("shop", "rs"));
        assert!(!progress.is_new_owner("shop", "rs"));
    }
}
