//! The HTTP server: connections, the two actions, what is remembered between them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{CheckedRole, Config, ConfigError, Provider, Role, check_connect_to};
use crate::issuer::Issuers;
use crate::request::{Action, AssumeRequest, Parameters};
use crate::session::{Session, Sessions, random};
use crate::sigv4::{Authorization, Signed, hex};
use crate::trust::{Facts, access_denied, authorize};
use crate::xml::{AwsError, answer, elements};
use crate::{token, xml};

/// A token of 20,000 characters and a policy, all percent-encoded, fit in.
const MAX_BODY: usize = 128 << 10;
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two requests on a connection, until the head of the next one is there.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// For the body and, 5 s of it, for the issuer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// How long `stop` waits for requests in flight.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Tells the time; tests move it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// What a server shows to its callers when it speaks TLS.
pub struct ServingCertificate {
    /// The certificate and what chains it to its CA, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    state: Arc<State>,
    address: SocketAddr,
    tls: bool,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

struct State {
    clock: Clock,
    issuers: Issuers,
    roles: Mutex<HashMap<String, Arc<CheckedRole>>>,
    providers: Mutex<Vec<Arc<Provider>>>,
    sessions: Mutex<Sessions>,
}

impl Server {
    /// Listens on `listen` (loopback only; port 0 = any free one), in plain HTTP or with TLS, by the machine's clock.
    pub async fn start(
        config: Config,
        listen: SocketAddr,
        certificate: Option<ServingCertificate>,
    ) -> Result<Self, StartError> {
        Self::start_with_clock(config, listen, certificate, system_clock()).await
    }

    /// The same by another clock.
    pub async fn start_with_clock(
        config: Config,
        listen: SocketAddr,
        certificate: Option<ServingCertificate>,
        clock: Clock,
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
        let state = State {
            clock,
            issuers,
            roles: Mutex::default(),
            providers: Mutex::default(),
            sessions: Mutex::default(),
        };
        let server = Self {
            state: Arc::new(state),
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

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// For `AWS_ENDPOINT_URL_STS`.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Adds a role; it is an error if there is one of this ARN.
    pub fn add_role(&self, role: &Role) -> Result<(), ConfigError> {
        let checked = role.check()?;
        let mut roles = lock(&self.state.roles);
        if roles.contains_key(&role.arn) {
            return Err(ConfigError::EntityAlreadyExists(role.arn.clone()));
        }
        roles.insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Adds a role or replaces the one of this ARN, at once for the next request.
    pub fn set_role(&self, role: &Role) -> Result<(), ConfigError> {
        let checked = role.check()?;
        lock(&self.state.roles).insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Registers an identity provider; a URL can be there once in an account.
    pub fn add_provider(&self, provider: Provider) -> Result<(), ConfigError> {
        provider.check()?;
        let mut providers = lock(&self.state.providers);
        if providers.iter().any(|other| other.arn() == provider.arn()) {
            return Err(ConfigError::EntityAlreadyExists(provider.arn()));
        }
        providers.push(Arc::new(provider));
        Ok(())
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

fn acceptor(certificate: &ServingCertificate) -> Result<TlsAcceptor, StartError> {
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
    state: Arc<State>,
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

async fn serve(stream: TcpStream, acceptor: Option<TlsAcceptor>, state: Arc<State>, stopping: CancellationToken) {
    let Some(acceptor) = acceptor else {
        return serve_http(stream, state, stopping).await;
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, state, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn serve_http<S>(stream: S, state: Arc<State>, stopping: CancellationToken)
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

impl State {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let request_id = request_id();
        let deadline = AwsError::new(408, "RequestExpired", "The request took too long.");
        let handled = tokio::time::timeout(REQUEST_DEADLINE, self.handle(request, &request_id));
        let (status, body) = match handled.await.unwrap_or(Err(deadline)) {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => {
                tracing::info!(code = error.code, reason = error.message, request_id, "refused");
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, error.to_xml(&request_id))
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-amzn-requestid", value);
        }
        response
    }

    async fn handle(&self, request: Request<Incoming>, request_id: &str) -> Result<String, AwsError> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| {
            AwsError::new(
                413,
                "RequestEntityTooLarge",
                format!("The body is over {MAX_BODY} bytes or was cut off."),
            )
        })?;
        let body = body.to_bytes();
        let query = head.uri.query().unwrap_or_default();
        let form_body = || {
            let form = head
                .headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| {
                    value.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded"
                });
            if form {
                std::str::from_utf8(&body).unwrap_or_default()
            } else {
                ""
            }
        };
        let parameters = match head.method {
            _ if head.uri.path() != "/" => return Err(AwsError::new(404, "InvalidAction", "STS answers at / only")),
            Method::POST => Parameters::parse(form_body())?,
            Method::GET => Parameters::parse(query)?,
            _ => return Err(AwsError::new(405, "InvalidAction", "STS answers GET and POST only")),
        };
        match parameters.action()? {
            Action::AssumeRoleWithWebIdentity => {
                let result = self.assume_role(&AssumeRequest::parse(&parameters)?).await?;
                Ok(answer("AssumeRoleWithWebIdentity", &result, request_id))
            }
            Action::GetCallerIdentity => {
                let signed = Signed {
                    method: &head.method,
                    path: head.uri.path(),
                    query,
                    headers: &head.headers,
                    body: &body,
                };
                Ok(answer("GetCallerIdentity", &self.caller_identity(&signed)?, request_id))
            }
        }
    }

    async fn assume_role(&self, request: &AssumeRequest) -> Result<String, AwsError> {
        let unverified = token::parse(&request.token)?;
        let issuer = unverified.issuer.as_str();
        // The account of the request is the role's.
        let provider = lock(&self.providers)
            .iter()
            .find(|provider| {
                provider.url == issuer
                    && provider.account == request.role.account
                    && provider.partition == request.role.partition
            })
            .cloned()
            .ok_or_else(|| {
                AwsError::invalid_token(format!("No OpenIDConnect provider found in your account for {issuer}"))
            })?;
        let key = self.issuers.key(issuer, &unverified.key_id, (self.clock)()).await?;
        let now = (self.clock)();
        let identity = token::verify(&unverified, &key, &provider.client_ids, now)?;

        let role = lock(&self.roles)
            .get(&request.role_arn)
            .cloned()
            .ok_or_else(access_denied)?;
        let provider_arn = provider.arn();
        authorize(
            &role.trust,
            &provider_arn,
            &identity,
            &Facts::new(issuer, &identity, &request.session_name),
        )?;
        if request.duration > role.max_session_duration {
            let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
            return Err(AwsError::validation(message));
        }

        let session = Session::issue(
            &request.role_arn,
            &request.role,
            &request.session_name,
            request.duration,
            now,
        )
        .map_err(|_| AwsError::internal())?;
        tracing::info!(arn = session.arn, subject = identity.subject, expires = %session.expires, "role assumed");
        let result = assumed(&session, &identity, &provider_arn, request.packed_policy_size);
        lock(&self.sessions).add(Arc::new(session));
        Ok(result)
    }

    fn caller_identity(&self, request: &Signed<'_>) -> Result<String, AwsError> {
        let invalid = || {
            AwsError::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            )
        };
        let authorization = Authorization::parse(request.headers)?;
        let session = lock(&self.sessions)
            .find(&authorization.access_key_id)
            .ok_or_else(invalid)?;
        let now = (self.clock)();
        let session_token = request.headers.get("x-amz-security-token").ok_or_else(invalid)?;
        if !session.has_token(session_token.as_bytes()) {
            return Err(invalid());
        }
        authorization.verify(request, &session.secret_access_key, now)?;
        session.check_expiry(now)?;
        Ok(elements(&[
            ("Arn", &session.arn),
            ("UserId", &session.user_id),
            ("Account", &session.account),
        ]))
    }
}

/// The members of `AssumeRoleWithWebIdentityResult`.
fn assumed(
    session: &Session,
    identity: &token::Verified,
    provider_arn: &str,
    packed_policy_size: Option<usize>,
) -> String {
    let credentials = xml::elements(&[
        ("AccessKeyId", &session.access_key_id),
        ("SecretAccessKey", &session.secret_access_key),
        ("SessionToken", &session.token),
        ("Expiration", &session.expires.to_string()),
    ]);
    let user = elements(&[("AssumedRoleId", &session.user_id), ("Arn", &session.arn)]);
    // The API reference says that Provider is the token's `iss`; what STS really sends is the provider's ARN.
    let mut rest = vec![
        ("SubjectFromWebIdentityToken", identity.subject.as_str()),
        ("Audience", &identity.audience),
        ("Provider", provider_arn),
    ];
    let percent = packed_policy_size.map(|percent| percent.to_string());
    rest.extend(percent.as_deref().map(|percent| ("PackedPolicySize", percent)));
    rest.extend(
        identity
            .source_identity
            .as_deref()
            .map(|source| ("SourceIdentity", source)),
    );
    format!(
        "<Credentials>{credentials}</Credentials><AssumedRoleUser>{user}</AssumedRoleUser>{}",
        elements(&rest)
    )
}

/// In the form of a UUID. Without randomness it is all zeros: it only serves to find a request in a log.
fn request_id() -> String {
    let text = hex(&random::<16>().unwrap_or_default());
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

/// What the locks guard is changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
