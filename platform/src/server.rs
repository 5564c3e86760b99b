//! The accept loop under every listener: bounded connections, nobody may be slow for ever, an orderly end.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// How much one listener takes on, and how long anything may last.
///
/// How long a request's body and its handler may take is the router's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, handshakes included. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long after the handshake the first request's headers may take.
    pub header: Duration,
    /// How long a connection may stay without a new request; it is closed between one and two times this.
    pub idle: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// How long running requests have to finish once the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            // Go's clients, the API server among them, close after 90 s: they go first, and none sends into a closing connection.
            idle: Duration::from_secs(120),
            // The API server sends every review over one connection; Go's own servers allow as many.
            streams: 250,
            drain: Duration::from_secs(20),
        }
    }
}

/// What the two sides speak on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Serves `app` until `stop`, then lets running requests finish for [`Limits::drain`] and cuts what is left.
///
/// `handshake` turns an accepted connection into what is read and written, in the connection's own task.
pub(crate) async fn serve<H, F, S>(
    listener: TcpListener,
    handshake: H,
    app: Router,
    limits: Limits,
    stop: CancellationToken,
) where
    H: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<(S, Protocol)>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut failures = 0;
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &slots)).await {
        while connections.try_join_next().is_some() {}
        let (slot, tcp) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly no file descriptors left: they come back when connections end, so trying at once is useless.
                tracing::warn!(%error, "can't accept connections");
                failures += 1;
                stop.run_until_cancelled(sleep(Duration::from_millis(10 << failures.min(7))))
                    .await;
                continue;
            }
        };
        failures = 0;
        let handshake = timeout(limits.handshake, handshake(tcp));
        // A child of its own, so that connections don't contend for the lock inside the parent at each wake-up.
        let (app, stop) = (app.clone(), stop.child_token());
        connections.spawn(async move {
            let _slot = slot;
            match handshake.await {
                Ok(Ok((stream, protocol))) => converse(stream, protocol, app, limits, stop).await,
                Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                Err(_) => tracing::debug!("handshake took too long"),
            }
        });
    }
    drop(listener);
    let drained = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "cutting connections whose requests did not finish"
        );
        connections.shutdown().await;
    }
}

/// The next connection, once one may be had.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(OwnedSemaphorePermit, TcpStream)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            // The client has left already: that says nothing about the next one.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
            Err(error) => return Err(error),
        };
        // An answer is one small write: it must not wait for the acknowledgement of the one before.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "answers may be delayed");
        }
        return Ok((slot, tcp));
    }
}

async fn converse<S>(stream: S, protocol: Protocol, app: Router, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Arc::new(AtomicU64::new(0));
    let app = Counted {
        app,
        requests: requests.clone(),
    };
    let stream = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            // `supervise` keeps the time, for both protocols and without a timer for each request. The buffer bounds the
            // headers; bodies pass through it in pieces, which under TLS are of 16 KiB anyway.
            builder.header_read_timeout(None).max_buf_size(64 << 10);
            supervise(builder.serve_connection(stream, app), &requests, limits, stop).await;
        }
        Protocol::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(10))
                .max_concurrent_streams(limits.streams);
            supervise(builder.serve_connection(stream, app), &requests, limits, stop).await;
        }
    }
}

/// Drives a connection to its end, and ends it where it brings no first request, has been idle too long, or `stop` comes.
async fn supervise<C>(connection: C, requests: &AtomicU64, limits: Limits, stop: CancellationToken)
where
    C: GracefulConnection<Error: Display>,
{
    let mut connection = pin!(connection);
    let mut check = pin!(sleep(limits.header));
    let mut seen = 0;
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
            () = check.as_mut() => {
                let count = requests.load(Ordering::Relaxed);
                if count == 0 || closing {
                    tracing::debug!(requests = count, "cutting a connection that takes too long");
                    return;
                }
                closing = count == seen;
                seen = count;
            }
        }
        if closing {
            connection.as_mut().graceful_shutdown();
        }
        let next = match (requests.load(Ordering::Relaxed), closing) {
            (0, _) => limits.header,
            (_, true) => limits.drain,
            (_, false) => limits.idle,
        };
        check.as_mut().reset(Instant::now() + next);
    }
}

/// The router, and how many requests a connection has brought it.
struct Counted {
    app: Router,
    requests: Arc<AtomicU64>,
}

impl hyper::service::Service<Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.app.clone().call(request)
    }
}
