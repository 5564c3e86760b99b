//! Pods that need an Event or an eviction, and the messages about them.

use jiff::Timestamp;
use tokenscope_core::{Decision, PolicyName};

use crate::drift::KeptPod;

/// The fault of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It runs without what it should have.
    Missed,
    /// It runs with what this policy gave it, which is no longer in force and says `onExpiry: Evict`.
    Expired(PolicyName),
}

/// A pod to which something is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The fault.
    pub(crate) cause: Cause,
    /// The time since which that is known.
    pub(crate) since: Timestamp,
    /// The UID of the pod.
    pub(crate) uid: Box<str>,
    /// The UID of the controller that would make another one.
    pub(crate) controller: Option<Box<str>>,
    /// True if that is certain by what nobody can change on a running pod.
    pub(crate) evictable: bool,
}

/// The pods of one controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Siblings {
    /// The number of those that run, or are about to, and are not ready.
    pub(crate) unready: usize,
    /// The time when the youngest ready one was created.
    pub(crate) youngest_ready: Option<Timestamp>,
}

impl Siblings {
    /// Counts a pod in.
    pub(super) fn add(&mut self, pod: &KeptPod) {
        if pod.ready {
            self.youngest_ready = self.youngest_ready.max(Some(pod.created));
        } else {
            self.unready += 1;
        }
    }
}

/// The report about a missed pod.
#[derive(Clone, Debug)]
pub(crate) struct MissedPodReport {
    /// The pod.
    pub(crate) pod: KeptPod,
    /// The fault, for whoever reads it.
    pub(crate) message: String,
}

/// The fault of a missed pod that would get this now.
pub(super) fn missed_message(decision: &Decision) -> String {
    match decision {
        Decision::Granted(granted) => {
            let reason = granted.containers.first().map_or("", |granted| &granted.reason);
            format!(
                "runs without the AWS credentials that it should have ({reason}): the webhook was not asked or did not know it yet when the pod was created. Create it anew to repair it"
            )
        }
        // Of such a pod nobody knows since when its service account stands in the configuration.
        Decision::Associated(_) => {
            "runs without the credentials of EKS Pod Identity that a new pod would get".to_owned()
        }
        Decision::Denied(denied) => {
            format!("asks for an AWS role, runs without, and was never reviewed; a new pod would be refused: {denied}")
        }
        Decision::Untouched(reason) => format!("runs without a review: {reason}"),
    }
}
