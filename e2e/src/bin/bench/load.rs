//! The load: prebuilt requests over TLS connections that stay open, from one thread, and each answer compared.
//!
//! It shares the cores with what it measures, so it does as little as it can: HTTP/1.1 is written and read by hand, and its
//! own processor time is part of the result.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long one answer may take; no server here should need a hundredth of it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// An answer that is longer than this is not read.
const LONGEST_ANSWER: usize = 8 << 20;

/// After so many requests a round ends early: their times are kept.
const MOST_REQUESTS: usize = 200_000;

/// A server that takes requests over TLS.
#[derive(Clone)]
pub(crate) struct TlsServer {
    /// The address at which it listens.
    pub(crate) address: SocketAddr,
    /// The name that its certificate must have.
    pub(crate) name: ServerName<'static>,
    /// The authorities to trust, and our own certificate.
    pub(crate) config: Arc<ClientConfig>,
}

/// HTTP/1.1 over TLS, trusting `authorities` and, if asked for, with a certificate and key of our own. All PEM.
pub(crate) fn client_config(authorities: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate.context("an authority is not PEM")?)?;
    }
    ensure!(!roots.is_empty(), "there is no certificate among the authorities");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(key)?,
        )?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A POST of JSON, ready to be sent.
pub(crate) fn post(host: &str, path: &str, body: &[u8]) -> Arc<[u8]> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request.into()
}

/// An open connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    /// The body of an answer that came in pieces.
    joined: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: &TlsServer) -> Result<Self> {
        let tcp = TcpStream::connect(server.address)
            .await
            .with_context(|| format!("can't connect to {}", server.address))?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&server.config));
        let handshake = connector.connect(server.name.clone(), tcp);
        let stream = tokio::time::timeout(ANSWER_DEADLINE, handshake).await??;
        Ok(Self {
            stream,
            received: Vec::with_capacity(64 << 10),
            joined: Vec::new(),
        })
    }

    /// Sends a request and waits for its answer: the status, and the body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.received.clear();
        loop {
            let length = self.stream.read_buf(&mut self.received).await?;
            ensure!(length > 0, "the connection was closed before the answer was whole");
            ensure!(self.received.len() < LONGEST_ANSWER, "the answer is too long");
            // As a range, because a borrow would outlive the loop.
            if let Some((status, body)) = answer(&self.received, &mut self.joined)? {
                let body = match body {
                    Body::Whole { from } => &self.received[from..],
                    Body::Joined => &self.joined,
                };
                return Ok((status, body));
            }
        }
    }
}

enum Body {
    /// From here to the end of what was received.
    Whole { from: usize },
    /// Put together from pieces.
    Joined,
}

/// Status and body, once the answer is whole (RFC 9112 sections 4 and 6).
fn answer(received: &[u8], joined: &mut Vec<u8>) -> Result<Option<(u16, Body)>> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, from) = (std::str::from_utf8(&received[..head])?, head + 4);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("an answer has a status")?
        .parse()?;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.trim().parse()?;
            return Ok((received.len() >= from + length).then_some((status, Body::Whole { from })));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(join_chunks(&received[from..], joined)?.then_some((status, Body::Joined)));
        }
    }
    bail!("an answer says neither how long it is nor that it comes in chunks:\n{head}")
}

/// True if all chunks are there; then they are in `joined` (RFC 9112 section 7.1).
fn join_chunks(mut rest: &[u8], joined: &mut Vec<u8>) -> Result<bool> {
    joined.clear();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else {
            return Ok(false);
        };
        let size = std::str::from_utf8(&rest[..end])?
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let size = usize::from_str_radix(size, 16)?;
        ensure!(size < LONGEST_ANSWER, "a chunk is too long");
        let Some(chunk) = rest.get(end + 2..end + 2 + size + 2) else {
            return Ok(false);
        };
        if size == 0 {
            return Ok(true);
        }
        joined.extend_from_slice(&chunk[..size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

/// A server under load: its connections, what they send, and what must come back.
pub(crate) struct ServerLoad {
    connections: Vec<Connection>,
    request: Arc<[u8]>,
    answer: Arc<[u8]>,
}

impl ServerLoad {
    /// Opens the connections, and takes the first answer for the one that every other must equal, once `check` likes it.
    pub(crate) async fn connect(
        server: &TlsServer,
        connections: usize,
        request: &Arc<[u8]>,
        check: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(server).await?);
        }
        let first = open.first_mut().context("there is at least one connection")?;
        let (status, body) = first.exchange(request).await?;
        ensure!(
            status == 200,
            "the answer's status is {status}: {}",
            String::from_utf8_lossy(body)
        );
        check(body).with_context(|| format!("in the answer {}", String::from_utf8_lossy(body)))?;
        let answer = body.into();
        Ok(Self {
            connections: open,
            request: Arc::clone(request),
            answer,
        })
    }

    /// The length of an answer's body.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer.len()
    }

    /// Sends one request after the other on every connection at once.
    pub(crate) fn round(&mut self, runtime: &Runtime, length: Duration) -> Result<Round> {
        let before = own_processor_time();
        let started = Instant::now();
        let most = MOST_REQUESTS / self.connections.len();
        let latencies = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for mut connection in self.connections.drain(..) {
                let (request, answer) = (Arc::clone(&self.request), Arc::clone(&self.answer));
                tasks.spawn(async move {
                    let mut latencies = Vec::with_capacity(8192);
                    while started.elapsed() < length && latencies.len() < most {
                        let sent = Instant::now();
                        let (status, body) = connection.exchange(&request).await?;
                        latencies.push(nanoseconds(sent.elapsed()));
                        ensure!(
                            status == 200 && *body == *answer,
                            "another answer: {status} {}",
                            String::from_utf8_lossy(body)
                        );
                    }
                    anyhow::Ok((connection, latencies))
                });
            }
            let mut all = Vec::new();
            let joined = async {
                while let Some(task) = tasks.join_next().await {
                    let (connection, latencies) = task??;
                    self.connections.push(connection);
                    all.push(latencies);
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(length + ANSWER_DEADLINE, joined)
                .await
                .context("an answer took too long")??;
            anyhow::Ok(all.concat())
        })?;
        let own = own_processor_time()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        Ok(Round {
            latencies,
            elapsed: started.elapsed(),
            own_processor_time: own,
        })
    }
}

/// The result of one round.
pub(crate) struct Round {
    /// Nanoseconds, one an answer.
    pub(crate) latencies: Vec<u32>,
    /// The time that it lasted.
    pub(crate) elapsed: Duration,
    /// The processor time of this thread; the kernel may not tell.
    pub(crate) own_processor_time: Option<Duration>,
}

/// Over four seconds is over four seconds.
pub(crate) fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// The value below which `percent` of the sorted values are, in microseconds.
pub(crate) fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds) / 1000.0)
}

/// Processor time of this thread.
fn own_processor_time() -> Option<Duration> {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(
        statistics.split_whitespace().next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(received: &str) -> Option<(u16, String)> {
        let mut joined = Vec::new();
        let (status, body) = answer(received.as_bytes(), &mut joined).unwrap()?;
        let body = match body {
            Body::Whole { from } => received.as_bytes()[from..].to_vec(),
            Body::Joined => joined,
        };
        Some((status, String::from_utf8(body).unwrap()))
    }

    #[test]
    fn an_answer_is_whole_when_all_of_its_length_is_there() {
        assert_eq!(whole("HTTP/1.1 200 OK\r\ncontent-le"), None);
        assert_eq!(whole("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc"), None);
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 4\r\n\r\nabcd"),
            Some((200, "abcd".to_owned()))
        );
    }

    #[test]
    fn an_answer_in_chunks_is_put_together() {
        let head = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(whole(&format!("{head}3\r\nabc\r\n2;x=y\r\nde")), None);
        assert_eq!(whole(&format!("{head}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n")), None);
        assert_eq!(
            whole(&format!("{head}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")),
            Some((201, "abcde".to_owned()))
        );
    }

    #[test]
    fn percentiles_are_of_sorted_values() {
        let values: Vec<u32> = (1..=100).map(|n| n * 1000).collect();
        assert!((percentile(&values, 50) - 51.0).abs() < 0.1);
        assert!((percentile(&values, 99) - 100.0).abs() < 0.1);
        assert!(percentile(&[], 50).is_nan());
    }
}
