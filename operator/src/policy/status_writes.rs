//! Which status is written when.

use super::{Ended, RETRY, Reconciler, Running, WRITES, update_status};
use crate::{events::Notice, metrics::WriteOutcome};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DynamicObject;
use std::collections::{BTreeMap, HashMap, HashSet};
use tokenscope_core::PolicyName;
use tokenscope_crds::v1alpha1::{GROUP, PolicyStatus};
use tokenscope_platform::telemetry;
use tokio::time::{Duration, Instant};

/// A reason that people may search for: `kubectl get events --field-selector reason=StatusNotWritten`.
const STATUS_NOT_WRITTEN: &str = "StatusNotWritten";

/// Between two writes of one policy that only count pods anew.
const COUNT_PAUSE: Duration = Duration::from_secs(2);

/// When what of a policy may be written.
#[derive(Default)]
pub(super) struct Pacing {
    in_flight: HashSet<PolicyName>,
    /// When the last write ended well.
    written: HashMap<PolicyName, Instant>,
    /// Not before then.
    held_back: BTreeMap<PolicyName, Instant>,
    /// Those whose status could not be written, which was told.
    refused: HashSet<PolicyName>,
}

impl Pacing {
    /// When something that is held back may be written.
    pub(super) fn next(&self) -> Option<Instant> {
        self.held_back.values().min().copied()
    }
}

impl Reconciler {
    /// Begins writes of status where it is not what it should be.
    pub(super) fn write_status(&mut self, running: &Running, pacing: &mut Pacing, now: Timestamp) {
        let instant = Instant::now();
        let due = pacing
            .held_back
            .iter()
            .filter(|(_, at)| **at <= instant)
            .map(|(name, _)| name.clone());
        for name in due.collect::<Vec<_>>() {
            pacing.held_back.remove(&name);
            self.world.concern(name);
        }
        while running.len() < WRITES
            && let Some(name) = self.world.take_concerned()
        {
            // Its answer has it looked at again.
            if pacing.in_flight.contains(&name) || pacing.held_back.contains_key(&name) {
                continue;
            }
            let Some((present, wanted)) = self.world.statuses(&name, now) else {
                continue;
            };
            if *present == wanted {
                continue;
            }
            let earliest = pacing.written.get(&name).map(|at| *at + COUNT_PAUSE);
            if let Some(earliest) = earliest.filter(|at| instant < *at && says_the_same(present, &wanted)) {
                pacing.held_back.insert(name, earliest);
                continue;
            }
            let (client, uid) = (self.client.clone(), self.world.uid(&name).map(str::to_owned));
            pacing.in_flight.insert(name.clone());
            running.push(Box::pin(async move {
                let result = update_status::update_status(client, &name, uid.as_deref(), &wanted).await;
                Ended::Status(name, Box::new(result))
            }));
        }
    }

    pub(super) fn take_in_status(
        &mut self,
        name: PolicyName,
        result: Result<DynamicObject, kube::Error>,
        pacing: &mut Pacing,
    ) {
        pacing.in_flight.remove(&name);
        let outcome = match result {
            Ok(object) => {
                self.world.put_policy_now(&object, Timestamp::now());
                pacing.written.insert(name.clone(), Instant::now());
                WriteOutcome::Written
            }
            // It was deleted, as the watch says soon; or its definition has no status at the moment.
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                pacing.held_back.insert(name.clone(), Instant::now() + RETRY);
                WriteOutcome::Gone
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                if pacing.refused.insert(name.clone()) {
                    tracing::warn!(policy = %name, error, "a status could not be written");
                    self.tell(unwritten(&name, self.world.uid(&name), &error));
                }
                pacing.held_back.insert(name.clone(), Instant::now() + RETRY);
                WriteOutcome::Failed
            }
        };
        if !matches!(outcome, WriteOutcome::Failed) {
            pacing.refused.remove(&name);
        }
        self.metrics.status_write(outcome);
        // Something may have changed while it was written.
        self.world.concern(name);
        let recent = Instant::now();
        pacing.written.retain(|_, at| recent < *at + COUNT_PAUSE);
    }
}

/// That a policy's status is not what it should be, which the status itself can't tell: the API server refuses to store
/// one beside fields that its schema, as it is now, doesn't allow.
fn unwritten(policy: &PolicyName, uid: Option<&str>, error: &str) -> Notice {
    let (kind, namespace, name) = match policy {
        PolicyName::Namespaced { namespace, name } => ("TokenScopePolicy", Some(namespace.to_string()), name),
        PolicyName::Cluster { name } => ("ClusterTokenScopePolicy", None, name),
    };
    Notice {
        name: format!("tokenscope-status.{}", uid.unwrap_or(name)),
        about: ObjectReference {
            api_version: Some(format!("{GROUP}/v1alpha1")),
            kind: Some(kind.into()),
            name: Some(name.to_string()),
            uid: uid.map(str::to_owned),
            namespace,
            ..ObjectReference::default()
        },
        reason: STATUS_NOT_WRITTEN,
        message: format!("its status can't be written: {error}; if it names a field of the policy, correct that field"),
    }
}

/// Whether two statuses differ in counts only, which may wait a little.
fn says_the_same(one: &PolicyStatus, other: &PolicyStatus) -> bool {
    let statuses = |status: &PolicyStatus| -> Vec<(String, String)> {
        let conditions = status.conditions.iter();
        conditions
            .map(|present| (present.type_.clone(), present.reason.clone()))
            .collect()
    };
    one.observed_generation == other.observed_generation
        && statuses(one) == statuses(other)
        && one.trust_policies == other.trust_policies
}
