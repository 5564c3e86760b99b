//! A webhook in the place of ours that answers as a test wants: as ours would, or wrongly in every way that one can.
//!
//! It speaks HTTP/1.1 over TLS by itself, since no server library would send what some of these answers are.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_webhook::strip_mark;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// Longer than the API server waits.
const LATE: Duration = Duration::from_secs(40);

/// How it answers a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// With the patch that this release's webhook would send: both marks, and for a pod that asks a grant.
    Works,
    /// With the patch of the release before: the mark is an annotation.
    WorksAsBefore,
    /// It allows the pod and changes nothing.
    Allows,
    /// With an HTTP status.
    Status(u16),
    /// With something that is not JSON.
    Unreadable,
    /// With an answer to another review.
    WrongUid,
    /// With a patch that can't be applied.
    WrongPatch,
    /// With nothing, status 200.
    Nothing,
    /// With the first half of an answer, as a process that panics or is killed.
    HalfAnAnswer,
    /// It ends the connection.
    HangsUp,
    /// Too late.
    Late,
}

/// The stand-in. It serves until it is dropped or its test's runtime ends.
#[derive(Debug)]
pub(crate) struct StandIn {
    port: u16,
    authority: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mutate: Mutex<Way>,
    strip: Mutex<Way>,
    calls: AtomicUsize,
}

impl StandIn {
    /// Starts one that works.
    pub(crate) async fn start() -> Result<Self> {
        let authority = CertificateAuthority::new("stand-in")?;
        let identity = authority.server(&["127.0.0.1"])?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            mutate: Mutex::new(Way::Works),
            strip: Mutex::new(Way::Works),
            calls: AtomicUsize::new(0),
        });
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(tcp).await?;
                    // Until the other side has enough, or this one fails on purpose.
                    while state.answer(&mut stream).await? {}
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self {
            port,
            authority: authority.certificate(),
            state,
            serving,
        })
    }

    /// From now on it answers so on `/mutate` and `/strip-mark`.
    pub(crate) fn answers(&self, mutate: Way, strip: Way) {
        *self.state.mutate.lock().unwrap_or_else(PoisonError::into_inner) = mutate;
        *self.state.strip.lock().unwrap_or_else(PoisonError::into_inner) = strip;
    }

    /// How often it was asked.
    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&self) {
        self.serving.abort();
    }

    /// Makes a webhook configuration of the chart one of this server.
    pub(crate) fn register(&self, configuration: &mut Value) {
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            let path = webhook["clientConfig"]["service"]["path"]
                .as_str()
                .unwrap_or("/")
                .to_owned();
            webhook["clientConfig"] = json!({
                "url": format!("https://127.0.0.1:{}{path}", self.port),
                "caBundle": BASE64_STANDARD.encode(&self.authority),
            });
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl State {
    /// Answers one request; whether the connection stays.
    async fn answer(&self, stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Result<bool> {
        let Some((path, body)) = request(stream).await? else {
            return Ok(false);
        };
        self.calls.fetch_add(1, Ordering::Relaxed);
        let strips = path.starts_with("/strip-mark");
        let way = if strips { &self.strip } else { &self.mutate };
        let way = *way.lock().unwrap_or_else(PoisonError::into_inner);
        let review: Value = serde_json::from_slice(&body)?;
        let (pod, uid) = (&review["request"]["object"], &review["request"]["uid"]);
        let edits = |annotation_only| {
            if strips {
                stripped(&body)
            } else {
                Ok(marked(pod, annotation_only))
            }
        };
        let (status, text) = match way {
            Way::Works => (200, respond(edits(false)?, uid)),
            Way::WorksAsBefore => (200, respond(edits(true)?, uid)),
            Way::Allows => (200, respond(Vec::new(), uid)),
            Way::Status(status) => (status, "{}".to_owned()),
            Way::Unreadable => (200, "no JSON".to_owned()),
            Way::WrongUid => (200, respond(edits(false)?, &json!("another"))),
            Way::WrongPatch => {
                let absent = json!({"op": "remove", "path": "/metadata/absent/member"});
                (200, respond(vec![absent], uid))
            }
            Way::Nothing => (200, String::new()),
            Way::HalfAnAnswer => {
                let text = respond(edits(false)?, uid);
                let half = &text[..text.len() / 2];
                stream.write_all((head(200, text.len()) + half).as_bytes()).await?;
                return Ok(false);
            }
            Way::HangsUp => return Ok(false),
            Way::Late => {
                tokio::time::sleep(LATE).await;
                return Ok(false);
            }
        };
        stream.write_all((head(status, text.len()) + &text).as_bytes()).await?;
        stream.flush().await?;
        Ok(true)
    }
}

/// A review's answer with these changes of the pod.
fn respond(operations: Vec<Value>, uid: &Value) -> String {
    let mut response = json!({"uid": uid, "allowed": true});
    if !operations.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(BASE64_STANDARD.encode(Value::from(operations).to_string()));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

/// The head of an answer whose body has so many bytes.
fn head(status: u16, length: usize) -> String {
    format!("HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
}

/// The path and the body of the next request; none where the other side has ended the connection.
async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = std::str::from_utf8(&bytes[..head])?.to_owned();
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("a review has a length")?;
    let length: usize = length.1.trim().parse()?;
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        ensure!(stream.read_buf(&mut body).await? > 0, "the review ends early");
    }
    let path = text.split(' ').nth(1).context("a request has a path")?;
    Ok(Some((path.to_owned(), body)))
}

/// What `/strip-mark` does, by the code that does it: nothing is left of a mark that the pod brought.
fn stripped(review: &[u8]) -> Result<Vec<Value>> {
    let answer: Value = serde_json::from_str(&strip_mark::answer(review)?.body)?;
    let Some(patch) = answer["response"]["patch"].as_str() else {
        return Ok(Vec::new());
    };
    Ok(serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?)
}

/// What `/mutate` does as far as the API server's policies see it: the pod bears the mark, and one that asks a record.
fn marked(pod: &Value, annotation_only: bool) -> Vec<Value> {
    let asks = pod["metadata"]["annotations"]["tokenscope.io/role-arn"].is_string();
    let mark = if asks { "granted" } else { "untouched" };
    let mut annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.insert("tokenscope.io/reviewed".to_owned(), json!(mark));
    if asks {
        annotations.insert(
            "tokenscope.io/grant".to_owned(),
            json!("{\"grants\":[],\"hash\":\"0\"}"),
        );
    }
    let mut operations = vec![json!({"op": "add", "path": "/metadata/annotations", "value": annotations})];
    if !annotation_only {
        let mut labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.insert("tokenscope.io/reviewed".to_owned(), json!(mark));
        operations.push(json!({"op": "add", "path": "/metadata/labels", "value": labels}));
    }
    operations
}
