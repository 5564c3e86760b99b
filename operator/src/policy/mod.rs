//! The loop over policies and pods: watches → [`World`] → what should be → status, Events, evictions.

pub(crate) mod build;
mod update_status;

use crate::{
    events::{Notice, Reporter},
    leader::Leader,
    metrics::{EventOutcome, Metrics, WriteOutcome},
    missed::{self, Progress},
    watching::follow,
    world::{Change, PodKey, World},
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, core::DynamicObject};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
};
use tokenscope_core::PolicyName;
use tokenscope_crds::{
    read,
    v1alpha1::{GROUP, PolicyStatus},
};
use tokenscope_platform::{
    Process,
    health::{Gate, Heartbeat},
    telemetry,
};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// A reason that people may search for: `kubectl get events --field-selector reason=StatusNotWritten`.
const STATUS_NOT_WRITTEN: &str = "StatusNotWritten";

/// Between two looks at what changed.
const GATHER: Duration = Duration::from_millis(200);
/// How many changes wait at most; beyond, watches wait.
const QUEUE: usize = 1024;
/// How many writes run at a time.
const WRITES: usize = 16;
/// Between two writes of one policy that only count pods anew.
const COUNT_PAUSE: Duration = Duration::from_secs(2);
/// After a write of a policy that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Between two looks at all missed pods, or at all numbers, however much happens.
const PACE: Duration = Duration::from_secs(1);
/// How often the loop shows at least that it lives.
const TICK: Duration = Duration::from_secs(10);

/// The loop.
pub(crate) struct Reconciler {
    /// For status and evictions.
    pub(crate) client: Client,
    /// Whether this process writes.
    pub(crate) leader: Leader,
    /// What is known.
    pub(crate) world: World,
    /// Takes Events about missed pods.
    pub(crate) reporter: Reporter,
    /// Whether missed pods are evicted.
    pub(crate) evict_missed: bool,
    /// After how long everything is looked at again.
    pub(crate) resync: Duration,
    /// Open once everything was looked at.
    pub(crate) gate: Gate,
    /// That the loop lives.
    pub(crate) heartbeat: Heartbeat,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

/// What a write came to.
enum Written {
    Status(PolicyName, Box<Result<DynamicObject, kube::Error>>),
    Eviction(PodKey, Result<(), kube::Error>),
}

type Writes = FuturesUnordered<BoxFuture<'static, Written>>;

/// When what of a policy may be written.
#[derive(Default)]
struct Pacing {
    in_flight: HashSet<PolicyName>,
    /// When the last write ended well.
    written: HashMap<PolicyName, Instant>,
    /// Not before then.
    held_back: BTreeMap<PolicyName, Instant>,
    /// Those whose status could not be written, which was told.
    refused: HashSet<PolicyName>,
}

/// Follows everything that the world is made of; gives both ends of the queue that it comes by.
pub(crate) fn watch(client: &Client, process: &Process) -> (mpsc::Sender<Change>, mpsc::Receiver<Change>) {
    let (changes, received) = mpsc::channel(QUEUE);
    let [namespaced, cluster] = read::resources();
    let (to, stop) = (|| changes.clone(), || process.stop.clone());
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of namespaces",
        follow(api, "namespaces", to(), Change::Namespace, stop()),
    );
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of service accounts",
        follow(api, "serviceaccounts", to(), Change::ServiceAccount, stop()),
    );
    let api = Api::all_with(client.clone(), &namespaced);
    process.spawn(
        "the watch of policies",
        follow(api, "tokenscopepolicies", to(), Change::Policy, stop()),
    );
    let api = Api::all_with(client.clone(), &cluster);
    process.spawn(
        "the watch of cluster policies",
        follow(api, "clustertokenscopepolicies", to(), Change::ClusterPolicy, stop()),
    );
    let api = Api::all(client.clone());
    process.spawn("the watch of pods", follow(api, "pods", to(), Change::Pod, stop()));
    (changes, received)
}

impl Reconciler {
    /// Runs until `stop`, and ends the writes that have begun.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut writes = Writes::new();
        let mut pacing = Pacing::default();
        let mut progress = Progress::default();
        let mut batch = Vec::new();
        let mut wake = Instant::now();
        // When what changed is looked at; the first of many changes waits for the others, however many follow.
        let mut pass_at = Instant::now();
        let mut resync = Instant::now() + self.resync;
        let mut count_at = Instant::now();
        let mut missed_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = changes.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        break;
                    }
                    let now = Timestamp::now();
                    batch.drain(..).for_each(|change| self.world.apply(change, now));
                    wake = wake.min(pass_at.max(Instant::now()));
                    if Instant::now() < wake {
                        continue;
                    }
                }
                Some(written) = writes.next(), if !writes.is_empty() => self.take_in(written, &mut pacing),
                () = self.leader.change() => {
                    self.metrics.leader.set(i64::from(self.leader.may_write()));
                    self.world.concern_all();
                    progress = Progress::default();
                    missed_at = Instant::now();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            self.heartbeat.touch();
            if let Some(what) = self.world.waits_for() {
                self.gate.close(format!("{what} not read yet"));
                wake = Instant::now() + TICK;
                continue;
            }
            let now = Timestamp::now();
            let began = Instant::now();
            if began >= pass_at && self.world.is_stale(now) {
                self.world.pass(now);
                self.metrics.passes.observe(began.elapsed().as_secs_f64());
                pass_at = Instant::now() + GATHER;
                missed_at = missed_at.min(began + PACE);
            }
            if began >= resync {
                self.world.concern_all();
                resync = began + self.resync;
            }
            if began >= count_at {
                self.count();
                count_at = began + PACE;
            }
            self.gate.open();

            wake = Instant::now() + TICK;
            if self.world.is_stale(now) {
                wake = wake.min(pass_at);
            } else if let Some(next) = self.world.next_change() {
                // Also after the clock was set, it is never longer than a tick.
                let pause = Duration::try_from(now.duration_until(next)).unwrap_or(GATHER);
                wake = wake.min(Instant::now() + pause);
            }
            if self.leader.may_write() {
                self.write_status(&writes, &mut pacing, now);
                let held_back = pacing.held_back.values().min().copied();
                if began >= missed_at {
                    missed_at = began + self.deal_with_missed(&writes, &mut progress, now);
                }
                wake = wake.min(held_back.unwrap_or(wake)).min(missed_at);
            }
        }
        while let Some(written) = writes.next().await {
            self.take_in(written, &mut pacing);
        }
        Ok(())
    }

    /// Begins writes of status where it is not what it should be.
    fn write_status(&mut self, writes: &Writes, pacing: &mut Pacing, now: Timestamp) {
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
        while writes.len() < WRITES
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
            writes.push(Box::pin(async move {
                let result = update_status::update_status(client, &name, uid.as_deref(), &wanted).await;
                Written::Status(name, Box::new(result))
            }));
        }
    }

    /// Tells of missed pods, evicts one where that is allowed, and answers how long nothing more can be done.
    fn deal_with_missed(&self, writes: &Writes, progress: &mut Progress, now: Timestamp) -> Duration {
        let world = &self.world;
        let uids: HashSet<&str> = world.missed().map(|(_, missed)| &*missed.uid).collect();
        progress.keep(|uid| uids.contains(uid));
        let mut pause = if self.evict_missed && !uids.is_empty() {
            PACE
        } else {
            TICK
        };
        for (key, missed) in world.missed() {
            if now < missed.since + missed::SETTLED {
                pause = PACE;
                continue;
            }
            if self.evict_missed && writes.len() < WRITES && progress.may_evict(missed, world.last_reviewed(), now) {
                let (client, key, uid) = (self.client.clone(), key.clone(), missed.uid.clone());
                writes.push(Box::pin(async move {
                    let result = missed::evict(client, key.clone(), uid).await;
                    Written::Eviction(key, result)
                }));
            }
            if progress.is_told(&missed.uid) {
                continue;
            }
            let Some(report) = world.report(key, now) else { continue };
            if self.reporter.capacity() < 2 {
                self.metrics.event(EventOutcome::Delayed);
                return pause.min(RETRY);
            }
            let with_owner = (report.pod.owner.as_ref()).is_some_and(|owner| progress.is_new_owner(&owner.uid));
            for notice in missed::notices(&key.0, &report, with_owner) {
                self.tell(notice);
            }
            progress.note_told(&missed.uid);
        }
        pause
    }

    fn take_in(&mut self, written: Written, pacing: &mut Pacing) {
        match written {
            Written::Status(name, result) => {
                pacing.in_flight.remove(&name);
                let outcome = match *result {
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
            Written::Eviction((namespace, pod), result) => {
                let outcome = match result {
                    Ok(()) => {
                        tracing::info!(%namespace, %pod, "evicted a pod that was created without its credentials");
                        WriteOutcome::Written
                    }
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                        WriteOutcome::Gone
                    }
                    Err(error) => {
                        tracing::warn!(%namespace, %pod, error = telemetry::chain(&error), "a pod could not be evicted");
                        WriteOutcome::Failed
                    }
                };
                self.metrics.eviction(outcome);
            }
        }
    }

    fn tell(&self, notice: Notice) {
        if self.reporter.try_send(notice).is_err() {
            self.metrics.event(EventOutcome::Delayed);
        }
    }

    fn count(&self) {
        self.metrics.pods(self.world.totals());
        let (ready, not_ready) = self.world.policies_by_readiness();
        self.metrics.policies(ready, not_ready);
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
