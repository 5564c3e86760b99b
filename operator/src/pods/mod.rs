//! The work on pods: missed ones are reported, and missed and expired ones are evicted where the installation allows it.

mod missed;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::Client;
use tokenscope_platform::health::Heartbeat;
use tokenscope_platform::telemetry;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::events::EventSender;
use crate::eviction::{self, Pace};
use crate::index::{Cause, Finding, Index, PodKey, SharedIndex};
use crate::leader::Leader;
use crate::metrics::{OperatorMetrics, WriteOutcome};
use crate::probe::{self, Evidence, Probe};

/// The least time between two looks at all pods to which something is to be done.
const PACE: Duration = Duration::from_secs(1);
/// The time after which these pods are looked at where nothing changes.
const TICK: Duration = Duration::from_secs(10);
/// The time after which an Event that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The most requests that run at a time.
const MOST_REQUESTS: usize = 16;

/// The task.
pub(crate) struct PodController {
    /// The client of the API server, for evictions.
    pub(crate) client: Client,
    /// The leadership: the one process that has it writes.
    pub(crate) leader: Leader,
    /// The index of what is known.
    pub(crate) index: SharedIndex,
    /// Takes Events about missed pods.
    pub(crate) events: EventSender,
    /// The pods that are evicted.
    pub(crate) evictions: Evictions,
    /// Asks the webhook whether it works.
    pub(crate) probe: Probe,
    /// The sign that the task lives.
    pub(crate) heartbeat: Heartbeat,
    /// The metrics.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

/// The pods that the installation lets the operator evict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evictions {
    /// True if pods are evicted that run without what they should have.
    pub(crate) missed: bool,
    /// True if pods are evicted that run with what an expired policy gave them, where the policy asks for it.
    pub(crate) expired: bool,
}

/// A request that has ended.
enum Ended {
    Eviction(PodKey, Finding, Result<(), kube::Error>),
    Probe(Result<(), probe::Error>),
}

type RunningRequests = FuturesUnordered<BoxFuture<'static, Ended>>;

/// The memory of the task while this process is the leader.
#[derive(Default)]
struct PodProgress {
    told: missed::ReportedPods,
    evicted: Pace,
    evidence: Evidence,
}

impl PodController {
    /// Runs until `stop`, and ends the requests that have begun.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let (mut running, mut progress) = (RunningRequests::new(), PodProgress::default());
        let mut changed = self.index.subscribe();
        let (mut last, mut wake, mut leads) = (Instant::now(), Instant::now(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = running.next(), if !running.is_empty() => {
                    self.note(ended, &mut progress);
                    continue;
                }
                () = self.leader.change() => {}
                Ok(()) = changed.changed() => {
                    wake = wake.min(last + PACE);
                    if Instant::now() < wake {
                        continue;
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.heartbeat.touch();
            last = Instant::now();
            wake = last + TICK;
            if self.leader.is_leader() != leads {
                leads = !leads;
                progress = PodProgress::default();
            }
            let index = self.index.lock().await;
            if leads && index.waits_for().is_none() {
                wake = last + self.deal_with(&index, &running, &mut progress, Timestamp::now());
            }
        }
        while let Some(ended) = running.next().await {
            self.note(ended, &mut progress);
        }
        Ok(())
    }

    /// Tells of missed pods, evicts one where that is allowed, and answers how long nothing more can be done.
    fn deal_with(
        &self,
        index: &Index,
        running: &RunningRequests,
        progress: &mut PodProgress,
        now: Timestamp,
    ) -> Duration {
        let uids: HashSet<&str> = index.findings().map(|(_, finding)| &*finding.uid).collect();
        progress.told.keep(|uid| uids.contains(uid));
        let evicts = self.evict(index, running, progress, now);
        let told = self.tell_of_missed(index, progress, now);
        if evicts { told.min(PACE) } else { told }
    }

    /// Evicts a pod if one may be evicted now; answers whether there is one to be evicted at some time.
    fn evict(&self, index: &Index, running: &RunningRequests, progress: &mut PodProgress, now: Timestamp) -> bool {
        let mut candidates = self.candidates(index).peekable();
        if candidates.peek().is_none() {
            return false;
        }
        let instant = Instant::now();
        if progress.evidence.may_ask(instant) {
            let probe = self.probe.clone();
            running.push(Box::pin(async move { Ended::Probe(probe.ask().await) }));
        }
        // Without a webhook that works the next pod would be missed as well.
        if !progress.evidence.is_fresh(instant) || running.len() >= MOST_REQUESTS {
            return true;
        }
        let siblings = index.siblings();
        let chosen = candidates.find(|(key, finding)| {
            let controller = finding.controller.as_deref().unwrap_or_default();
            let siblings = siblings.get(&(&*key.0, controller)).copied().unwrap_or_default();
            let is_ready = index.is_ready(key);
            is_settled(finding, now) && progress.evicted.may_evict(&key.0, finding, is_ready, siblings, now)
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

    /// The pods that are to be evicted at some time.
    fn candidates<'a>(&self, index: &'a Index) -> impl Iterator<Item = (&'a PodKey, &'a Finding)> + use<'a> {
        let evictions = self.evictions;
        index.findings().filter(move |(_, finding)| {
            let is_allowed = match finding.cause {
                Cause::Missed => evictions.missed,
                Cause::Expired(_) => evictions.expired,
            };
            is_allowed && finding.evictable && finding.controller.is_some()
        })
    }

    fn tell_of_missed(&self, index: &Index, progress: &mut PodProgress, now: Timestamp) -> Duration {
        let mut pause = TICK;
        let mut full: HashSet<&str> = HashSet::new();
        let missed = index.findings().filter(|(_, finding)| finding.cause == Cause::Missed);
        for (key, finding) in missed {
            if !is_settled(finding, now) {
                pause = PACE;
                continue;
            }
            if progress.told.is_told(&finding.uid) || full.contains(&*key.0) {
                continue;
            }
            if !self.events.has_room_for(&key.0, 2) {
                full.insert(&key.0);
                pause = pause.min(RETRY);
                continue;
            }
            let Some(report) = index.report(key, now) else {
                continue;
            };
            let owner = report.pod.owner.as_ref();
            let with_owner = owner.is_some_and(|owner| progress.told.is_new_owner(&key.0, &owner.uid));
            for notice in missed::notices(&key.0, &report, with_owner) {
                self.events.send(notice);
            }
            progress.told.note_told(&finding.uid);
        }
        pause
    }

    fn note(&self, ended: Ended, progress: &mut PodProgress) {
        match ended {
            Ended::Eviction(key, finding, result) => self.note_eviction(&key, &finding, result, &mut progress.evicted),
            Ended::Probe(result) => Self::note_answer(&result, &mut progress.evidence),
        }
    }

    fn note_eviction(
        &self,
        (namespace, pod): &PodKey,
        finding: &Finding,
        result: Result<(), kube::Error>,
        pace: &mut Pace,
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
                    pace.note_refused(namespace, finding);
                }
                tracing::warn!(%namespace, %pod, error = telemetry::chain(&error), "a pod could not be evicted");
                WriteOutcome::Failed
            }
        };
        self.metrics.eviction(outcome);
    }

    fn note_answer(result: &Result<(), probe::Error>, evidence: &mut Evidence) {
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
