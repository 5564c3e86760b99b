//! What an attack is, and how it is run.

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
use crate::health::Watch;
use crate::honest::Window;
use crate::judgement;
use crate::report::{LargePods, Outcome, Tally, Times};

/// How often quiet and attacked creates are measured; the median counts.
const WINDOWS: usize = 3;

/// Of the honest load before the attack, each window.
const QUIET: Duration = Duration::from_millis(700);

/// A request of an attacker that takes longer is given up.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);

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
    /// Whether it goes to the API server, so that it can be made without tokenscope too.
    pub(crate) through_api_server: bool,
    /// Whether there are honest large pods beside it too.
    pub(crate) beside_large_pods: bool,
    workers: usize,
    prepare: fn(Arc<Field>) -> Judging,
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
            through_api_server: false,
            beside_large_pods: false,
            workers,
            prepare: |_| Box::pin(async { Ok(()) }),
            strike,
            judge: |_| Box::pin(async { Ok(()) }),
        }
    }

    /// It goes to the API server.
    pub(crate) fn through_api_server(self) -> Self {
        Self {
            through_api_server: true,
            ..self
        }
    }

    /// It takes what large reviews need: honest large pods are created beside it too, and must be granted.
    pub(crate) fn beside_large_pods(self) -> Self {
        Self {
            beside_large_pods: true,
            ..self
        }
    }

    /// What the attackers do before, after the quiet times were measured. However long it takes, memory and probes are judged.
    pub(crate) fn prepared_by(self, prepare: fn(Arc<Field>) -> Judging) -> Self {
        Self { prepare, ..self }
    }

    /// What must be true at its end, before anything is cleaned up.
    pub(crate) fn judged_by(self, judge: fn(Arc<Field>) -> Judging) -> Self {
        Self { judge, ..self }
    }

    /// Measures the honest load, attacks, measures it meanwhile, and judges all but the times.
    pub(crate) async fn run(&self, field: &Arc<Field>) -> Outcome {
        let mut failures = Vec::new();
        let quiet = self.windows(field, QUIET).await;
        if let Err(error) = field.forget_peaks() {
            failures.push(format!("{error:#}"));
        }
        let watch = Watch::begin(field);
        if let Err(error) = (self.prepare)(Arc::clone(field)).await {
            failures.push(format!("the attack could not be prepared: {error:#}"));
        }
        let (workers, tally) = self.strike(field);
        let attacked = self.windows(field, length() / WINDOWS as u32).await;
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
            times: Times::of(&quiet, &attacked),
            large: self.beside_large_pods.then(|| LargePods::of(&attacked)),
            without: None,
            refused: attacked.iter().flat_map(|window| window.refused.clone()).collect(),
            unreviewed: attacked.iter().map(|window| window.unreviewed.len()).sum::<usize>() + tally.unreviewed.len(),
            health,
            answers: tally.answers.clone(),
            failures,
        };
        judgement::judge(field, &attacked, &tally, &mut outcome);
        outcome
    }

    /// Makes the same attack where tokenscope was taken away: what the honest creates take then is not its doing.
    pub(crate) async fn run_without(&self, field: &Arc<Field>) -> Result<(Times, usize)> {
        let quiet = self.windows(field, QUIET).await;
        (self.prepare)(Arc::clone(field)).await?;
        let (workers, _) = self.strike(field);
        let attacked = self.windows(field, length() / WINDOWS as u32).await;
        ended(workers).await;
        field.clean_up().await?;
        let failed = attacked.iter().map(|window| window.refused.len()).sum();
        Ok((Times::of(&quiet, &attacked), failed))
    }

    /// Measures the honest load for so long, several times.
    async fn windows(&self, field: &Arc<Field>, length: Duration) -> Vec<Window> {
        let mut windows = Vec::new();
        for _ in 0..WINDOWS {
            windows.push(field.honest.window(length, self.beside_large_pods).await);
        }
        windows
    }

    /// Starts the workers.
    fn strike(&self, field: &Arc<Field>) -> (JoinSet<Result<()>>, Arc<Mutex<Tally>>) {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let until = Instant::now() + length();
        let mut workers = JoinSet::new();
        for worker in 0..self.workers {
            let round = Round {
                worker,
                until,
                tally: Arc::clone(&tally),
            };
            workers.spawn_on((self.strike)(Arc::clone(field), round), &field.attackers);
        }
        (workers, tally)
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

    /// Sleeps as long as the last request took, so that the attackers' own creates are half of what the API server does.
    pub(crate) async fn pace(&self, took: Duration) {
        self.pause(took.as_millis() as u64).await;
    }

    /// Counts what came of a request.
    pub(crate) fn count(&self, answer: impl Into<String>) {
        *guard(&self.tally).answers.entry(answer.into()).or_default() += 1;
    }

    /// Creates a pod of the hostile namespace.
    pub(crate) async fn create(&self, author: &Client, pod: impl Into<Vec<u8>>) -> Result<()> {
        self.create_in(author, HOSTILE, pod).await
    }

    /// Creates a pod. One that is admitted must have the grant that it needs, and the mark of a review where that is required.
    pub(crate) async fn create_in(&self, author: &Client, namespace: &str, pod: impl Into<Vec<u8>>) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let Some((status, body)) = self.send(author, http::Method::POST, &path, pod).await? else {
            return Ok(());
        };
        if status == 201
            && let Ok(pod) = serde_json::from_slice::<Value>(&body)
            && let Some(fault) = judgement::got_past(&pod)
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
    let nightly = std::env::var_os("TOKENSCOPE_NIGHTLY").is_some_and(|value| value == "1");
    Duration::from_secs(if nightly { 60 } else { 4 })
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

fn guard(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
