//! A token of a real TLS issuer becomes credentials over real HTTP, and they identify their holder.

#![expect(
    clippy::unwrap_used,
    reason = "the lint knows test functions only, not their helpers"
)]

mod chains;
mod configuration;
mod issuers;
mod outbound;
mod own_issuer;
mod refusals;
mod sessions;
mod signing;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokenscope_sts::{Provider, Role, Server, StsCertificate, StsConfig, TimeSource};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const ISSUER: &str = "https://oidc.tokenscope.test/cluster";
const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const START: i64 = 1_800_000_000;
const FORM: &str = "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n";

/// A private CA and a certificate of it for `name`.
fn certificate(name: &str) -> (String, StsCertificate) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    (
        ca.pem(),
        StsCertificate {
            certificate_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
        },
    )
}

/// An issuer on loopback that serves what `answers` has for a path, and counts the requests.
struct Issuer {
    address: SocketAddr,
    trust_pem: String,
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(name: &str, keys: &[Jwk]) -> Self {
        use rustls_pki_types::pem::PemObject as _;
        let (trust_pem, serving) = certificate(name);
        let chain = rustls_pki_types::CertificateDer::from_pem_slice(serving.certificate_pem.as_bytes()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            trust_pem,
            answers: Arc::default(),
            requests: Arc::default(),
        };
        let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")});
        issuer.answer("/cluster/.well-known/openid-configuration", 200, &discovery);
        issuer.answer("/cluster/keys", 200, &json!({ "keys": keys }));
        let (answers, requests) = (issuer.answers.clone(), issuer.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let head = read_head(&mut stream).await;
                assert!(head.contains("host: oidc.tokenscope.test\r\n"), "{head}");
                requests.fetch_add(1, Ordering::SeqCst);
                let path = head.split(' ').nth(1).unwrap();
                let (status, body) = answers
                    .lock()
                    .unwrap()
                    .get(path)
                    .cloned()
                    .unwrap_or((404, String::new()));
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        issuer
    }

    fn answer(&self, path: &str, status: u16, body: &Value) {
        self.answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (status, body.to_string()));
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: &'static str,
}

impl Signer {
    fn new(algorithm: Algorithm, key_id: &'static str) -> Self {
        let key = if algorithm == Algorithm::RS256 {
            let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
            EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
        } else {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
        };
        Self { key, algorithm, key_id }
    }

    fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.key_id.to_owned());
        jwk
    }

    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({"iss": ISSUER, "sub": "system:serviceaccount:shop:orders", "aud": ["sts.amazonaws.com"],
            "iat": START - 60, "nbf": START - 60, "exp": START + 3600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header {
            kid: Some(self.key_id.to_owned()),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

fn role(arn: &str, actions: &Value) -> Role {
    let condition = json!({
        "StringEquals": {"oidc.tokenscope.test/cluster:aud": "sts.amazonaws.com"},
        "StringLike": {"oidc.tokenscope.test/cluster:sub": "system:serviceaccount:shop:*"}});
    let trust_policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions,
        "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster"},
        "Condition": condition}]});
    Role {
        arn: arn.into(),
        trust_policy,
        max_session_duration: 3600,
    }
}

fn config(issuer: &Issuer) -> StsConfig {
    StsConfig {
        providers: vec![Provider {
            url: ISSUER.into(),
            client_ids: vec!["sts.amazonaws.com".into()],
            account: "111122223333".into(),
            partition: "aws".into(),
            context_provider: None,
        }],
        roles: vec![role(ROLE, &json!("sts:AssumeRoleWithWebIdentity"))],
        issuer_trust_pem: issuer.trust_pem.clone(),
        connect_to: [("oidc.tokenscope.test".to_owned(), issuer.address)].into(),
        ..StsConfig::default()
    }
}

/// The server and the second hand of its clock.
async fn start(config: StsConfig) -> (Server, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(START));
    let hand = now.clone();
    let clock: TimeSource = Arc::new(move || Timestamp::from_second(hand.load(Ordering::SeqCst)).unwrap());
    (
        Server::start_with_clock(config, loopback(), None, clock).await.unwrap(),
        now,
    )
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends a request and returns status and body.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("x-amzn-requestid: ") && head.contains("content-type: text/xml"),
        "{head}"
    );
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn post(server: &Server, headers: &str, body: &str) -> (u16, String) {
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    exchange(stream, &request(&server.addr().to_string(), headers, body)).await
}

fn request(host: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{FORM}{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn assume_form(role: &str, token: &str, more: &str) -> String {
    format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName=pod-1&WebIdentityToken={token}{more}",
        role.replace(':', "%3A").replace('/', "%2F")
    )
}

async fn assume(server: &Server, token: &str) -> (u16, String) {
    post(server, "", &assume_form(ROLE, token, "")).await
}

/// The text of the only element of this name, or nothing.
fn element(xml: &str, name: &str) -> String {
    let inner = xml
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    inner.map(|(text, _)| text.to_owned()).unwrap_or_default()
}

fn error((status, body): (u16, String)) -> String {
    format!(
        "{status} {}: {}",
        element(&body, "Code"),
        element(&body, "Message").replace("&apos;", "'")
    )
}
