//! Requests for credentials as SDKs send them, a connection each, and a server that answers a constant in the same way.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::load::{nanoseconds, percentile};

/// The longest wait for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The most requests of a turn and connection: each takes a port for a while.
const MOST_REQUESTS: usize = 5_000;
/// How many turns each server has.
const TURNS: u32 = 3;

/// Answers to so many connections at a time.
#[derive(Debug, Serialize)]
pub(super) struct Answers {
    pub(super) connections: usize,
    pub(super) count: usize,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// The same of a thread that reads a request and writes a constant.
    pub(super) constant_p50_us: f64,
    pub(super) constant_per_second: f64,
    /// Answers a second against those of the constant.
    pub(super) ratio: f64,
}

/// Asks the sidecar and the constant by turns, for this long in all.
pub(super) fn measure(sidecar: SocketAddr, request: &[u8], connections: usize, length: Duration) -> Result<Answers> {
    let constant = Constant::start(&answer(sidecar, request)?)?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let turn = length / (2 * TURNS);
    for _ in 0..TURNS {
        ours.add(ask(sidecar, request, connections, turn)?);
        theirs.add(ask(constant.address, request, connections, turn)?);
    }
    ours.nanoseconds.sort_unstable();
    theirs.nanoseconds.sort_unstable();
    Ok(Answers {
        connections,
        count: ours.nanoseconds.len(),
        per_second: ours.per_second(),
        p50_us: percentile(&ours.nanoseconds, 50),
        p99_us: percentile(&ours.nanoseconds, 99),
        constant_p50_us: percentile(&theirs.nanoseconds, 50),
        constant_per_second: theirs.per_second(),
        ratio: ours.per_second() / theirs.per_second(),
    })
}

/// What the requests of some turns took.
#[derive(Default)]
struct Times {
    nanoseconds: Vec<u32>,
    elapsed: Duration,
}

impl Times {
    fn add(&mut self, other: Self) {
        self.nanoseconds.extend(other.nanoseconds);
        self.elapsed += other.elapsed;
    }

    fn per_second(&self) -> f64 {
        self.nanoseconds.len() as f64 / self.elapsed.as_secs_f64()
    }
}

fn ask(server: SocketAddr, request: &[u8], connections: usize, length: Duration) -> Result<Times> {
    let started = Instant::now();
    let times = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| ask_on(server, request, started + length)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a client ended")?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    Ok(Times {
        nanoseconds: times.concat(),
        elapsed: started.elapsed(),
    })
}

fn ask_on(server: SocketAddr, request: &[u8], until: Instant) -> Result<Vec<u32>> {
    let mut times = Vec::with_capacity(MOST_REQUESTS);
    while times.len() < MOST_REQUESTS && Instant::now() < until {
        let asked = Instant::now();
        answer(server, request)?;
        times.push(nanoseconds(asked.elapsed()));
    }
    Ok(times)
}

/// The whole answer to one request, which must be a good one.
pub(super) fn answer(server: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(4096);
    stream.read_to_end(&mut answer)?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    ensure!(
        line == b"HTTP/1.1 200 OK",
        "the answer was {}",
        String::from_utf8_lossy(line)
    );
    Ok(answer)
}

/// A thread that answers each connection with the same bytes, until it is dropped.
struct Constant {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Constant {
    fn start(answer: &[u8]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, answer) = (Arc::clone(&stop), answer.to_vec());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that gets no answer fails.
                let _ = stream.and_then(|mut stream| {
                    stream.set_nodelay(true)?;
                    if stream.read(&mut [0; 4096])? == 0 {
                        return Ok(());
                    }
                    stream.write_all(&answer)
                });
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Constant {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // it waits for one
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
