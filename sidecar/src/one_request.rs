//! One HTTP request as a client, on a connection of its own, because many minutes pass between two requests. No redirect is followed.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The longest wait for the end of a connection that has served.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// The most of an answer's head, in bytes.
const LARGEST_HEAD: usize = 16 << 10;
/// The most of an answer's body, in bytes: a token has 20,000 at most, and an answer of STS less.
const LARGEST_BODY: usize = 64 << 10;

/// An answer that has come whole. No `Debug`: it may be a secret.
pub(crate) struct WholeAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The reason why no whole answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Head or body are longer than the bounds.
    TooLong,
    /// The answer is not HTTP/1.1.
    NotHttp,
    /// The connection ended.
    Lost,
}

/// Sends a request over a connection that is there, and reads the answer. The caller sets the deadline.
pub(crate) async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<WholeAnswer, Broken>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http1::Builder::new()
        .max_buf_size(LARGEST_HEAD)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|_| Broken::Lost)?;
    let mut connections = JoinSet::new(); // dropped, and so ended, with this call
    connections.spawn(connection);
    let answer = answer(sender, request).await;
    // There is an answer; a server that does not let go takes nothing of it.
    let _ = timeout(CLOSE_DEADLINE, connections.join_next()).await;
    answer
}

async fn answer(mut sender: SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<WholeAnswer, Broken> {
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let (parts, body) = response.into_parts();
    Ok(WholeAnswer {
        status: parts.status,
        headers: parts.headers,
        body: whole(body).await?,
    })
}

async fn whole(body: Incoming) -> Result<Bytes, Broken> {
    let body = Limited::new(body, LARGEST_BODY).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Broken::TooLong),
        Err(_) => Err(Broken::Lost),
    }
}

fn broken(error: &hyper::Error) -> Broken {
    if error.is_parse_too_large() {
        Broken::TooLong
    } else if error.is_parse() {
        Broken::NotHttp
    } else {
        Broken::Lost
    }
}
