//! A server in front of STS that fails in a chosen way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing, ever.
    Hangs,
    /// It answers with this status and body.
    Answers(u16, String),
    /// It answers so, one after the other, and then always as at the end.
    AnswersInTurn(Vec<(u16, String)>),
    /// It answers the first request with the one, and each other with the other as soon as it is told to.
    AnswersAndThenWhenTold((u16, String), (u16, String), watch::Receiver<bool>),
    /// It answers with this status and body as soon as it is told to.
    AnswersWhenTold(u16, String, watch::Receiver<bool>),
    /// No fault: the server at this address answers.
    Passes(SocketAddr),
    /// The server at this address answers, a second later.
    PassesSlowly(SocketAddr),
    /// No fault at the first request, and status 500 from then on.
    PassesOnce(SocketAddr),
}

impl Fault {
    /// An error of STS.
    pub(crate) fn refuses(status: u16, code: &str, message: &str) -> Self {
        let (status, body) = refusal(status, code, message);
        Self::Answers(status, body)
    }
}

/// An answer of STS with an error.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    (status, body)
}

/// An answer of STS with credentials of an hour and this session token.
pub(crate) fn credentials(session_token: &str) -> (u16, String) {
    credentials_at(session_token, jiff::Timestamp::now())
}

/// The same at a time.
pub(crate) fn credentials_at(session_token: &str, now: jiff::Timestamp) -> (u16, String) {
    let end = now + jiff::SignedDuration::from_hours(1);
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/a/b</Arn>\
         </AssumedRoleUser><Credentials><AccessKeyId>ASIAEXAMPLEEXAMPLE12</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>{session_token}</SessionToken><Expiration>{end:.0}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    (200, body)
}

/// An answer of STS with this token for a third party.
pub(crate) fn web_identity_token(token: &str) -> (u16, String) {
    let body = format!(
        "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>{token}</WebIdentityToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
    );
    (200, body)
}

/// A token that nobody signed, for an audience, valid for these seconds from now.
pub(crate) fn unsigned_token(audience: impl Into<serde_json::Value>, seconds: i64) -> String {
    use base64::Engine as _;
    let audience: serde_json::Value = audience.into();
    let part = |value: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let end = jiff::Timestamp::now().as_second() + seconds;
    let claims = serde_json::json!({"iss": "https://issuer.example", "sub": "role", "aud": audience, "exp": end});
    [
        part(serde_json::json!({"alg": "ES384"})),
        part(claims),
        "c2ln".to_owned(),
    ]
    .join(".")
}

/// A server in front of STS that fails in a chosen way.
pub(crate) struct FaultySts {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    fault: watch::Sender<Fault>,
}

impl FaultySts {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (fault, seen) = watch::channel(fault);
        let faulty = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            fault,
        };
        let asked = Arc::clone(&faulty.asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let before = asked.fetch_add(1, Ordering::SeqCst);
                let fault = match seen.borrow().clone() {
                    Fault::PassesOnce(address) if before == 0 => Fault::Passes(address),
                    Fault::PassesOnce(_) => Fault::Answers(500, String::new()),
                    Fault::AnswersInTurn(answers) => {
                        let (status, body) = answers[before.min(answers.len() - 1)].clone();
                        Fault::Answers(status, body)
                    }
                    Fault::AnswersAndThenWhenTold((status, body), _, _) if before == 0 => Fault::Answers(status, body),
                    Fault::AnswersAndThenWhenTold(_, (status, body), told) => {
                        Fault::AnswersWhenTold(status, body, told)
                    }
                    fault => fault,
                };
                tokio::spawn(answer(stream, fault));
            }
        });
        faulty
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls that came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// From now on.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn answer(stream: TcpStream, fault: Fault) {
    match fault {
        Fault::Hangs | Fault::PassesOnce(_) | Fault::AnswersInTurn(_) | Fault::AnswersAndThenWhenTold(..) => {
            std::future::pending::<()>().await;
        }
        Fault::AnswersWhenTold(status, body, mut told) => {
            // Who would tell it may be gone, with the test.
            if told.wait_for(|told| *told).await.is_ok() {
                answer_with(stream, status, &body).await;
            }
        }
        Fault::Answers(status, body) => answer_with(stream, status, &body).await,
        Fault::PassesSlowly(address) => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pass(stream, address).await;
        }
        Fault::Passes(address) => pass(stream, address).await,
    }
}

async fn answer_with(mut stream: TcpStream, status: u16, body: &str) {
    let mut request = vec![0; 32 << 10];
    let _ = stream.read(&mut request).await;
    let answer = format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn pass(mut stream: TcpStream, address: SocketAddr) {
    let mut sts = TcpStream::connect(address).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut sts).await;
}
