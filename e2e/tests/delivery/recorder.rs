//! A credentials endpoint that answers as a test tells it to, and remembers who asked. What is looked at with it is the SDK. At the same
//! address are an STS and an S3 that take whatever comes, so that a probe has something to use credentials for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The path of the credentials.
const PATH: &str = "/v1/credentials/app";

/// What a refusal says.
pub(super) const MESSAGE: &str = "policy orders does not allow this role";

/// The answer of STS to a caller that asks for its own identity.
const IDENTITY: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:sts::111122223333:assumed-role/orders/orders-1</Arn><UserId>AROA:orders-1</UserId><Account>111122223333</Account>\
    </GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>";

/// What who asks for credentials is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    /// A status and [`MESSAGE`], as the sidecar writes them.
    Refuses(u16),
    /// Credentials that expire so long after the request, or did before it.
    Gives(SignedDuration),
}

/// A request for credentials.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Asked {
    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Now {
    says: Says,
    asked: Vec<Asked>,
}

/// The server. It ends when it is dropped.
pub(super) struct Recorder {
    address: SocketAddr,
    now: Arc<Mutex<Now>>,
    server: JoinHandle<()>,
}

impl Recorder {
    /// Starts one that refuses everything.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let now = Arc::new(Mutex::new(Now {
            says: Says::Refuses(403),
            asked: Vec::new(),
        }));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&now));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, now, server }
    }

    /// The URL of S3 and STS.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of the credentials.
    pub(super) fn credentials_url(&self) -> String {
        self.url() + PATH
    }

    /// From now on it answers so, and forgets who has asked.
    pub(super) fn says(&self, says: Says) {
        *self.now.lock().unwrap() = Now {
            says,
            asked: Vec::new(),
        };
    }

    /// Who has asked for credentials, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.now.lock().unwrap().asked.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The time from the first request to the last.
pub(super) fn duration_of(asked: &[Asked]) -> Duration {
    match (asked.first(), asked.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => Duration::ZERO,
    }
}

async fn answer(State(now): State<Arc<Mutex<Now>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path.starts_with("/v1/") {
        let mut now = now.lock().unwrap();
        now.asked.push(Asked {
            at: Instant::now(),
            method: request.method().clone(),
            path,
            headers: request.headers().clone(),
        });
        return credentials(now.says, now.asked.len());
    }
    match *request.method() {
        Method::POST => ([(CONTENT_TYPE, "text/xml")], IDENTITY).into_response(),
        Method::PUT => StatusCode::OK.into_response(),
        _ => ([(CONTENT_TYPE, "binary/octet-stream")], "an object").into_response(),
    }
}

fn credentials(says: Says, number: usize) -> Response {
    let (status, body) = match says {
        Says::Refuses(status) => (status, json!({"Code": "AccessDenied", "Message": MESSAGE})),
        Says::Gives(left) => {
            // Without fractions of a second, as the sidecar writes it.
            let expiration = Timestamp::from_second((Timestamp::now() + left).as_second()).unwrap();
            let body = json!({
                "AccessKeyId": format!("ASIAEXAMPLE{number:05}"), "SecretAccessKey": "a".repeat(40), "Token": "token",
                "Expiration": expiration.to_string(), "RoleArn": "arn:aws:iam::111122223333:role/orders",
            });
            (200, body)
        }
    };
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
