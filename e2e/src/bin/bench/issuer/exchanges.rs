//! Exchanges on connections that stay open, from one thread, and beside them the same requests answered by a constant, what they
//! take without a connection, and SPIRE.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokenscope_core::Algorithm;
use tokenscope_e2e::eventually;
use tokenscope_e2e::spire::Spire;
use tokenscope_issuer::keys::algorithm_name;
use tokenscope_xtask::progress::Step;
use tokio::task::JoinSet;

use super::cluster::{Caller, KNOWN};
use super::in_process::{InProcess, repeat};
use super::rows::{Exchanges, Round, Target, rows};
use super::{Arguments, STS, agent, of};
use crate::baseline;
use crate::load::{self, Connection, TlsServer, nanoseconds};

/// A pod may have 60 tokens at once and two a second, for all numbers of connections together, and some pods share a limit.
const OF_A_POD: usize = 16;
/// How often each benchmark has its turn.
const TURNS: u32 = 4;
/// The length of a payload of the bench's policies.
const PAYLOAD: usize = 700;

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
    for algorithm in Algorithm::ALL {
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

/// The servers that take turns.
pub(super) struct Servers<'a> {
    pub(super) issuer: &'a TlsServer,
    pub(super) constant: &'a TlsServer,
    pub(super) in_process: &'a InProcess,
    /// None where it does not run.
    pub(super) spire: Option<&'a Spire>,
}

/// What a benchmark does in its turn.
enum Work<'a> {
    /// Requests to a server.
    Requests {
        server: &'a TlsServer,
        requests: Arc<[Arc<[u8]>]>,
        /// How often each request may be sent in one turn.
        of_a_pod: usize,
    },
    /// Something without a server, which is told how often it was done before.
    Here(Box<dyn Fn(usize) -> Result<()> + Sync + 'a>),
    /// Questions to SPIRE's agent at its socket, for audiences that are new or not.
    Agent { socket: PathBuf, signed: bool },
}

struct Benchmark<'a> {
    target: Target,
    algorithm: Option<Algorithm>,
    work: Work<'a>,
    done: Round,
}

/// Measures all benchmarks over each number of connections. They take turns, so that whatever else the machine does falls on all of
/// them.
pub(super) fn measure(arguments: &Arguments, servers: &Servers<'_>, callers: &[Caller]) -> Result<Vec<Exchanges>> {
    let turn = Duration::from_secs(arguments.seconds) / TURNS;
    let of_a_pod = (OF_A_POD / arguments.connections.len() / TURNS as usize).max(1);
    let mut all = Vec::new();
    for &connections in &arguments.connections {
        let step = Step::start(&format!("exchanging over {connections} connections"), None);
        let mut benchmarks = benchmarks(servers, callers, of_a_pod)?;
        for _ in 0..TURNS {
            for benchmark in &mut benchmarks {
                benchmark.take_turn(connections, turn)?;
            }
        }
        let rounds = benchmarks.into_iter();
        let rounds = rounds.map(|benchmark| (benchmark.target, benchmark.algorithm, benchmark.done));
        all.extend(rows(rounds.collect(), connections));
        step.done("");
    }
    Ok(all)
}

fn benchmarks<'a>(servers: &Servers<'a>, callers: &'a [Caller], of_a_pod: usize) -> Result<Vec<Benchmark<'a>>> {
    let requests = |path, algorithm| of(callers, algorithm).map(|caller| request(path, caller)).collect();
    let benchmark = |target, algorithm, work| Benchmark {
        target,
        algorithm,
        work,
        done: Round::default(),
    };
    let constant = Work::Requests {
        server: servers.constant,
        requests: requests(baseline::TOKEN, Algorithm::ALL[0]),
        of_a_pod: usize::MAX,
    };
    let mut all = vec![benchmark(Target::Constant, None, constant)];
    let in_process = servers.in_process;
    for algorithm in Algorithm::ALL {
        let subjects: Vec<&str> = of(callers, algorithm).map(|caller| caller.subject.as_str()).collect();
        ensure!(
            !subjects.is_empty(),
            "no pod exchanges with {}: give more --callers",
            algorithm_name(algorithm)
        );
        let payload = format!("{{\"filler\":\"{}\"}}", "x".repeat(PAYLOAD));
        let sign = move |_: usize| in_process.sign(algorithm, &payload);
        let exchange = move |number: usize| in_process.exchange(subjects[number % subjects.len()]);
        let asked = Work::Requests {
            server: servers.issuer,
            requests: requests("/token", algorithm),
            of_a_pod,
        };
        let algorithm = Some(algorithm);
        all.push(benchmark(Target::BareSigning, algorithm, Work::Here(Box::new(sign))));
        all.push(benchmark(Target::InProcess, algorithm, Work::Here(Box::new(exchange))));
        all.push(benchmark(Target::Issuer, algorithm, asked));
    }
    if let Some(spire) = servers.spire {
        for (target, signed) in [(Target::SpireRemembered, false), (Target::SpireSigned, true)] {
            let work = Work::Agent {
                socket: spire.socket(),
                signed,
            };
            // SPIRE's own default is a key on P-256.
            all.push(benchmark(target, Some(Algorithm::ES256), work));
        }
    }
    Ok(all)
}

impl Benchmark<'_> {
    /// One thread asks on all connections until the time is over or each pod has had its share; what needs no connection has a thread
    /// for each, as far as there are cores.
    fn take_turn(&mut self, connections: u16, length: Duration) -> Result<()> {
        let turn = match &self.work {
            Work::Here(work) => {
                let cores = std::thread::available_parallelism()?.get();
                repeat(cores.min(connections.into()), length, &**work)?
            }
            Work::Requests {
                server,
                requests,
                of_a_pod,
            } => alone(|| send(server, Arc::clone(requests), connections, *of_a_pod, length))?,
            Work::Agent { socket, signed } => alone(|| agent::ask(socket, connections, *signed, length))?,
        };
        self.done.add(turn);
        Ok(())
    }
}

/// Runs the load on a thread of its own.
fn alone<F: Future<Output = Result<Round>>>(load: impl FnOnce() -> F + Send) -> Result<Round> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load())
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(run);
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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
    Round::of(tasks, started).await
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
