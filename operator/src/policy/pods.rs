//! What is done to pods: missed ones are told of, and missed and expired ones evicted where the installation allows it.

use super::{Ended, PACE, Progress, RETRY, Reconciler, Running, TICK, WRITES};
use crate::{
    eviction,
    metrics::{EventOutcome, WriteOutcome},
    missed,
    probe::{self, Evidence},
    world::{Cause, Finding, PodKey},
};
use jiff::Timestamp;
use std::collections::HashSet;
use tokenscope_platform::telemetry;
use tokio::time::{Duration, Instant};

impl Reconciler {
    /// Tells of missed pods, evicts one where that is allowed, and answers how long nothing more can be done.
    pub(super) fn deal_with_pods(&self, running: &Running, progress: &mut Progress, now: Timestamp) -> Duration {
        let uids: HashSet<&str> = self.world.findings().map(|(_, finding)| &*finding.uid).collect();
        progress.told.keep(|uid| uids.contains(uid));
        let evicts = self.evict(running, progress, now);
        let told = self.tell_of_missed(progress, now);
        if evicts { told.min(PACE) } else { told }
    }

    /// Evicts a pod if one may be evicted now; answers whether there is one to be evicted at some time.
    fn evict(&self, running: &Running, progress: &mut Progress, now: Timestamp) -> bool {
        let candidates = || {
            self.world.findings().filter(|(_, finding)| {
                let is_allowed = match finding.cause {
                    Cause::Missed => self.evictions.missed,
                    Cause::Expired(_) => self.evictions.expired,
                };
                is_allowed && finding.evictable && finding.controller.is_some()
            })
        };
        if candidates().next().is_none() {
            return false;
        }
        let instant = Instant::now();
        if progress.evidence.may_ask(instant) {
            let probe = self.probe.clone();
            running.push(Box::pin(async move { Ended::Probe(probe.ask().await) }));
        }
        // Without a webhook that works the next pod would be missed as well.
        if !progress.evidence.is_fresh(instant) || running.len() >= WRITES {
            return true;
        }
        let siblings = self.world.siblings();
        let chosen = candidates().find(|(key, finding)| {
            let controller = finding.controller.as_deref().unwrap_or_default();
            let siblings = siblings.get(controller).copied().unwrap_or_default();
            is_settled(finding, now)
                && progress
                    .evicted
                    .may_evict(&key.0, finding, self.world.is_ready(key), siblings, now)
        });
        if let Some((key, finding)) = chosen {
            let (client, key) = (self.client.clone(), key.clone());
            let finding = finding.clone();
            running.push(Box::pin(async move {
                let result = eviction::evict(client, key.clone(), finding.uid.clone()).await;
                Ended::Eviction(key, finding, result)
            }));
        }
        true
    }

    fn tell_of_missed(&self, progress: &mut Progress, now: Timestamp) -> Duration {
        let mut pause = TICK;
        let missed = self
            .world
            .findings()
            .filter(|(_, finding)| finding.cause == Cause::Missed);
        for (key, finding) in missed {
            if !is_settled(finding, now) {
                pause = PACE;
                continue;
            }
            if progress.told.is_told(&finding.uid) {
                continue;
            }
            let Some(report) = self.world.report(key, now) else {
                continue;
            };
            if self.reporter.capacity() < 2 {
                self.metrics.event(EventOutcome::Delayed);
                return pause.min(RETRY);
            }
            let with_owner = (report.pod.owner.as_ref()).is_some_and(|owner| progress.told.is_new_owner(&owner.uid));
            for notice in missed::notices(&key.0, &report, with_owner) {
                self.tell(notice);
            }
            progress.told.note_told(&finding.uid);
        }
        pause
    }

    pub(super) fn take_in_eviction(
        &self,
        (namespace, pod): &PodKey,
        finding: &Finding,
        result: Result<(), kube::Error>,
        pace: &mut eviction::Pace,
    ) {
        let outcome = match result {
            Ok(()) => {
                match &finding.cause {
                    Cause::Missed => {
                        tracing::info!(%namespace, %pod, "evicted a pod that was created without its credentials");
                    }
                    Cause::Expired(policy) => {
                        tracing::info!(%namespace, %pod, %policy, "evicted a pod whose policy is no longer in force");
                    }
                }
                WriteOutcome::Written
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => WriteOutcome::Gone,
            Err(error) => {
                // What the API server answers where a budget keeps the pod (policy/v1, Eviction).
                if matches!(&error, kube::Error::Api(status) if status.code == 429) {
                    pace.note_refused(finding);
                }
                tracing::warn!(%namespace, %pod, error = telemetry::chain(&error), "a pod could not be evicted");
                WriteOutcome::Failed
            }
        };
        self.metrics.eviction(outcome);
    }

    pub(super) fn take_in_probe(result: &Result<(), probe::Error>, evidence: &mut Evidence) {
        let is_first_failure = evidence.note(result.is_ok(), Instant::now());
        if let (Err(error), true) = (result, is_first_failure) {
            tracing::warn!(
                error = telemetry::chain(error),
                "no pod is evicted, since the webhook does not answer as it should"
            );
        }
    }
}

/// Watches don't arrive in the order in which things happened.
fn is_settled(finding: &Finding, now: Timestamp) -> bool {
    now >= finding.since + missed::SETTLED
}

#[cfg(test)]
mod tests;
