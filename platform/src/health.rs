//! The process's liveness, readiness and metrics: `/livez`, `/readyz` and `/metrics` in plain HTTP.
//!
//! The routes are axum's; the listener is the one under every port, because this port can be reached by strangers too.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::freshness::Freshness;
pub use crate::gates::{Gate, Gates, Heartbeat};
use crate::listen;
use crate::metrics::{self, Registry};
use crate::server::{self, ConnectionMetrics, Limits, Protocol};

/// Probes and scrapes are short requests with short answers, from the kubelet and a few collectors of metrics.
const LIMITS: Limits = Limits {
    connections: 64,
    handshake: Duration::from_secs(2),
    header: Duration::from_secs(2),
    request: Duration::from_secs(2),
    // Prometheus keeps its connection from one scrape to the next, a minute later.
    idle: Duration::from_secs(120),
    streams: 1,
    drain: Duration::from_secs(1),
};

/// The reason why the process can't be observed.
#[derive(Debug, thiserror::Error)]
#[error("can't serve /livez, /readyz and /metrics on {address}")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// The state that the three paths answer from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// For `/readyz` and `/livez`.
    pub gates: Gates,
    /// For `/readyz`: decisions on what stale watches have told are out of date.
    pub freshness: Freshness,
    /// For `/metrics`.
    pub registry: Registry,
    /// Cancelled at the stop: from then on the process is not ready, and not restarted for being slow to stop.
    pub stop: CancellationToken,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `end` is cancelled; answers the address that it is bound to.
///
/// It has a thread, a runtime and connections of its own, so that nothing that the process's work does delays a probe.
pub fn start(address: SocketAddr, observed: Observed, end: CancellationToken) -> Result<SocketAddr, Error> {
    let failed = |source| Error { address, source };
    let (starting, started) = std::sync::mpsc::sync_channel(1);
    let serve = move || {
        let bound = listener(address).and_then(|(runtime, listener)| Ok((listener.local_addr()?, runtime, listener)));
        let (bound, runtime, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => return drop(starting.send(Err(error))),
        };
        // Who started this waits for the word.
        drop(starting.send(Ok(bound)));
        let metrics = ConnectionMetrics::registered(&observed.registry, "health");
        let plain = |tcp| std::future::ready(Ok((tcp, Protocol::Http1)));
        runtime.block_on(server::serve(listener, plain, router(observed), LIMITS, metrics, end));
    };
    let thread = std::thread::Builder::new().name("health".to_owned());
    thread.spawn(serve).map_err(failed)?;
    let bound = started
        .recv()
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(failed)?;
    tracing::info!(address = %bound, "serving /livez, /readyz and /metrics");
    Ok(bound)
}

fn listener(address: SocketAddr) -> io::Result<(Runtime, TcpListener)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(async { listen::bind(address) })?;
    Ok((runtime, listener))
}

/// The three paths, for a process that serves them itself.
pub fn router(observed: Observed) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(encoded))
        .with_state(observed)
}

async fn livez(State(observed): State<Observed>) -> Response {
    let stale = if observed.stop.is_cancelled() {
        None
    } else {
        observed.gates.stale(Instant::now())
    };
    verdict(stale)
}

async fn readyz(State(observed): State<Observed>) -> Response {
    let waiting = if observed.stop.is_cancelled() {
        Some("stopping\n".to_owned())
    } else {
        observed.gates.waiting().or_else(|| observed.freshness.stale())
    };
    verdict(waiting)
}

async fn encoded(State(observed): State<Observed>) -> Response {
    match observed.registry.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n").into_response(),
    }
}

fn verdict(problems: Option<String>) -> Response {
    match problems {
        None => "ok\n".into_response(),
        Some(lines) => (StatusCode::SERVICE_UNAVAILABLE, lines).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokenscope_fixtures::retry_while;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Longer than a machine stalls.
    const LONG: Duration = Duration::from_secs(60);

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn observed() -> (SocketAddr, Observed) {
        let observed = Observed {
            gates: Gates::default(),
            freshness: Freshness::default(),
            registry: Registry::new(),
            stop: CancellationToken::new(),
        };
        let address = start(([127, 0, 0, 1], 0).into(), observed.clone(), CancellationToken::new()).unwrap();
        (address, observed)
    }

    #[tokio::test]
    async fn ready_is_when_every_gate_is_open_and_until_the_stop() {
        let (address, observed) = observed();
        assert_eq!(get(address, "/readyz").await, (503, "waiting for start\n".to_owned()));

        let policies = observed.gates.gate("policies");
        let certificate = observed.gates.gate("certificate");
        certificate.close("the secret is not there");
        assert_eq!(
            get(address, "/readyz").await,
            (
                503,
                "waiting for certificate: the secret is not there\nwaiting for policies: not yet\n".to_owned()
            )
        );
        certificate.open();
        assert_eq!(
            get(address, "/readyz").await,
            (503, "waiting for policies: not yet\n".to_owned())
        );
        policies.open();
        assert_eq!(get(address, "/readyz").await, (200, "ok\n".to_owned()));
        observed.gates.gate("policies");
        assert_eq!(
            get(address, "/readyz").await.0,
            200,
            "asking for a gate again does not close it"
        );
        policies.close("the watch is broken");
        assert_eq!(
            get(address, "/readyz").await,
            (503, "waiting for policies: the watch is broken\n".to_owned())
        );
        policies.open();
        observed.stop.cancel();
        assert_eq!(get(address, "/readyz").await, (503, "stopping\n".to_owned()));
    }

    #[tokio::test]
    async fn alive_is_while_heartbeats_are_young() {
        let (address, observed) = observed();
        assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
        let heartbeat = observed.gates.heartbeat("drift", Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (status, text) = get(address, "/livez").await;
        assert_eq!(status, 503);
        assert!(
            text.starts_with("drift: no sign of life for ") && text.ends_with(" s, at most 0 s are allowed\n"),
            "{text}"
        );
        // Before the answer the machine may stall for longer than is allowed.
        let alive = async {
            heartbeat.touch();
            while get(address, "/livez").await.0 != 200 {
                heartbeat.touch();
            }
        };
        tokio::time::timeout(LONG, alive).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        observed.stop.cancel();
        assert_eq!(
            get(address, "/livez").await.0,
            200,
            "a process that stops is not restarted for it"
        );
    }

    #[tokio::test]
    async fn the_metrics_are_served_as_openmetrics() {
        let (address, _) = observed();
        let (status, text) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let (address, observed) = observed();
        let error = start(address, observed, CancellationToken::new()).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn idle_and_slow_connections_do_not_keep_a_probe_out() {
        let (address, _) = observed();
        let took = async || {
            let mut others = Vec::new();
            for begun in ["", "GET /livez HT"].repeat(100) {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(begun.as_bytes()).await.unwrap();
                others.push(stream);
            }
            let began = Instant::now();
            assert_eq!(get(address, "/livez").await.0, 200);
            began.elapsed()
        };
        // A machine that stalls disturbs some of the attempts, and connections that keep a probe out do so in each.
        let longest = Duration::from_secs(1);
        let took = retry_while(|took: &Duration| *took >= longest, 5, took).await;
        assert!(took < longest, "it was late each time, and took {took:?} at last");
    }

    #[test]
    fn a_probe_is_answered_while_every_thread_that_works_is_taken() {
        let working = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (address, _) = observed();
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..4 {
            let ended = ended.clone();
            working.spawn(async move {
                let _ = ended.lock().unwrap().recv();
            });
        }
        let probing = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let probe = async { tokio::time::timeout(LONG, get(address, "/livez")).await };
        assert_eq!(probing.block_on(probe).unwrap().0, 200);
        drop(ends);
        working.shutdown_background();
    }
}
