//! The HTTP server: how it starts and stops, and its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{OutboundFederation, Permissions};
use crate::config::{Provider, Role, StsConfig, check_connect_to};
use crate::config_error::StsConfigError;
use crate::issuer::Issuers;
use crate::lock::lock;
use crate::permissions::AssumedSession;
use crate::state::{AwsAccount, TimeSource, system_clock};

const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two requests on a connection, until the head of the next one is there.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// The time that `stop` waits for requests in flight.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The certificate that a server shows to its callers when it speaks TLS.
pub struct StsCertificate {
    /// The certificate and what chains it to its CA, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

/// The reason why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] StsConfigError),
    /// Only loopback: it hands out credentials and is meant for one machine.
    #[error("refusing to listen on {0}: only loopback addresses are allowed")]
    NotLoopback(SocketAddr),
    /// The address can't be bound.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A PEM text can't be used.
    #[error("{0}")]
    Tls(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A running stand-in. Dropping it stops it too, without waiting.
pub struct Server {
    state: Arc<AwsAccount>,
    address: SocketAddr,
    tls: bool,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Listens on `listen` (loopback only; port 0 = any free one), in plain HTTP or with TLS, by the machine's clock.
    pub async fn start(
        config: StsConfig,
        listen: SocketAddr,
        certificate: Option<StsCertificate>,
    ) -> Result<Self, StartError> {
        Self::start_with_clock(config, listen, certificate, system_clock()).await
    }

    /// The same by another clock.
    pub async fn start_with_clock(
        config: StsConfig,
        listen: SocketAddr,
        certificate: Option<StsCertificate>,
        clock: TimeSource,
    ) -> Result<Self, StartError> {
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        check_connect_to(&config.connect_to)?;
        let issuers = Issuers::new(&config.issuer_trust_pem, config.connect_to)
            .map_err(|error| StartError::Tls("issuer_trust_pem", error))?;
        let acceptor = certificate.as_ref().map(acceptor).transpose()?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| StartError::Listen(listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(listen, error))?;
        let server = Self {
            state: Arc::new(AwsAccount::new(issuers, clock, config.region)),
            address,
            tls: acceptor.is_some(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for provider in config.providers {
            server.add_provider(provider)?;
        }
        for role in config.roles {
            server.add_role(&role)?;
        }
        for user in config.users {
            lock(&server.state.directory).add_user(user)?;
        }
        for permissions in config.permissions {
            lock(&server.state.directory).set_permissions(permissions)?;
        }
        for (arn, document) in config.managed_policies {
            lock(&server.state.directory).set_managed_policy(arn, document)?;
        }
        for federation in config.outbound_federation {
            server.enable_outbound_federation(federation)?;
        }
        let accepting = accept(
            listener,
            acceptor,
            server.state.clone(),
            server.stopping.clone(),
            server.tasks.clone(),
        );
        server.tasks.spawn(accepting);
        Ok(server)
    }

    /// The address at which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// For `AWS_ENDPOINT_URL_STS`.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Adds a role; it is an error if there is one of this ARN.
    pub fn add_role(&self, role: &Role) -> Result<(), StsConfigError> {
        self.state.add_role(role)
    }

    /// Adds a role or replaces the one of this ARN, at once for the next request.
    pub fn set_role(&self, role: &Role) -> Result<(), StsConfigError> {
        self.state.set_role(role)
    }

    /// Registers an identity provider; a URL can be there once in an account.
    pub fn add_provider(&self, provider: Provider) -> Result<(), StsConfigError> {
        self.state.add_provider(provider)
    }

    /// Sets, changes or (by `None`) removes the context provider of an identity provider, at once for the next request, as
    /// `UpdateOpenIDConnectProvider` does.
    pub fn update_context_provider(
        &self,
        provider_arn: &str,
        document: Option<&serde_json::Value>,
    ) -> Result<(), StsConfigError> {
        self.state.update_context_provider(provider_arn, document)
    }

    /// Sets or replaces the identity policies and tags of a role or user, at once for the next request.
    pub fn set_permissions(&self, permissions: Permissions) -> Result<(), StsConfigError> {
        lock(&self.state.directory).set_permissions(permissions)
    }

    /// Enables outbound web identity federation for an account, as `EnableOutboundWebIdentityFederation` does.
    pub fn enable_outbound_federation(&self, federation: OutboundFederation) -> Result<(), StsConfigError> {
        self.state.outbound.enable(federation)
    }

    /// The session of an access key id, without its secrets. `None` when no session was issued under it or too many
    /// others were since.
    pub fn session(&self, access_key_id: &str) -> Option<AssumedSession> {
        self.state.session(access_key_id)
    }

    /// Takes no more connections and waits up to 5 s for the requests in flight.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn acceptor(certificate: &StsCertificate) -> Result<TlsAcceptor, StartError> {
    let wrong = |what| move |error: rustls_pki_types::pem::Error| StartError::Tls(what, error.into());
    let chain = CertificateDer::pem_slice_iter(certificate.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong("serving certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).map_err(wrong("serving key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| StartError::Tls("serving certificate", error.into()))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    state: Arc<AwsAccount>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // A connection over the limit waits in the kernel's queue.
        let accepted = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: a pause instead of a hot loop.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, state, stopping) = (acceptor.clone(), state.clone(), stopping.clone());
        tasks.spawn(async move {
            let _slot = slot;
            serve(stream, acceptor, state, stopping).await;
        });
    }
}

async fn serve(stream: TcpStream, acceptor: Option<TlsAcceptor>, state: Arc<AwsAccount>, stopping: CancellationToken) {
    let Some(acceptor) = acceptor else {
        return serve_http(stream, state, stopping).await;
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, state, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn serve_http<S>(stream: S, state: Arc<AwsAccount>, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.respond(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}
