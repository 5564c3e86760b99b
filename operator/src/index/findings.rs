//! Pods to which something is to be done, and what people are told about them.

use crate::drift::KeptPod;
use jiff::Timestamp;
use tokenscope_core::{Decision, PolicyName};

/// What is wrong with a pod.
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
    /// What is wrong.
    pub(crate) cause: Cause,
    /// Since when that is known.
    pub(crate) since: Timestamp,
    /// Which pod of that name.
    pub(crate) uid: Box<str>,
    /// The UID of the controller that would make another one.
    pub(crate) controller: Option<Box<str>>,
    /// Whether that is certain by what nobody can change on a running pod.
    pub(crate) evictable: bool,
}

/// The pods of one controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Siblings {
    /// How many of those that run, or are about to, are not ready.
    pub(crate) unready: usize,
    /// When the youngest ready one was created.
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

/// What is told about a missed pod.
#[derive(Clone, Debug)]
pub(crate) struct MissedPodReport {
    /// The pod.
    pub(crate) pod: KeptPod,
    /// What is wrong, for whoever reads it.
    pub(crate) message: String,
}

/// What is wrong with a missed pod that would get this now.
pub(super) fn missed_message(decision: &Decision) -> String {
    match decision {
        Decision::Granted(granted) => {
            let reason = granted.containers.first().map_or("", |granted| &granted.reason);
            format!(
                "runs without the AWS credentials that it should have ({reason}): the webhook was not asked or did not know it yet when the pod was created. Create it anew to repair it"
            )
        }
        Decision::Denied(denied) => {
            format!("asks for an AWS role, runs without, and was never reviewed; a new pod would be refused: {denied}")
        }
        Decision::Untouched(reason) => format!("runs without a review: {reason}"),
    }
}
