//! The SPIFFE Workload API, as much of it as is used: its messages, and a client.
//!
//! The API is gRPC over a UNIX domain socket without TLS; its service has no package (SPIFFE Workload API, section 3).

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::fetch_error::FetchError;
use crate::selection::Identity;

/// The longest wait for an answer. SPIRE's agent may attest for 30 s and then wait for its server for 30 s, and only then gives
/// the token that it still has; who hangs up earlier never gets it.
pub const DEADLINE: Duration = Duration::from_secs(75);

/// The longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The largest answer, in bytes: gRPC's usual bound.
const LARGEST_MESSAGE: usize = 4 << 20;

/// Asks for JWT-SVIDs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JwtSvidRequest {
    /// The token's audience.
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
    /// Only of this SPIFFE ID; empty means all that the workload has.
    #[prost(string, tag = "2")]
    pub spiffe_id: String,
}

/// One JWT-SVID for each identity.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JwtSvidResponse {
    /// At least one.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<JwtSvid>,
}

/// A JWT-SVID.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct JwtSvid {
    /// Of whom.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
    /// The mark that tells it from the workload's other identities.
    #[prost(string, tag = "3")]
    pub hint: String,
}

/// Asks for the keys of trust domains.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JwtBundlesRequest {}

/// All keys; it replaces what came before.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JwtBundlesResponse {
    /// A JWKS for each trust domain's SPIFFE ID.
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub bundles: BTreeMap<String, Vec<u8>>,
}

/// Asks for X.509-SVIDs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509SvidRequest {}

/// One X.509-SVID for each identity; it replaces what came before.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct X509SvidResponse {
    /// At least one.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
}

/// An X.509-SVID.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct X509Svid {
    /// Of whom.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Its certificate and those of authorities between, DER, one after another.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// Its private key, PKCS#8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The authorities of its trust domain, DER, one after another.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// The mark that tells it from the workload's other identities.
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl Identity for JwtSvid {
    fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }
    fn hint(&self) -> &str {
        &self.hint
    }
}

impl Identity for X509Svid {
    fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }
    fn hint(&self) -> &str {
        &self.hint
    }
}

/// Shows of whom it is, and never the token.
impl std::fmt::Debug for JwtSvid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("JwtSvid").field(&self.spiffe_id).finish()
    }
}

/// Shows of whom it is, and never the key.
impl std::fmt::Debug for X509Svid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("X509Svid").field(&self.spiffe_id).finish()
    }
}

/// A client of one agent. It keeps its connection, and connects again by the socket's path when that is gone: an agent that
/// restarts makes its socket anew.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    connection: Mutex<Option<SendRequest<Body>>>,
}

/// Messages that come as things change.
#[derive(Debug)]
pub struct Stream<T> {
    messages: Streaming<T>,
    deadline: Duration,
}

impl Client {
    /// Nothing is connected to before the first call. `deadline` is how long an answer may take; see [`DEADLINE`].
    pub fn new(socket: PathBuf, deadline: Duration) -> Self {
        Self {
            socket,
            deadline,
            connection: Mutex::new(None),
        }
    }

    /// The workload's JWT-SVIDs for an audience, of one SPIFFE ID or, if it is empty, of all.
    pub async fn jwt_svids(&self, audience: &str, spiffe_id: &str) -> Result<Vec<JwtSvid>, FetchError> {
        let question = JwtSvidRequest {
            audience: vec![audience.to_owned()],
            spiffe_id: spiffe_id.to_owned(),
        };
        let call = async {
            let mut agent = self.agent().await?;
            let codec = ProstCodec::<_, JwtSvidResponse>::default();
            let answer = agent.unary(request(question), path("/SpiffeWorkloadAPI/FetchJWTSVID"), codec);
            Ok(answer.await.map_err(|status| trouble(&status))?.into_inner().svids)
        };
        self.in_time(call).await
    }

    /// The keys that trust domains sign JWT-SVIDs with.
    pub async fn jwt_bundles(&self) -> Result<Stream<JwtBundlesResponse>, FetchError> {
        self.stream(JwtBundlesRequest {}, "/SpiffeWorkloadAPI/FetchJWTBundles")
            .await
    }

    /// The workload's X.509-SVIDs.
    pub async fn x509_svids(&self) -> Result<Stream<X509SvidResponse>, FetchError> {
        self.stream(X509SvidRequest {}, "/SpiffeWorkloadAPI/FetchX509SVID")
            .await
    }

    async fn stream<Q, A>(&self, question: Q, method: &'static str) -> Result<Stream<A>, FetchError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let call = async {
            let mut agent = self.agent().await?;
            let answer = agent.server_streaming(request(question), path(method), ProstCodec::default());
            Ok(Stream {
                messages: answer.await.map_err(|status| trouble(&status))?.into_inner(),
                deadline: self.deadline,
            })
        };
        self.in_time(call).await
    }

    /// Ends a call after the deadline. The connection is given up then: an agent that hangs may have been replaced by one that
    /// listens at the same path.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
        let result = timeout(self.deadline, call).await;
        let result = result.unwrap_or(Err(FetchError::Deadline(self.deadline.as_secs())));
        if matches!(result, Err(FetchError::Deadline(_) | FetchError::ConnectionLost)) {
            *self.connection() = None;
        }
        result
    }

    async fn agent(&self) -> Result<Grpc<WorkloadApiConnection>, FetchError> {
        let open = self.connection().clone().filter(|connection| !connection.is_closed());
        let connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let origin = Uri::from_static("http://localhost");
        let mut agent =
            Grpc::with_origin(WorkloadApiConnection(connection), origin).max_decoding_message_size(LARGEST_MESSAGE);
        agent.ready().await.map_err(|_| FetchError::ConnectionLost)?;
        Ok(agent)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, FetchError> {
        let connecting = async {
            let stream = UnixStream::connect(&self.socket).await;
            let stream = stream.map_err(|error| FetchError::connecting(&self.socket, &error))?;
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            handshake.map_err(|_| FetchError::ConnectionLost)
        };
        let in_vain = || FetchError::NobodyListens(self.socket.clone());
        let (sender, connection) = timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| in_vain())??;
        // It ends when the agent closes it, or when no call and no client needs it any more. Its error is that of the calls.
        tokio::spawn(async {
            let _ = connection.await;
        });
        *self.connection() = Some(sender.clone());
        Ok(sender)
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Body>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Stream<T> {
    /// The next message. The first comes at once, for which there is the deadline; a later one when something has changed.
    pub async fn next(&mut self, first: bool) -> Result<T, FetchError> {
        let message = if first {
            timeout(self.deadline, self.messages.message())
                .await
                .map_err(|_| FetchError::Deadline(self.deadline.as_secs()))?
        } else {
            self.messages.message().await
        };
        message
            .map_err(|status| trouble(&status))?
            .ok_or(FetchError::ConnectionLost)
    }
}

/// A connection as tonic wants it.
#[derive(Clone, Debug)]
struct WorkloadApiConnection(SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for WorkloadApiConnection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Every request must carry this, or the agent refuses it: whoever is tricked into passing a request on does not set it.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// A status that the agent sent, or that stands for a broken connection.
fn trouble(status: &Status) -> FetchError {
    if std::error::Error::source(status).is_some() {
        return FetchError::ConnectionLost;
    }
    FetchError::of_status(status)
}
