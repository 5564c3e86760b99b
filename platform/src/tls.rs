//! A TLS listener whose certificate can be replaced while it serves.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;

pub use crate::server::Limits;
use crate::server::{self, Protocol};

/// The certificate and key that a listener shows, or none yet: then every handshake fails.
#[derive(Default)]
pub struct ServingCertificate(ArcSwapOption<Pair>);

struct Pair {
    key: Arc<CertifiedKey>,
    info: Arc<CertificateInfo>,
}

/// What a serving certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// The DNS names that it is good for.
    pub dns_names: Vec<String>,
    /// Its serial number, in hexadecimal bytes with colons.
    pub serial: String,
}

/// Why a certificate and key are not taken. No text repeats anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates are not PEM.
    #[error("the certificate chain is not readable PEM")]
    Chain(#[source] rustls_pki_types::pem::Error),
    /// There is no certificate in the PEM text.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// The key is not PEM, or no private key is in it. The parser's own error may quote a line, so it is left out.
    #[error("the private key is not a private key in PEM")]
    Key,
    /// The key is of a kind that can't be used, or belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Mismatch(#[source] rustls::Error),
    /// The first certificate can't be read.
    #[error("the certificate is not readable X.509")]
    Certificate(#[source] x509_parser::error::X509Error),
    /// Its time is over, or not yet come.
    #[error("the certificate is valid from {not_before} to {not_after}, and now is {now}")]
    NotValidNow {
        /// From when it is valid.
        not_before: Timestamp,
        /// Until when it is valid.
        not_after: Timestamp,
        /// When that was looked at.
        now: Timestamp,
    },
}

impl ServingCertificate {
    /// No certificate yet.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    /// The certificate chain (leaf first) and private key in these PEM texts.
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Arc<Self>, Error> {
        let this = Self::empty();
        this.replace(certificates, key)?;
        Ok(this)
    }

    /// Shows this chain (leaf first) with this key from the next handshake on.
    ///
    /// A pair that can't be read, doesn't belong together or isn't valid now is refused, and the one before stays.
    pub fn replace(
        &self,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Arc<CertificateInfo>, Error> {
        self.replace_at(certificates.as_ref(), key.as_ref(), Timestamp::now())
    }

    /// What is shown now.
    pub fn info(&self) -> Option<Arc<CertificateInfo>> {
        self.0.load().as_ref().map(|pair| pair.info.clone())
    }

    fn replace_at(&self, certificates: &[u8], key: &[u8], now: Timestamp) -> Result<Arc<CertificateInfo>, Error> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Chain)?;
        let info = Arc::new(describe(chain.first().ok_or(Error::NoCertificate)?)?);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::Key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(Error::Mismatch)?;
        let CertificateInfo {
            not_before, not_after, ..
        } = *info;
        if now < not_before || now > not_after {
            return Err(Error::NotValidNow {
                not_before,
                not_after,
                now,
            });
        }
        self.0.store(Some(Arc::new(Pair {
            key: Arc::new(key),
            info: info.clone(),
        })));
        Ok(info)
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ServingCertificate").field(&self.info()).finish()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|pair| pair.key.clone())
    }
}

fn describe(leaf: &CertificateDer<'_>) -> Result<CertificateInfo, Error> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| match error {
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => Error::Certificate(error),
        x509_parser::nom::Err::Incomplete(_) => Error::Certificate(x509_parser::error::X509Error::InvalidCertificate),
    })?;
    let names = leaf.subject_alternative_name().map_err(Error::Certificate)?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp())
            .map_err(|_| Error::Certificate(x509_parser::error::X509Error::InvalidDate))
    };
    Ok(CertificateInfo {
        not_before: time(leaf.validity().not_before)?,
        not_after: time(leaf.validity().not_after)?,
        dns_names: names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
        serial: leaf.raw_serial_as_string(),
    })
}

/// TLS 1.3 and 1.2 with whatever certificate `resolver` holds at each handshake; HTTP/2 or HTTP/1.1 as the client likes.
pub fn server_config(resolver: Arc<ServingCertificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No resumption: clients keep their connections, and a new connection should always be checked against the certificate
    // of today, not the one of the session before.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves `app` until `stop`; answers once running requests have finished, or [`Limits::drain`] is over and they are cut.
pub async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    app: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    let handshake = move |tcp| {
        let accepted = acceptor.accept(tcp);
        async move {
            let stream = accepted.await?;
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            Ok((stream, protocol))
        }
    };
    server::serve(listener, handshake, app, limits, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    use rustls_pki_types::ServerName;
    use std::io;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    const NAME: &str = "tokenscope-webhook.tokenscope-system.svc";
    const SOON: Duration = Duration::from_secs(5);

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    impl Ca {
        fn new() -> Self {
            let mut ca = CertificateParams::default();
            ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            Self(CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap())
        }

        fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
            change(&mut leaf);
            (leaf.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }

        fn certificate(&self) -> Arc<ServingCertificate> {
            let (certificate, key) = self.leaf(|_| {});
            ServingCertificate::from_pem(certificate, key).unwrap()
        }

        async fn connect(&self, address: SocketAddr, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            let tcp = TcpStream::connect(address).await?;
            TlsConnector::from(Arc::new(config))
                .connect(ServerName::try_from(NAME).unwrap(), tcp)
                .await
        }
    }

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn serving(certificate: Arc<ServingCertificate>, limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let app = Router::new()
            .route("/now", get(async || "now"))
            .route("/later", get(async || sleep(Duration::from_millis(300)).await))
            .route("/never", get(std::future::pending::<()>));
        let task = tokio::spawn(serve(
            listener,
            server_config(certificate).unwrap(),
            app,
            limits,
            stop.clone(),
        ));
        Server { address, stop, task }
    }

    async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
    }

    async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut bytes = [0; 1024];
        let length = timeout(SOON, stream.read(&mut bytes))
            .await
            .expect("an answer")
            .unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// How long the other side keeps the connection open, without our sending anything more.
    async fn lasts(mut stream: impl AsyncRead + Unpin) -> Duration {
        let began = Instant::now();
        let ended = timeout(SOON, async { while stream.read_u8().await.is_ok() {} }).await;
        assert!(ended.is_ok(), "still open after {SOON:?}");
        began.elapsed()
    }

    #[tokio::test]
    async fn a_replaced_certificate_shows_in_new_handshakes_and_leaves_open_connections_alone() {
        let (old, new) = (Ca::new(), Ca::new());
        let certificate = old.certificate();
        let server = serving(certificate.clone(), Limits::default()).await;
        let mut open = old.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut open, "/now").await;
        assert!(receive(&mut open).await.starts_with("HTTP/1.1 200"));

        let (pem, key) = new.leaf(|_| {});
        let info = certificate.replace(pem, key).unwrap();
        assert_eq!(info.dns_names, [NAME]);
        assert_eq!(certificate.info(), Some(info));

        send(&mut open, "/now").await;
        assert!(receive(&mut open).await.ends_with("now"));
        let mut fresh = new.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut fresh, "/now").await;
        assert!(receive(&mut fresh).await.ends_with("now"));
        let refused = old.connect(server.address, b"http/1.1").await.unwrap_err();
        assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    }

    #[test]
    fn a_pair_that_does_not_fit_or_is_not_valid_now_is_refused_and_the_old_one_stays() {
        let ca = Ca::new();
        let certificate = ca.certificate();
        let before = certificate.info();
        let (pem, key) = ca.leaf(|_| {});
        let (_, foreign) = ca.leaf(|_| {});
        let (expired, expired_key) = ca.leaf(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
        let (early, early_key) = ca.leaf(|leaf| leaf.not_before = date_time_ymd(2090, 1, 1));

        assert!(matches!(certificate.replace(&pem, foreign), Err(Error::Mismatch(_))));
        assert!(matches!(
            certificate.replace(expired, expired_key),
            Err(Error::NotValidNow { .. })
        ));
        assert!(matches!(
            certificate.replace(early, early_key),
            Err(Error::NotValidNow { .. })
        ));
        assert!(matches!(certificate.replace("", &key), Err(Error::NoCertificate)));
        let cut = key.replacen("-----\n", "\n", 1);
        let unreadable = certificate.replace(&pem, &cut).unwrap_err();
        assert!(matches!(unreadable, Error::Key));
        assert!(
            !format!("{unreadable:?}").contains(&key[40..60]),
            "no part of the key in the error"
        );
        assert_eq!(certificate.info(), before);
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }

    #[tokio::test]
    async fn without_a_certificate_handshakes_fail_and_the_listener_stays() {
        let ca = Ca::new();
        let certificate = ServingCertificate::empty();
        let server = serving(certificate.clone(), Limits::default()).await;
        assert!(ca.connect(server.address, b"http/1.1").await.is_err());
        let (pem, key) = ca.leaf(|_| {});
        certificate.replace(pem, key).unwrap();
        assert!(ca.connect(server.address, b"http/1.1").await.is_ok());
    }

    #[tokio::test]
    async fn whoever_is_slow_is_cut() {
        let ca = Ca::new();
        let limits = Limits {
            handshake: Duration::from_millis(200),
            header: Duration::from_millis(300),
            idle: Duration::from_millis(400),
            ..Limits::default()
        };
        let server = serving(ca.certificate(), limits).await;

        let mute = lasts(TcpStream::connect(server.address).await.unwrap()).await;
        assert!(
            mute >= limits.handshake / 2 && mute < limits.handshake * 5,
            "handshake: {mute:?}"
        );

        let mut half = ca.connect(server.address, b"http/1.1").await.unwrap();
        half.write_all(b"GET /now HTTP/1.1\r\nhos").await.unwrap();
        let half = lasts(half).await;
        assert!(
            half >= limits.header / 2 && half < limits.header * 5,
            "header: {half:?}"
        );

        let preface = lasts(ca.connect(server.address, b"h2").await.unwrap()).await;
        assert!(
            preface >= limits.header / 2 && preface < limits.header * 5,
            "HTTP/2 preface: {preface:?}"
        );

        let mut idle = ca.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut idle, "/now").await;
        assert!(receive(&mut idle).await.ends_with("now"));
        idle.write_all(b"GET /now HTTP/1.1\r\nhos").await.unwrap();
        let idle = lasts(idle).await;
        assert!(idle >= limits.idle / 2 && idle < limits.idle * 5, "idle: {idle:?}");
    }

    #[tokio::test]
    async fn a_busy_connection_outlives_the_idle_limit() {
        let ca = Ca::new();
        let limits = Limits {
            idle: Duration::from_millis(200),
            ..Limits::default()
        };
        let server = serving(ca.certificate(), limits).await;
        let mut stream = ca.connect(server.address, b"http/1.1").await.unwrap();
        for _ in 0..20 {
            send(&mut stream, "/now").await;
            assert!(receive(&mut stream).await.ends_with("now"));
            sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn the_drain_finishes_running_requests_and_takes_no_new_ones() {
        let ca = Ca::new();
        let server = serving(ca.certificate(), Limits::default()).await;
        let mut running = ca.connect(server.address, b"http/1.1").await.unwrap();
        let mut idle = ca.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut idle, "/now").await;
        receive(&mut idle).await;
        send(&mut running, "/later").await;
        sleep(Duration::from_millis(50)).await;

        server.stop.cancel();
        assert!(
            lasts(idle).await < Duration::from_millis(200),
            "an idle connection is closed at once"
        );
        assert!(
            TcpStream::connect(server.address).await.is_err(),
            "new connections are refused"
        );
        assert!(receive(&mut running).await.starts_with("HTTP/1.1 200"));
        timeout(SOON, server.task).await.expect("drained").unwrap();
    }

    #[tokio::test]
    async fn after_the_drain_what_still_runs_is_cut() {
        let ca = Ca::new();
        let limits = Limits {
            drain: Duration::from_millis(200),
            ..Limits::default()
        };
        let server = serving(ca.certificate(), limits).await;
        let mut stuck = ca.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut stuck, "/never").await;
        sleep(Duration::from_millis(50)).await;
        server.stop.cancel();
        timeout(SOON, server.task).await.expect("cut").unwrap();
        assert_eq!(receive(&mut stuck).await, "");
    }

    #[tokio::test]
    async fn further_connections_wait_until_one_ends() {
        let ca = Ca::new();
        let server = serving(
            ca.certificate(),
            Limits {
                connections: 1,
                ..Limits::default()
            },
        )
        .await;
        let first = ca.connect(server.address, b"http/1.1").await.unwrap();
        let mut second = std::pin::pin!(ca.connect(server.address, b"http/1.1"));
        assert!(
            timeout(Duration::from_millis(200), second.as_mut()).await.is_err(),
            "no slot yet"
        );
        drop(first);
        timeout(SOON, second).await.expect("a slot").unwrap();
    }

    #[tokio::test]
    async fn one_http2_connection_carries_many_requests_and_drains() {
        let ca = Ca::new();
        let server = serving(ca.certificate(), Limits::default()).await;
        let stream = ca.connect(server.address, b"h2").await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(
            executor,
            hyper_util::rt::TokioIo::new(stream),
        )
        .await
        .unwrap();
        let connection = tokio::spawn(connection);
        let began = Instant::now();
        let requests = (0..50).map(|_| {
            let request = http::Request::get(format!("https://{NAME}/later"))
                .body(axum::body::Body::empty())
                .unwrap();
            sender.clone().send_request(request)
        });
        let answers = futures::future::join_all(requests);
        let stop = async {
            sleep(Duration::from_millis(100)).await;
            server.stop.cancel();
        };
        let (answers, ()) = futures::future::join(answers, stop).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200));
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "at the same time, not one after the other"
        );
        timeout(SOON, server.task).await.expect("drained").unwrap();
        timeout(SOON, connection).await.expect("closed").unwrap().unwrap();
    }
}
