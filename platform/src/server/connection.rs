//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::routing::future::RouteFuture;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::crowd::{Activity, ConnectionSlot, GiveWay, RunningRequest};
use super::{Limits, Peer, Protocol};

/// The time that an idle connection has to end in good order when it gives way: a request that is sent meanwhile would fail.
const GOODBYE: Duration = Duration::from_millis(100);

/// The context of a connection besides its bytes.
pub(super) struct ConnectionContext {
    pub(super) place: ConnectionSlot,
    /// The peer that connected.
    pub(super) peer: Option<Peer>,
    pub(super) limits: Limits,
    /// A permit for each connection that has given its place away and still says goodbye.
    pub(super) lingering: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

impl ConnectionContext {
    pub(super) async fn run<F, S>(self, handshake: F, app: Router)
    where
        F: Future<Output = io::Result<(S, Protocol)>>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = tokio::select! {
            shaken = timeout(self.limits.handshake, handshake) => shaken,
            () = self.place.evicted() => return,
        };
        match shaken {
            Ok(Ok((stream, protocol))) => self.converse(stream, protocol, app).await,
            Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
            Err(_) => tracing::debug!("handshake took too long"),
        }
    }

    async fn converse<S>(self, stream: S, protocol: Protocol, app: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let app = ObservedRouter {
            app,
            activity: self.place.activity().clone(),
            give_way: self.place.give_way(),
            peer: self.peer,
        };
        let stream = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                // `supervise` keeps the time, for both protocols and without a timer for each request. The buffer bounds the
                // headers; bodies pass through it in pieces, which under TLS are of 16 KiB anyway.
                builder.header_read_timeout(None).max_buf_size(64 << 10);
                self.supervise(builder.serve_connection(stream, app)).await;
            }
            Protocol::Http2 => {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(Duration::from_secs(30))
                    .keep_alive_timeout(Duration::from_secs(10))
                    .max_concurrent_streams(self.limits.streams);
                self.supervise(builder.serve_connection(stream, app)).await;
            }
        }
    }

    /// Drives a connection to its end, and ends it where it brings no first request, is stuck in one, has been idle too long
    /// or must give way, or where `stop` comes.
    async fn supervise<C>(self, connection: C)
    where
        C: GracefulConnection<Error: Display>,
    {
        let Self {
            place,
            limits,
            lingering,
            stop,
            ..
        } = self;
        let activity = place.activity().clone();
        activity.touch();
        let mut connection = pin!(connection);
        let mut check = pin!(sleep(limits.header.min(limits.request)));
        let mut turned = Instant::now();
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection failed");
                    }
                    return;
                }
                () = stop.cancelled(), if !closing => closing = true,
                () = place.evicted() => break,
                () = check.as_mut() => {
                    // One stuck request is enough, also where others come and go beside it.
                    let stuck = turned.elapsed() >= limits.request && {
                        turned = Instant::now();
                        activity.turn()
                    };
                    let overdue = !activity.is_busy() && activity.still_for() >= patience(&activity, &limits);
                    if closing || stuck || overdue && activity.is_newcomer() {
                        tracing::debug!("cutting a connection that takes too long");
                        return;
                    }
                    closing = overdue;
                }
            }
            let next = if closing {
                connection.as_mut().graceful_shutdown();
                limits.drain
            } else {
                next_check(&activity, &limits, turned)
            };
            check.as_mut().reset(Instant::now() + next);
        }
        let idle = !activity.is_busy() && !activity.is_newcomer();
        drop(place);
        if idle && let Ok(_lingers) = lingering.try_acquire() {
            connection.as_mut().graceful_shutdown();
            // Whoever does not close in time is cut.
            let _ = timeout(GOODBYE, connection).await;
        }
    }
}

/// The time until a connection that is not closing is looked at again.
fn next_check(activity: &Activity, limits: &Limits, turned: Instant) -> Duration {
    let left = patience(activity, limits).saturating_sub(activity.still_for());
    let turn = limits.request.saturating_sub(turned.elapsed());
    if activity.is_busy() { turn } else { left.min(turn) }.max(Duration::from_millis(1))
}

/// The longest time that a connection may be without a request.
fn patience(activity: &Activity, limits: &Limits) -> Duration {
    if activity.is_newcomer() {
        limits.header
    } else {
        limits.idle
    }
}

/// The router, and what its requests say of the connection.
struct ObservedRouter {
    app: Router,
    activity: Activity,
    give_way: GiveWay,
    peer: Option<Peer>,
}

impl hyper::service::Service<Request<Incoming>> for ObservedRouter {
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.give_way.clone());
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        Answering {
            running: Some(self.activity.request()),
            answer: self.app.clone().call(request),
        }
    }
}

/// A request on its way to its answer.
struct Answering {
    answer: RouteFuture<Infallible>,
    running: Option<RunningRequest>,
}

impl Future for Answering {
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(answer) = ready!(Pin::new(&mut self.answer).poll(context));
        let running = self.running.take();
        Poll::Ready(Ok(answer.map(|body| ObservedBody {
            body,
            running: running.map(Arc::new),
        })))
    }
}

/// An answer's body: the request runs until its last piece was written, not only until the protocol's buffers took it.
struct ObservedBody {
    body: Body,
    running: Option<Arc<RunningRequest>>,
}

/// A piece of an answer.
struct Piece {
    bytes: Bytes,
    _running: Option<Arc<RunningRequest>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let observed = |bytes| {
            Bytes::from_owner(Piece {
                bytes,
                _running: self.running.clone(),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(observed))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
