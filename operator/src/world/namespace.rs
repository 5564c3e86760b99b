//! What is kept of a namespace, and how much of it.

use super::list::List;
use crate::drift::{Annotated, Pod, Verdict, pairs_bytes};
use std::collections::{BTreeSet, HashMap};
use tokenscope_core::Pairs;

/// How many bytes are kept of one namespace: its pods, service accounts, policies and labels.
///
/// A pod takes about a thousand, so these are some 24,000 pods, where Kubernetes is made for 3,000 in a namespace
/// (sig-scalability, thresholds). With 10,000 policies and 50,000 pods elsewhere the operator takes 128 MiB; with one
/// namespace beside them that fills its share, and a page of a list in work, it stays under 180 of the chart's 256 MiB.
pub(crate) const SHARE: usize = 24 << 20;

/// What is counted for an object whose contents are not kept, on top of its name.
const ENTRY_BYTES: usize = 128;

/// A namespace with its pods and service accounts.
#[derive(Default)]
pub(super) struct Namespace {
    /// How many bytes are kept of it.
    share: usize,
    /// None as long as only its contents are known.
    pub(super) labels: Option<Pairs<Box<str>>>,
    pub(super) list: u32,
    pub(super) service_accounts: HashMap<Box<str>, Account>,
    pub(super) pods: HashMap<Box<str>, Tracked>,
    /// Pods that hold a token of a locked audience that no policy grants them.
    pub(super) ungranted: BTreeSet<Box<str>>,
    /// What its policies take.
    pub(super) policy_bytes: usize,
    /// How many of its objects are known by name only.
    pub(super) not_kept: usize,
    /// What all of them would take.
    bytes: usize,
    /// Whether nothing in it is judged.
    pub(super) over_share: bool,
}

/// A service account with an annotation that can change a decision.
pub(super) struct Account {
    /// None where there was no room.
    pub(super) annotated: Option<Annotated>,
    pub(super) list: u32,
    bytes: usize,
}

/// A pod and what was found about it.
pub(super) struct Tracked {
    /// None where there was no room.
    pub(super) pod: Option<Pod>,
    pub(super) verdict: Verdict,
    pub(super) list: u32,
    bytes: usize,
}

impl Namespace {
    /// An empty one with this share.
    pub(super) fn with_share(share: usize) -> Self {
        Self {
            share,
            ..Self::default()
        }
    }

    /// Puts a pod in place of the one of its name; answers whether it has to be judged.
    pub(super) fn put_pod(&mut self, pod: Pod, list: List) -> bool {
        let bytes = pod.bytes() + pod.name.len();
        let before = self.pods.remove(&pod.name);
        let verdict = before.as_ref().map(|before| before.verdict.clone()).unwrap_or_default();
        let same = before
            .as_ref()
            .and_then(|before| before.pod.as_ref())
            .is_some_and(|before| before.is_same(&pod));
        if let Some(before) = before {
            self.release(before.bytes, before.pod.is_some());
        }
        let name = pod.name.clone();
        let pod = self.admit(bytes).then_some(pod);
        let tracked = Tracked {
            pod,
            verdict,
            list: list.number,
            bytes,
        };
        self.pods.insert(name, tracked);
        !same
    }

    /// Takes a pod out.
    pub(super) fn remove_pod(&mut self, name: &str) -> Option<Tracked> {
        let tracked = self.pods.remove(name)?;
        self.release(tracked.bytes, tracked.pod.is_some());
        Some(tracked)
    }

    /// Puts a service account in place of the one of its name; answers whether the pods have to be judged.
    pub(super) fn put_account(&mut self, name: Box<str>, annotated: Annotated, list: List) -> bool {
        let bytes = ENTRY_BYTES + name.len() + pairs_bytes(&annotated.annotations);
        let before = self.service_accounts.remove(&name);
        if let Some(before) = &before {
            self.release(before.bytes, before.annotated.is_some());
        }
        let changes = before.is_none_or(|before| before.annotated.as_ref() != Some(&annotated));
        let annotated = self.admit(bytes).then_some(annotated);
        let account = Account {
            annotated,
            list: list.number,
            bytes,
        };
        self.service_accounts.insert(name, account);
        changes
    }

    /// Takes a service account out; answers whether it was there.
    pub(super) fn remove_account(&mut self, name: &str) -> bool {
        let Some(account) = self.service_accounts.remove(name) else {
            return false;
        };
        self.release(account.bytes, account.annotated.is_some());
        true
    }

    /// Answers whether the labels are others.
    pub(super) fn put_labels(&mut self, labels: Option<Pairs<Box<str>>>) -> bool {
        if self.labels == labels {
            return false;
        }
        let bytes = |labels: &Option<Pairs<Box<str>>>| labels.as_ref().map_or(0, pairs_bytes);
        self.bytes = self.bytes - bytes(&self.labels) + bytes(&labels);
        self.labels = labels;
        true
    }

    /// Counts in what a policy takes, and answers whether there is room for it.
    pub(super) fn admit_policy(&mut self, bytes: usize) -> bool {
        self.policy_bytes += bytes;
        self.admit(bytes)
    }

    /// Counts a policy out.
    pub(super) fn release_policy(&mut self, bytes: usize, was_kept: bool) {
        self.policy_bytes -= bytes;
        self.release(bytes, was_kept);
    }

    /// Whether it takes more than its share. What was not kept has to be read again before anything is judged anew.
    pub(super) fn is_over_share(&self) -> bool {
        self.bytes > self.share || self.not_kept > 0
    }

    /// Whether there is room now for what was not kept.
    pub(super) fn awaits_lists(&self) -> bool {
        self.bytes <= self.share && self.not_kept > 0
    }

    /// Whether nothing is known of it any more.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_none() && self.pods.is_empty() && self.service_accounts.is_empty() && self.policy_bytes == 0
    }

    fn admit(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let is_kept = self.bytes <= self.share;
        self.not_kept += usize::from(!is_kept);
        is_kept
    }

    fn release(&mut self, bytes: usize, was_kept: bool) {
        self.bytes -= bytes;
        self.not_kept -= usize::from(!was_kept);
    }
}
