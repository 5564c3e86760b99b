//! The accept loop under every listener: bounded connections, none may be slow for ever or keep another out, an orderly end.
//!
//! axum's `serve` and axum-server bound neither the number of connections nor which one gives way to a new one; hyper-util's
//! graceful end is used. There is no figure for it: the reason is what a stranger on the pod network can hold, not speed
//! (docs/adr/0004).

mod connection;
mod crowd;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use connection::ConnectionContext;
use crowd::Crowd;
pub use crowd::{ConnectionMetrics, GiveWay};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The most connections that may end in good order at a time, to give way. Beyond it they are cut at once.
const MOST_LINGERING: usize = 64;

/// The most that one listener takes on, and the longest that anything may last.
///
/// The router has a deadline for its handlers besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, handshakes included. For a further one the one that has been idle the longest gives way.
    pub connections: usize,
    /// The longest that a TLS handshake may take.
    pub handshake: Duration,
    /// The longest that the first request's headers may take after the handshake.
    pub header: Duration,
    /// The longest that a request may take until its answer was written: beyond, it is stuck in a body that does not come or
    /// an answer that is not taken, and its connection is cut, between one and two times this.
    pub request: Duration,
    /// The longest that a connection may stay without a request.
    pub idle: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// The time that running requests have to finish once the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            // An API server waits for 30 seconds at most.
            request: Duration::from_secs(30),
            // Go's clients, the API server among them, close after 90 s: they go first, and none sends into a closing connection.
            idle: Duration::from_secs(120),
            // The API server sends every review over one connection; Go's own servers allow as many.
            streams: 250,
            drain: Duration::from_secs(20),
        }
    }
}

/// An extension of each request: the address that its connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub IpAddr);

/// The protocol of a connection.
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
    metrics: ConnectionMetrics,
    stop: CancellationToken,
) where
    H: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<(S, Protocol)>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let crowd = Crowd::new(limits.connections, metrics);
    let lingering = Arc::new(Semaphore::new(MOST_LINGERING));
    let mut connections = JoinSet::new();
    let mut failures = 0;
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener)).await {
        while connections.try_join_next().is_some() {}
        let tcp = match accepted {
            Ok(tcp) => tcp,
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
        let peer = tcp.peer_addr().ok().map(|address| Peer(address.ip().to_canonical()));
        let Some(Some(place)) = stop.run_until_cancelled(crowd.place()).await else {
            break;
        };
        let connection = ConnectionContext {
            place,
            peer,
            limits,
            lingering: lingering.clone(),
            // A child of its own, so that connections don't contend for the lock inside the parent at each wake-up.
            stop: stop.child_token(),
        };
        connections.spawn(connection.run(handshake(tcp), app.clone()));
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

/// The next connection.
async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
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
        return Ok(tcp);
    }
}
