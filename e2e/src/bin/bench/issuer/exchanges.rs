//! Exchanges on connections that stay open, from one thread, and the same requests answered by a constant.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokenscope_core::Algorithm;
use tokenscope_e2e::eventually;
use tokenscope_issuer::keys::{SigningKey, algorithm_name};
use tokenscope_xtask::progress::Step;
use tokio::task::JoinSet;

use super::cluster::{Caller, KNOWN};
use super::{ALGORITHMS, Arguments, STS, of};
use crate::baseline;
use crate::load::{self, Connection, TlsServer, nanoseconds, percentile};
use crate::setup::Baseline;

/// A pod may have 60 tokens at once and two a second, for all numbers of connections together.
const OF_A_POD: usize = 48;
/// How often each server has its turn.
const TURNS: u32 = 4;

/// A server under one load.
#[derive(Debug, Serialize)]
pub(super) struct Exchanges {
    /// The algorithm of its tokens, or `constant`.
    pub(super) server: &'static str,
    pub(super) connections: u16,
    pub(super) count: usize,
    pub(super) per_second: f64,
    /// Of the constant answers a second over as many connections.
    pub(super) ratio: f64,
    /// Of what all cores together sign with this algorithm, and do nothing else.
    pub(super) of_bare_signing: Option<f64>,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Exchanges {
    pub(super) fn row(&self) -> Vec<String> {
        let bare = self.of_bare_signing;
        vec![
            self.server.to_owned(),
            self.connections.to_string(),
            format!("{:.0}", self.per_second),
            format!("{:.2}", self.ratio),
            bare.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
        ]
    }
}

/// A server on a port of 127.0.0.1.
pub(super) fn server(port: u16, authorities: &str) -> Result<TlsServer> {
    Ok(TlsServer {
        address: ([127, 0, 0, 1], port).into(),
        name: "127.0.0.1".try_into()?,
        config: load::client_config(authorities.as_bytes(), None)?,
    })
}

/// Waits until a pod of each algorithm gets its token.
pub(super) async fn wait_until_known(issuer: &TlsServer, callers: &[Caller]) -> Result<()> {
    for algorithm in ALGORITHMS {
        for caller in of(callers, algorithm).take(1) {
            let request = request("/token", caller);
            eventually(KNOWN, "the issuer knows the pods", async || {
                let mut connection = Connection::open(issuer).await?;
                let (status, body) = connection.exchange(&request).await?;
                ensure!(status == 200, "{status} {}", String::from_utf8_lossy(body));
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// A server, and the requests of its pods.
struct Contender<'a> {
    name: &'static str,
    algorithm: Option<Algorithm>,
    server: &'a TlsServer,
    requests: Arc<[Arc<[u8]>]>,
    /// How often each request may be sent in one turn.
    of_a_pod: usize,
    done: Round,
}

/// Measures each algorithm and the constant answer over each number of connections. They take turns, so that whatever else the
/// machine does falls on all of them.
pub(super) fn measure(
    arguments: &Arguments,
    issuer: &TlsServer,
    constant: &Baseline,
    callers: &[Caller],
) -> Result<Vec<Exchanges>> {
    let turn = Duration::from_secs(arguments.seconds) / TURNS;
    let constant = constant.server()?;
    let requests = |path, algorithm| of(callers, algorithm).map(|caller| request(path, caller)).collect();
    let mut all = Vec::new();
    for &connections in &arguments.connections {
        let step = Step::start(&format!("exchanging over {connections} connections"), None);
        let mut contenders = vec![Contender {
            name: "constant",
            algorithm: None,
            server: &constant,
            requests: requests(baseline::TOKEN, ALGORITHMS[0]),
            of_a_pod: usize::MAX,
            done: Round::default(),
        }];
        contenders.extend(ALGORITHMS.map(|algorithm| Contender {
            name: algorithm_name(algorithm),
            algorithm: Some(algorithm),
            server: issuer,
            requests: requests("/token", algorithm),
            of_a_pod: (OF_A_POD / arguments.connections.len() / TURNS as usize).max(1),
            done: Round::default(),
        }));
        for _ in 0..TURNS {
            for contender in &mut contenders {
                contender.take_turn(connections, turn)?;
            }
        }
        all.extend(lines(&mut contenders, connections)?);
        step.done("");
    }
    Ok(all)
}

fn lines(contenders: &mut [Contender<'_>], connections: u16) -> Result<Vec<Exchanges>> {
    let reference = contenders
        .first()
        .map_or(f64::NAN, |constant| constant.done.per_second());
    let line = |contender: &mut Contender<'_>| {
        contender.done.latencies.sort_unstable();
        let bare = contender.algorithm.map(bare_signing).transpose()?;
        let of_bare_signing = bare.map(|bare| contender.done.per_second() / bare);
        Ok(contender
            .done
            .line(contender.name, connections, reference, of_bare_signing))
    };
    contenders.iter_mut().map(line).collect()
}

/// What all turns have brought.
#[derive(Default)]
struct Round {
    /// Nanoseconds, one an answer.
    latencies: Vec<u32>,
    elapsed: Duration,
}

impl Round {
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn line(&self, server: &'static str, connections: u16, reference: f64, of_bare_signing: Option<f64>) -> Exchanges {
        Exchanges {
            server,
            connections,
            count: self.latencies.len(),
            per_second: self.per_second(),
            ratio: self.per_second() / reference,
            of_bare_signing,
            p50_us: percentile(&self.latencies, 50),
            p99_us: percentile(&self.latencies, 99),
        }
    }
}

impl Contender<'_> {
    /// One thread sends on all connections until the time is over or each pod has had its share.
    fn take_turn(&mut self, connections: u16, length: Duration) -> Result<()> {
        ensure!(
            !self.requests.is_empty(),
            "no pod exchanges with {}: give more --callers",
            self.name
        );
        let load = || -> Result<Round> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let requests = Arc::clone(&self.requests);
            runtime.block_on(send(self.server, requests, connections, self.of_a_pod, length))
        };
        let turn = std::thread::scope(|scope| {
            let load = scope.spawn(load);
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.done.latencies.extend(turn.latencies);
        self.done.elapsed += turn.elapsed;
        Ok(())
    }
}

async fn send(
    server: &TlsServer,
    requests: Arc<[Arc<[u8]>]>,
    connections: u16,
    of_a_pod: usize,
    length: Duration,
) -> Result<Round> {
    let most = requests.len().saturating_mul(of_a_pod);
    let next = Arc::new(AtomicUsize::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(server).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < length {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= most {
                    break;
                }
                let sent = Instant::now();
                let (status, body) = connection.exchange(&requests[number % requests.len()]).await?;
                latencies.push(nanoseconds(sent.elapsed()));
                ensure!(status == 200, "{status} {}", String::from_utf8_lossy(body));
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task??);
    }
    Ok(Round {
        latencies,
        elapsed: started.elapsed(),
    })
}

/// How many tokens all cores together sign a second, each thread with the same key and nothing else to do.
fn bare_signing(algorithm: Algorithm) -> Result<f64> {
    const LENGTH: Duration = Duration::from_millis(500);
    let key = SigningKey::generate(algorithm)?;
    let payload = format!("{{\"filler\":\"{}\"}}", "x".repeat(700));
    let cores = std::thread::available_parallelism()?.get();
    let started = Instant::now();
    let sign = || -> Result<usize> {
        let mut count = 0;
        while started.elapsed() < LENGTH {
            key.token(&payload)?;
            count += 1;
        }
        Ok(count)
    };
    let counts: Vec<Result<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(sign)).collect();
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .map(|count| count.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let count: usize = counts.into_iter().sum::<Result<usize>>()?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// A request as the sidecar makes it, on a connection that stays open.
fn request(path: &str, caller: &Caller) -> Arc<[u8]> {
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={}\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
         &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience={STS}",
        caller.subject
    );
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Accept: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    format!("{head}{body}").into_bytes().into()
}
