//! An agent that does what real SPIRE can't be made to do: hang, give the same token again, malformed or expired ones,
//! identities with equal hints. It speaks gRPC over a UNIX domain socket, written by hand, and has no keys.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use prost::Message;
use serde_json::{Value, json};
use tokenscope_sidecar::workload_api::{JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The SPIFFE ID of the workload.
pub const SUBJECT: &str = "spiffe://example.test/app";

/// The agent's answer to a question for tokens.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These.
    Svids(Vec<JwtSvid>),
    /// A gRPC status.
    Status(u32, &'static str),
    /// These bytes where a message should be.
    Bytes(&'static [u8]),
    /// Nothing, ever.
    Hang,
}

type Script = dyn Fn(&JwtSvidRequest, u32) -> Answer + Send + Sync;

/// A running agent. Its socket is gone when it is dropped.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    questions: Arc<AtomicU32>,
    key_ids: watch::Sender<Vec<String>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Agent {
    /// Listens at a path. `script` says what to answer to a question for tokens, and gets how many there were before it.
    pub fn start(
        socket: &Path,
        script: impl Fn(&JwtSvidRequest, u32) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let _ = fs::remove_file(socket);
        let listener = StdListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let questions = Arc::new(AtomicU32::new(0));
        let key_ids = watch::Sender::new(vec!["k1".to_owned()]);
        let state = Arc::new(State {
            script: Box::new(script),
            questions: Arc::clone(&questions),
            key_ids: key_ids.subscribe(),
        });
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // ended with the agent
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&state)));
            }
        });
        Ok(Self {
            socket: socket.to_owned(),
            questions,
            key_ids,
            serving: Some(serving),
        })
    }

    /// The number of questions for tokens.
    pub fn questions(&self) -> u32 {
        self.questions.load(Ordering::Relaxed)
    }

    /// Publishes other keys.
    pub fn publish(&self, key_ids: &[&str]) {
        self.key_ids
            .send_replace(key_ids.iter().map(ToString::to_string).collect());
    }

    /// Ends it as a crash does: connections break, the socket's file stays.
    pub async fn crash(mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// A token with these times and key, and a signature that nobody made.
pub fn token(audience: &str, key_id: &str, issued_at: Option<i64>, expires_at: i64) -> String {
    let mut claims =
        json!({"iss": "https://issuer.example.test", "sub": SUBJECT, "aud": [audience], "exp": expires_at});
    if let Some(issued_at) = issued_at {
        claims["iat"] = issued_at.into();
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "ES256", "kid": key_id, "typ": "JWT"});
    // As long as a real one.
    format!(
        "{}.{}.{}",
        part(&header),
        part(&claims),
        URL_SAFE_NO_PAD.encode([7; 64])
    )
}

/// An SVID of the workload.
pub fn svid(token: String, hint: &str) -> JwtSvid {
    JwtSvid {
        spiffe_id: SUBJECT.to_owned(),
        svid: token,
        hint: hint.to_owned(),
    }
}

/// Answers with a new token of this life, in seconds.
pub fn fresh(question: &JwtSvidRequest, life: i64) -> Answer {
    let now = Timestamp::now().as_second();
    let audience = question.audience.first().map_or("", String::as_str);
    Answer::Svids(vec![svid(token(audience, "k1", Some(now), now + life), "")])
}

struct State {
    script: Box<Script>,
    questions: Arc<AtomicU32>,
    key_ids: watch::Receiver<Vec<String>>,
}

type Body = Channel<Bytes, Infallible>;

async fn serve(stream: UnixStream, state: Arc<State>) {
    let streams = Arc::new(Mutex::new(JoinSet::new())); // ended with the connection
    let service = service_fn(|request| answer(request, Arc::clone(&state), Arc::clone(&streams)));
    // The sidecar hangs up when it likes.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    streams: Arc<Mutex<JoinSet<()>>>,
) -> Result<Response<Body>, hyper::Error> {
    let method = request.uri().path().to_owned();
    let guarded = request
        .headers()
        .get("workload.spiffe.io")
        .is_some_and(|value| value == "true");
    let body = request.into_body().collect().await?.to_bytes();
    let (sender, body_out) = Channel::new(8);
    let work = async move {
        match method.as_str() {
            _ if !guarded => end(sender, 3, "security header missing from request").await,
            "/SpiffeWorkloadAPI/FetchJWTSVID" => jwt_svids(sender, &body, &state).await,
            "/SpiffeWorkloadAPI/FetchJWTBundles" => jwt_bundles(sender, state.key_ids.clone()).await,
            _ => end(sender, 12, "no such method").await,
        }
    };
    streams.lock().unwrap_or_else(PoisonError::into_inner).spawn(work);
    let mut response = Response::new(body_out);
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(response)
}

async fn jwt_svids(mut sender: Sender<Bytes>, body: &Bytes, state: &State) {
    let before = state.questions.fetch_add(1, Ordering::Relaxed);
    let Ok(question) = JwtSvidRequest::decode(body.get(5..).unwrap_or_default()) else {
        return end(sender, 13, "the question can't be read").await;
    };
    match (state.script)(&question, before) {
        Answer::Svids(svids) => {
            let _ = sender
                .send_data(framed(&JwtSvidResponse { svids }.encode_to_vec()))
                .await;
            end(sender, 0, "").await;
        }
        Answer::Bytes(bytes) => {
            let _ = sender.send_data(framed(bytes)).await;
            end(sender, 0, "").await;
        }
        Answer::Status(code, message) => end(sender, code, message).await,
        Answer::Hang => std::future::pending().await,
    }
}

async fn jwt_bundles(mut sender: Sender<Bytes>, mut key_ids: watch::Receiver<Vec<String>>) {
    loop {
        let keys: Vec<Value> = key_ids
            .borrow_and_update()
            .iter()
            .map(|key_id| json!({"kty": "EC", "kid": key_id}))
            .collect();
        let keys = json!({"keys": keys}).to_string().into_bytes();
        let bundles = BTreeMap::from([("spiffe://example.test".to_owned(), keys)]);
        let message = JwtBundlesResponse { bundles }.encode_to_vec();
        if sender.send_data(framed(&message)).await.is_err() || key_ids.changed().await.is_err() {
            return;
        }
    }
}

/// A message as gRPC puts it on the wire: not compressed, its length, its bytes.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

async fn end(mut sender: Sender<Bytes>, code: u32, message: &'static str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    let _ = sender.send_trailers(trailers).await; // the sidecar has hung up
}
