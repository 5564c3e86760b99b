//! A relay in front of the stand-in for STS. It knows how long each answer took, and can shorten sessions, of which STS gives none below
//! 15 minutes, so that renewals come within seconds.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// The longest request or answer that is passed on, in bytes.
const LONGEST: usize = 64 << 10;
/// The longest time that one call may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The relay. It ends when it is dropped.
pub(super) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    sts: SocketAddr,
    /// The seconds that a session lasts; 0: what STS says.
    life: AtomicI64,
    /// How long each answer took.
    answers: Mutex<Vec<Duration>>,
}

impl Relay {
    /// Listens on a port of its own, for calls that the server at this URL answers.
    pub(super) async fn start(sts_url: &str) -> Result<Self> {
        let sts = sts_url
            .strip_prefix("http://")
            .context("the stand-in speaks plain HTTP")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let state = Arc::new(State {
            sts: sts.parse()?,
            life: AtomicI64::new(0),
            answers: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let task = tokio::spawn(relay(listener, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on sessions last this many seconds.
    pub(super) fn shorten(&self, seconds: i64) {
        self.state.life.store(seconds, Ordering::Relaxed);
    }

    /// How long each answer took until now.
    pub(super) fn answers(&self) -> Vec<Duration> {
        let answers = self.state.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(listener: TcpListener, state: Arc<State>) {
    let mut calls = JoinSet::new(); // dropped, and so ended, with this function
    while let Ok((stream, _)) = listener.accept().await {
        while calls.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        calls.spawn(async move {
            // A caller that gets no answer says so itself.
            let _ = timeout(DEADLINE, pass_on(stream, &state)).await;
        });
    }
}

async fn pass_on(mut caller: TcpStream, state: &State) -> Result<()> {
    let started = Instant::now();
    let request = request(&mut caller).await?;
    let mut sts = TcpStream::connect(state.sts).await?;
    sts.write_all(&request).await?;
    let mut answer = Vec::new();
    sts.take(LONGEST as u64).read_to_end(&mut answer).await?;
    let life = state.life.load(Ordering::Relaxed);
    if life > 0 {
        answer = shortened(&answer, life)?;
    }
    caller.write_all(&answer).await?;
    caller.shutdown().await?;
    let mut answers = state.answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.push(started.elapsed());
    Ok(())
}

/// A request with its body.
async fn request(caller: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let read = caller.read_buf(&mut bytes).await?;
        ensure!(read > 0 && bytes.len() <= LONGEST, "no whole request");
        if is_whole(&bytes)? {
            return Ok(bytes);
        }
    }
}

/// True if the head of a request has come, and as much of the body as it says.
fn is_whole(bytes: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(false);
    };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
    Ok(body.len() >= length)
}

/// The answer with the end of a session that lasts so many seconds.
fn shortened(answer: &[u8], life: i64) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer has a head")?;
    let (before, rest) = body.split_once("<Expiration>").context("there is a session")?;
    let (_, after) = rest.split_once("</Expiration>").context("a session ends")?;
    let end = Timestamp::now() + SignedDuration::from_secs(life);
    let body = format!("{before}<Expiration>{end:.0}</Expiration>{after}");
    let status = head.lines().next().unwrap_or_default();
    let length = body.len();
    Ok(
        format!("{status}\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}
