//! A server that counts who asks STS when, and can be told to fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokenscope_sts::TimeSource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::faulty_sts::credentials_at;

/// Who answers while the server doesn't fail.
#[derive(Clone, Copy)]
pub(crate) enum AnsweredBy {
    /// The server itself, with credentials of an hour that are good for nothing.
    Itself,
    /// The server at this address.
    Sts(SocketAddr),
}

/// What the server does.
pub(crate) struct Plan {
    pub(crate) clock: TimeSource,
    pub(crate) answered_by: AnsweredBy,
    /// It answers with status 503 for so long.
    pub(crate) fails_for: SignedDuration,
    /// It answers nobody before so many ask at the same time.
    pub(crate) waits_for: usize,
}

/// The server.
pub(crate) struct CountingSts {
    address: SocketAddr,
    start: Timestamp,
    inner: Arc<Inner>,
}

struct Inner {
    plan: Plan,
    start: Timestamp,
    calls: Mutex<Calls>,
    /// The most calls that were open at the same time.
    most_open: watch::Sender<usize>,
}

#[derive(Default)]
struct Calls {
    times: Vec<Timestamp>,
    /// The calls that are not answered yet, by the session's name.
    open: BTreeMap<String, usize>,
    all_open: usize,
    most_open_for_one: usize,
}

impl CountingSts {
    pub(crate) async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let start = (plan.clock)();
        let counting = Self {
            address: listener.local_addr().unwrap(),
            start,
            inner: Arc::new(Inner {
                plan,
                start,
                calls: Mutex::default(),
                most_open: watch::Sender::new(0),
            }),
        };
        let inner = Arc::clone(&counting.inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&inner)));
            }
        });
        counting
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The most calls for one session that were open at the same time.
    pub(crate) fn most_open_for_one(&self) -> usize {
        self.inner.calls.lock().unwrap().most_open_for_one
    }

    /// The calls in each span of so many seconds from the start on, up to the last one that has any.
    pub(crate) fn calls_in_each(&self, seconds: f64) -> Vec<usize> {
        let mut each = Vec::new();
        for call in &self.inner.calls.lock().unwrap().times {
            let span = (call.duration_since(self.start).as_secs_f64() / seconds) as usize;
            each.resize(each.len().max(span + 1), 0);
            each[span] += 1;
        }
        each
    }
}

impl Inner {
    fn opened(&self, name: &str) -> Timestamp {
        let mut calls = self.calls.lock().unwrap();
        let now = (self.plan.clock)();
        calls.times.push(now);
        let open = calls.open.entry(name.to_owned()).or_default();
        *open += 1;
        let open = *open;
        calls.most_open_for_one = calls.most_open_for_one.max(open);
        calls.all_open += 1;
        let all_open = calls.all_open;
        self.most_open.send_if_modified(|most| {
            let is_more = all_open > *most;
            *most = all_open.max(*most);
            is_more
        });
        now
    }

    fn closed(&self, name: &str) {
        let mut calls = self.calls.lock().unwrap();
        *calls.open.get_mut(name).unwrap() -= 1;
        calls.all_open -= 1;
    }

    async fn answer(&self, request: &[u8], now: Timestamp) -> Vec<u8> {
        let (status, body) = if now < self.start + self.plan.fails_for {
            (503, String::new())
        } else {
            match self.plan.answered_by {
                AnsweredBy::Itself => credentials_at("t", now),
                AnsweredBy::Sts(address) => {
                    let mut sts = TcpStream::connect(address).await.unwrap();
                    sts.write_all(request).await.unwrap();
                    return read(&mut sts).await;
                }
            }
        };
        let length = body.len();
        format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
    }
}

async fn answer(mut stream: TcpStream, inner: Arc<Inner>) {
    let request = read(&mut stream).await;
    let text = String::from_utf8_lossy(&request);
    let (_, name) = text.split_once("RoleSessionName=").unwrap();
    let name = name.split('&').next().unwrap().to_owned();
    let now = inner.opened(&name);
    let mut most_open = inner.most_open.subscribe();
    let _ = most_open.wait_for(|most| *most >= inner.plan.waits_for).await;
    let answer = inner.answer(&request, now).await;
    // Before it is sent: right after it the next call may come.
    inner.closed(&name);
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

/// A request or an answer: its head, and the body of the length that stands there.
async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        if let Some(end) = message.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
            let (_, length) = head.split_once("content-length:").unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if message.len() >= end + 4 + length {
                return message;
            }
        }
        // Who doesn't wait for the answer any more has gone with the test.
        if stream.read_buf(&mut message).await.unwrap_or(0) == 0 {
            return std::future::pending().await;
        }
    }
}
