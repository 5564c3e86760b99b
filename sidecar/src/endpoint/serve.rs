//! The HTTP server.
//!
//! One answer to GET needs no HTTP library: the head is read, answered, and the connection closed (see also docs/adr/0010). Whoever is in
//! the pod may connect, so a connection that has not proved itself has a short time and gives way to newer ones, and each container has
//! places of its own to wait.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::answer::{HttpAnswer, answer, authorized};
use super::authorization::Authorization;
use super::given_tokens::GivenToken;
use super::giver::TokenGiver;
use super::kept::Kept;
use super::request::{BadRequest, LONGEST_HEAD, RequestHead, head_length, read};
use super::token_request::{self, TokenCaller, is_for_token};
use crate::clock::Clock;

/// The most connections of an address whose request is read, or which are about to end; beyond it the oldest one gives way.
const MOST_UNPROVEN: usize = 32;
/// The longest time in which a request may come. SDKs give up after one or two seconds.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// The most requests of a container that wait for its first credentials or are answered.
const MOST_PROVEN: usize = 32;
/// The longest wait for credentials that are being asked for. The JavaScript SDK gives up after a second.
const PATIENCE: Duration = Duration::from_millis(800);
/// The longest time in which an answer may be taken, and the connection closed by the client.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// The most bytes that are read behind a request, and thrown away.
const MOST_DRAINED: u64 = 64 << 10;

/// A container, as the server knows it.
pub(super) struct Container {
    pub(super) name: Box<str>,
    pub(super) authorization: Authorization,
    pub(super) kept: watch::Receiver<Kept>,
    tokens: Vec<GivenToken>,
    places: Semaphore,
}

impl Container {
    pub(super) fn new(
        name: Box<str>,
        authorization: Authorization,
        kept: watch::Receiver<Kept>,
        tokens: Vec<GivenToken>,
    ) -> Self {
        Self {
            name,
            authorization,
            kept,
            tokens,
            places: Semaphore::new(MOST_PROVEN),
        }
    }
}

/// The server behind all addresses.
pub(super) struct Server<C> {
    pub(super) containers: Vec<Container>,
    /// The tokens that every process of the pod is given by audience.
    pub(super) common_tokens: Vec<GivenToken>,
    /// `None` where none are given.
    pub(super) giver: Option<TokenGiver<C>>,
    pub(super) clock: Arc<C>,
}

/// A connection that is there.
struct Accepted {
    task: AbortHandle,
    /// True while the request of a container that has proved itself is answered.
    is_served: Arc<AtomicBool>,
}

impl Accepted {
    fn may_give_way(&self) -> bool {
        !self.is_served.load(Ordering::Relaxed)
    }
}

/// Serves at one address until it is dropped.
pub(super) async fn serve<C: Clock>(listener: TcpListener, server: Arc<Server<C>>) {
    let mut tasks = JoinSet::new(); // dropped, and so ended, with this function
    let mut accepted: VecDeque<Accepted> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors are left, or so
            continue;
        };
        while tasks.try_join_next().is_some() {}
        accepted.retain(|connection| !connection.task.is_finished());
        let may_give_way = accepted.iter().filter(|connection| connection.may_give_way()).count();
        if may_give_way >= MOST_UNPROVEN
            && let Some(oldest) = accepted.iter().position(Accepted::may_give_way)
            && let Some(oldest) = accepted.remove(oldest)
        {
            oldest.task.abort();
        }
        let is_served = Arc::new(AtomicBool::new(false));
        let connection = serve_one(stream, Arc::clone(&server), Arc::clone(&is_served));
        let task = tasks.spawn(async move {
            let _ = connection.await; // an error means that the client has closed the connection
        });
        accepted.push_back(Accepted { task, is_served });
        // The new task is polled before the next connection is taken. Otherwise whoever opens many connections at once could make
        // others' give way whose request is there already and was never read.
        tokio::task::yield_now().await;
    }
}

async fn serve_one<C: Clock>(
    mut stream: TcpStream,
    server: Arc<Server<C>>,
    is_served: Arc<AtomicBool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = match timeout(READ_DEADLINE, read_head(&mut stream)).await {
        Ok(head) => match head? {
            Some(head) => server.answer(&head, &is_served).await,
            None => HttpAnswer::bad_request(BadRequest::TooLong),
        },
        Err(_) => HttpAnswer::error(
            "408 Request Timeout",
            "RequestTimeout",
            "the request did not come within 2 s",
        ),
    };
    is_served.store(false, Ordering::Relaxed);
    let write = async {
        stream.write_all(&answer.bytes()).await?;
        stream.shutdown().await?;
        // What is left unread would take the answer away from the client (RFC 9112, section 9.6).
        tokio::io::copy(&mut stream.take(MOST_DRAINED), &mut tokio::io::sink()).await
    };
    match timeout(WRITE_DEADLINE, write).await {
        Ok(written) => written.map(drop),
        Err(_) => Ok(()),
    }
}

/// The head of the request; `None` if it is too long. What comes behind it is not read.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let seen = bytes.len();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = head_length(&bytes, seen) {
            bytes.truncate(length);
            return Ok((length <= LONGEST_HEAD).then_some(bytes));
        }
        if bytes.len() > LONGEST_HEAD {
            return Ok(None);
        }
    }
}

impl<C: Clock> Server<C> {
    async fn answer(&self, head: &[u8], is_served: &AtomicBool) -> HttpAnswer {
        let request = match read(head) {
            Ok(request) => request,
            Err(why) => return HttpAnswer::bad_request(why),
        };
        if let Some(giver) = self.giver.as_ref().filter(|_| is_for_token(&request)) {
            return self.give(giver, &request, is_served).await;
        }
        let known = self
            .containers
            .iter()
            .map(|container| (&*container.name, &container.authorization));
        let place = authorized(&request, known);
        // A place is one of a container.
        let container = match place.map(|place| self.containers.get(place)) {
            Ok(Some(container)) => container,
            Ok(None) => return HttpAnswer::not_yet(),
            Err(refused) => return refused,
        };
        let Ok(_place) = container.places.try_acquire() else {
            return HttpAnswer::busy();
        };
        is_served.store(true, Ordering::Relaxed);
        let mut kept = container.kept.clone();
        let wait = async {
            loop {
                if let Some(answer) = answer(&kept.borrow_and_update(), self.clock.now()) {
                    return answer;
                }
                if kept.changed().await.is_err() {
                    return HttpAnswer::not_yet(); // the process ends
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| HttpAnswer::not_yet())
    }

    /// The answer to a request for a token by audience.
    async fn give(&self, giver: &TokenGiver<C>, request: &RequestHead<'_>, is_served: &AtomicBool) -> HttpAnswer {
        let known = self
            .containers
            .iter()
            .map(|container| (&container.authorization, &*container.tokens));
        let granted = match token_request::granted(request, known, &self.common_tokens) {
            Ok(granted) => granted,
            Err(refused) => return refused,
        };
        let places = match granted.caller {
            TokenCaller::Container(place) => self.containers.get(place).map(|container| &container.places),
            TokenCaller::Anybody => Some(&giver.places),
        };
        let Some(Ok(_place)) = places.map(Semaphore::try_acquire) else {
            return HttpAnswer::busy();
        };
        is_served.store(true, Ordering::Relaxed);
        giver.give(&granted).await
    }
}
