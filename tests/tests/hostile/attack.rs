//! What an attack is, how it is run, and what must hold meanwhile.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::field::{Field, HOSTILE};
use crate::health::{FAILURE_THRESHOLD, Health, Watch};
use crate::honest::Window;
use crate::report::Outcome;

/// How much longer honest creates may take than when it is quiet.
const MOST_ADDED: Duration = Duration::from_millis(250);

/// How often quiet and attacked creates are measured; the median counts.
const WINDOWS: usize = 3;

/// Of the honest load before the attack, each window.
const QUIET: Duration = Duration::from_millis(700);

/// A request of an attacker that takes longer is given up.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

/// A refusal that an attacker provokes is no longer than this, in bytes.
const LONGEST_REFUSAL: usize = 32 << 10;

/// What an attacker's request may add to the logs on average, in bytes; and what may be there besides.
const LOGGED_PER_REQUEST: u64 = 4 << 10;
const LOGGED_ANYWAY: u64 = 512 << 10;

/// A worker's doing, in a task of its own.
pub(crate) type Doing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
/// A judgement, in the harness's own task.
pub(crate) type Judging = Pin<Box<dyn Future<Output = Result<()>>>>;

/// An attack. Its functions are `|field, round| Box::pin(async move { … })`.
pub(crate) struct Attack {
    /// A sentence that is true when the test passes.
    pub(crate) name: &'static str,
    /// The finding of the review that it repeats; empty for one that nobody reported.
    pub(crate) finding: &'static str,
    workers: usize,
    strike: fn(Arc<Field>, Round) -> Doing,
    judge: fn(Arc<Field>) -> Judging,
}

/// One worker's part of an attack.
#[derive(Clone)]
pub(crate) struct Round {
    /// Which of the workers, from 0.
    pub(crate) worker: usize,
    until: Instant,
    tally: Arc<Mutex<Tally>>,
}

/// What came of an attacker's requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How often there was which answer, or none.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Pods that ask and were admitted without their grant.
    unreviewed: Vec<String>,
    longest_refusal: usize,
}

impl Attack {
    /// An attack by so many workers at once.
    pub(crate) fn new(
        finding: &'static str,
        name: &'static str,
        workers: usize,
        strike: fn(Arc<Field>, Round) -> Doing,
    ) -> Self {
        Self {
            name,
            finding,
            workers,
            strike,
            judge: |_| Box::pin(async { Ok(()) }),
        }
    }

    /// What must be true at its end, before anything is cleaned up.
    pub(crate) fn judged_by(self, judge: fn(Arc<Field>) -> Judging) -> Self {
        Self { judge, ..self }
    }

    /// Measures the honest load, attacks, measures it meanwhile, and judges.
    pub(crate) async fn run(&self, field: &Arc<Field>) -> Outcome {
        let mut failures = Vec::new();
        let quiet = windows(field, QUIET).await;
        if let Err(error) = field.forget_peaks() {
            failures.push(format!("{error:#}"));
        }
        let watch = Watch::begin(field);
        let length = length();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut workers = JoinSet::new();
        for worker in 0..self.workers {
            let round = Round {
                worker,
                until: Instant::now() + length,
                tally: Arc::clone(&tally),
            };
            workers.spawn_on((self.strike)(Arc::clone(field), round), &field.attackers);
        }
        let attacked = windows(field, length / WINDOWS as u32).await;
        failures.extend(ended(workers).await);
        if let Err(error) = (self.judge)(Arc::clone(field)).await {
            failures.push(format!("{error:#}"));
        }
        let health = watch.end().await;
        match field.recover().await {
            Ok(stuck) => failures.extend(stuck),
            Err(error) => failures.push(format!("nothing works any more: {error:#}")),
        }
        let tally = std::mem::take(&mut *guard(&tally));
        let mut outcome = Outcome {
            name: self.name,
            finding: self.finding,
            quiet: [median(&quiet, 50), median(&quiet, 99)],
            attacked: [median(&attacked, 50), median(&attacked, 99)],
            refused: attacked.iter().map(|window| window.refused.len()).sum(),
            unreviewed: attacked.iter().map(|window| window.unreviewed.len()).sum::<usize>() + tally.unreviewed.len(),
            health,
            answers: tally.answers.clone(),
            failures,
        };
        judge(field, &attacked, &tally, &mut outcome);
        outcome
    }
}

impl Round {
    /// Whether the attack still goes on.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Sleeps so long, or until the attack ends.
    pub(crate) async fn pause(&self, milliseconds: u64) {
        let wanted = Instant::now() + Duration::from_millis(milliseconds);
        tokio::time::sleep_until(wanted.min(self.until)).await;
    }

    /// Sleeps four times as long as the last request took, within bounds: what the API server takes for a large pod with or
    /// without us shall not be what honest creates wait for.
    pub(crate) async fn pace(&self, took: Duration) {
        self.pause((took.as_millis() as u64 * 4).clamp(100, 2000)).await;
    }

    /// Counts what came of a request.
    pub(crate) fn count(&self, answer: impl Into<String>) {
        *guard(&self.tally).answers.entry(answer.into()).or_default() += 1;
    }

    /// Creates a pod of the hostile namespace.
    pub(crate) async fn create(&self, author: &Client, pod: impl Into<Vec<u8>>) -> Result<()> {
        self.create_in(author, HOSTILE, pod).await
    }

    /// Creates a pod. One that asks and is admitted must have its grant.
    pub(crate) async fn create_in(&self, author: &Client, namespace: &str, pod: impl Into<Vec<u8>>) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let Some((status, body)) = self.send(author, http::Method::POST, &path, pod).await? else {
            return Ok(());
        };
        if status == 201
            && let Ok(pod) = serde_json::from_slice::<Value>(&body)
            && let Some(fault) = without_its_grant(&pod)
        {
            guard(&self.tally).unreviewed.push(fault);
        }
        Ok(())
    }

    /// Sends a request to the API server and counts its answer. None if there was no answer.
    pub(crate) async fn send(
        &self,
        client: &Client,
        method: http::Method,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<Option<(u16, Vec<u8>)>> {
        let kind = if method == http::Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(Body::from(body.into()))?;
        let exchange = async {
            let answer = client.send(request).await?;
            let status = answer.status().as_u16();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes().to_vec()))
        };
        match tokio::time::timeout(REQUEST_DEADLINE, exchange).await {
            Ok(Ok((status, body))) => {
                self.count(status.to_string());
                // What the API server itself finds wrong with a large object is its own long text, with 422.
                if status == 403 {
                    let mut tally = guard(&self.tally);
                    tally.longest_refusal = tally.longest_refusal.max(body.len());
                }
                Ok(Some((status, body)))
            }
            Ok(Err(_)) => {
                self.count("broken");
                Ok(None)
            }
            Err(_) => {
                self.count("no answer");
                Ok(None)
            }
        }
    }
}

/// How long an attack lasts.
fn length() -> Duration {
    Duration::from_secs(if is_nightly() { 60 } else { 4 })
}

/// Whether attacks last long enough, and the programs are those of the images, for times to be judged.
///
/// In the short run they are shown only: the API server, etcd, the attackers and unoptimised programs share the processors there,
/// and what an attack costs the API server itself is most of what is measured.
fn is_nightly() -> bool {
    std::env::var_os("TOKENSCOPE_NIGHTLY").is_some_and(|value| value == "1")
}

async fn windows(field: &Arc<Field>, length: Duration) -> Vec<Window> {
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        windows.push(field.honest.window(length).await);
    }
    windows
}

/// Waits for the workers. An attack that can't be made is a failure of the test.
async fn ended(mut workers: JoinSet<Result<()>>) -> Vec<String> {
    let mut failures = Vec::new();
    let all = async {
        while let Some(worker) = workers.join_next().await {
            match worker {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("the attack could not be made: {error:#}")),
                Err(error) => failures.push(format!("the attack could not be made: {error}")),
            }
        }
    };
    // What still waits for an answer is dropped with the set.
    let _ = tokio::time::timeout(REQUEST_DEADLINE, all).await;
    failures.truncate(1);
    failures
}

fn median(windows: &[Window], percent: usize) -> Duration {
    let mut values: Vec<Duration> = windows.iter().map(|window| window.percentile(percent)).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// A pod that asks for a role by an annotation of its own and has none, or one that nobody allows.
fn without_its_grant(pod: &Value) -> Option<String> {
    let annotations = pod["metadata"]["annotations"].as_object()?;
    let containers = pod["spec"]["containers"].as_array()?;
    let asks = annotations.keys().any(|key| {
        let rest = key.strip_prefix("tokenscope.io/role-arn");
        // A role for a container that isn't there asks for nothing.
        rest.is_some_and(|rest| rest.is_empty() || containers.iter().any(|one| one["name"] == rest[1..]))
    });
    let opted_out = annotations
        .get("tokenscope.io/inject")
        .is_some_and(|value| value == "false");
    let spec = pod["spec"].to_string();
    let granted = spec.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && spec.contains(":role/shop/");
    (asks && !opted_out && !granted).then(|| format!("admitted without its grant: {}", pod["metadata"]["name"]))
}

fn judge(field: &Field, attacked: &[Window], tally: &Tally, outcome: &mut Outcome) {
    let (failures, mut late) = (&mut outcome.failures, Vec::new());
    let added = outcome.attacked[1].saturating_sub(outcome.quiet[1]);
    if added > MOST_ADDED {
        late.push(format!(
            "the p99 of honest creates rose by {added:.0?}, and may by {MOST_ADDED:?}"
        ));
    }
    if let Some(refused) = attacked.iter().find_map(|window| window.refused.first()) {
        late.push(format!(
            "{} honest creates were refused, first {}",
            outcome.refused,
            short(refused)
        ));
    }
    let unreviewed = attacked
        .iter()
        .flat_map(|window| &window.unreviewed)
        .chain(&tally.unreviewed);
    if let Some(first) = unreviewed.clone().next() {
        failures.push(format!(
            "{} pods were admitted unreviewed, first {}",
            unreviewed.count(),
            short(first)
        ));
    }
    if tally.answers.is_empty() {
        failures.push("the attack sent nothing".to_owned());
    }
    if tally.longest_refusal > LONGEST_REFUSAL {
        failures.push(format!(
            "a refusal had {} bytes, and may have {LONGEST_REFUSAL}",
            tally.longest_refusal
        ));
    }
    let requests: u64 = tally.answers.values().sum();
    for (health, limit) in outcome.health.iter().zip(field.limits()) {
        let Health {
            name,
            restarts,
            peak,
            failed_in_a_row,
            last_failure,
            logged,
        } = health;
        if *restarts > 0 {
            failures.push(format!("{name} ended {restarts} times"));
        }
        if *peak > limit {
            failures.push(format!("{name} took {} MiB, and may take {}", peak >> 20, limit >> 20));
        }
        if *failed_in_a_row >= FAILURE_THRESHOLD {
            let last = short(last_failure);
            late.push(format!("{name} failed {failed_in_a_row} probes in a row, last {last}"));
        }
        if *logged > LOGGED_ANYWAY + requests * LOGGED_PER_REQUEST {
            failures.push(format!("{name} logged {} kB about {requests} requests", logged / 1000));
        }
    }
    if is_nightly() {
        failures.append(&mut late);
    }
    for note in late {
        println!("    not judged in a short run: {note}");
    }
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

fn guard(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
