//! A certificate authority, a listener with a few paths, and a client that speaks HTTP/1.1 by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokenscope_fixtures::until;
use tokenscope_platform::metrics::Registry;
use tokenscope_platform::tls::{ConnectionMetrics, Limits, ServingCertificate, serve, server_config};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "tokenscope-webhook.tokenscope-system.svc";
/// Far more than anything takes that no limit holds up, also on a machine that stalls.
pub const SOON: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Times that no test reaches, however long the machine stalls: what ends does so for another reason.
pub fn patient() -> Limits {
    Limits {
        handshake: HOUR,
        header: HOUR,
        request: HOUR,
        idle: HOUR,
        drain: HOUR,
        ..Limits::default()
    }
}

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        change(&mut leaf);
        (leaf.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub fn certificate(&self) -> Arc<ServingCertificate> {
        let (certificate, key) = self.leaf(|_| {});
        ServingCertificate::from_pem(certificate, key).unwrap()
    }

    pub async fn connect(&self, address: SocketAddr, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        self.connect_as(address, protocol, None).await
    }

    /// Trusts this authority, and shows a certificate and key in PEM.
    pub async fn connect_as(
        &self,
        address: SocketAddr,
        protocol: &[u8],
        client: Option<&(String, String)>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(NAME).unwrap(), tcp)
            .await
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
    pub registry: Registry,
    /// How many requests to `/held` have begun.
    begun: Arc<AtomicUsize>,
    /// A permit for each of them that may be answered.
    pub released: Arc<Semaphore>,
}

impl Server {
    /// Waits until so many requests to `/held` have begun.
    pub async fn has_begun(&self, requests: usize) {
        until(|| self.begun.load(Ordering::Relaxed) >= requests).await;
    }

    pub fn metric(&self, name: &str) -> u64 {
        let text = self.registry.encode().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("tokenscope_{name} ")));
        line.unwrap().parse().unwrap()
    }
}

pub async fn serving(certificate: Arc<ServingCertificate>, limits: Limits) -> Server {
    serving_with(server_config(certificate, None).unwrap(), limits).await
}

pub async fn serving_with(config: Arc<rustls::ServerConfig>, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (begun, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, awaited) = (begun.clone(), released.clone());
    let held = async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        awaited.acquire().await.unwrap().forget();
    };
    let app = Router::new()
        .route("/now", get(async || "now"))
        .route("/echo", post(async |body: String| body))
        .route("/large", get(async || "x".repeat(32 << 20)))
        .route("/held", get(held))
        .route("/never", get(std::future::pending::<()>));
    let registry = Registry::new();
    let metrics = ConnectionMetrics::registered(&registry, "test");
    let task = tokio::spawn(serve(listener, config, app, limits, metrics, stop.clone()));
    Server {
        address,
        stop,
        task,
        registry,
        begun,
        released,
    }
}

pub async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    try_send(stream, path).await.unwrap();
}

/// The same where the other side may have closed the connection by then.
pub async fn try_send(stream: &mut (impl AsyncWrite + Unpin), path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await
}

pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = [0; 1024];
    let length = timeout(SOON, stream.read(&mut bytes))
        .await
        .expect("an answer")
        .unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Waits until the other side closes the connection, without our sending anything more.
pub async fn is_closed(mut stream: impl AsyncRead + Unpin) {
    let ended = timeout(SOON, async { while stream.read_u8().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "still open after {SOON:?}");
}
