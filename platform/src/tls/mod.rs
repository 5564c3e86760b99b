//! A TLS listener: its certificate can be replaced while it serves, and it can ask clients for theirs.

mod clients;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
pub use clients::{Clients, ClientsError};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use crate::certificate::ServingCertificate;
use crate::listen;
use crate::run::Process;
use crate::server::{self, Protocol};
pub use crate::server::{ConnectionMetrics, GiveWay, Limits, Peer};

/// TLS 1.3 and 1.2 with whatever certificate `resolver` holds at each handshake; HTTP/2 or HTTP/1.1 as the client likes.
///
/// With `clients` only those get through whose certificate is accepted there, without it everybody does.
pub fn server_config(
    resolver: Arc<ServingCertificate>,
    clients: Option<Arc<Clients>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No resumption: clients keep their connections, and a new connection should always be checked against the certificate
    // of today, not the one of the session before.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The reason why a process can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

/// The listener of a process: its address, certificate and limits.
#[derive(Debug)]
pub struct TlsServer {
    /// The name in the log and before the metrics of connections.
    pub name: &'static str,
    /// The address to listen on.
    pub address: SocketAddr,
    /// The certificate that it shows.
    pub certificate: Arc<ServingCertificate>,
    /// The clients that get through; everybody where there is none.
    pub clients: Option<Arc<Clients>>,
    /// The bounds of connections.
    pub limits: Limits,
}

impl TlsServer {
    /// Serves `app` until the process stops, and then what was asked before ([`serve`]).
    pub async fn serve(self, app: Router, process: &Process) -> Result<(), ServeError> {
        let (name, address) = (self.name, self.address);
        let listener = listen::bind(address).map_err(|source| ServeError::Listen { address, source })?;
        tracing::info!(%address, name, "serving");
        let config = server_config(self.certificate, self.clients)?;
        let metrics = ConnectionMetrics::registered(&process.registry, name);
        serve(listener, config, app, self.limits, metrics, process.stop.clone()).await;
        Ok(())
    }
}

/// Serves `app` until `stop`; answers once running requests have finished, or [`Limits::drain`] is over and they are cut.
pub async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    app: Router,
    limits: Limits,
    metrics: ConnectionMetrics,
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
    server::serve(listener, handshake, app, limits, metrics, stop).await;
}
