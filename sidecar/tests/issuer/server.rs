//! An issuer of the tests: real TLS on 127.0.0.1, and whatever answers a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The form of a request that has come: names and values.
pub(crate) type Form = Vec<(String, String)>;

/// The answer to a request.
pub(crate) enum Reply {
    /// This, and the connection is closed.
    Bytes(Vec<u8>),
    /// This, and then this again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing, ever.
    Nothing,
}

impl Reply {
    /// A usual answer.
    pub(crate) fn json(status: u16, headers: &str, body: &Value) -> Self {
        let body = body.to_string();
        let length = body.len();
        Self::Bytes(format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())
    }

    /// An answer with a token.
    pub(crate) fn token(token: &str) -> Self {
        let token_type = "urn:ietf:params:oauth:token-type:jwt";
        let body =
            json!({"access_token": token, "issued_token_type": token_type, "token_type": "N_A", "expires_in": 1});
        Self::json(200, "", &body)
    }

    /// A refusal (RFC 6749 §5.2).
    pub(crate) fn refusal(code: &str, sentence: &str) -> Self {
        Self::json(400, "", &json!({"error": code, "error_description": sentence}))
    }
}

/// A token for an audience that ends in `left` seconds, of which it has lived none.
pub(crate) fn token(audience: &str, left: i64) -> String {
    let now = Timestamp::now().as_second();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "https://tokens.example.org", "sub": "system:serviceaccount:shop:orders", "aud": audience, "iat": now, "exp": now + left});
    let signature = URL_SAFE_NO_PAD.encode("signature");
    format!(
        "{}.{}.{signature}",
        part(&json!({"alg": "ES384", "kid": "k1"})),
        part(&claims)
    )
}

/// The value of a parameter.
pub(crate) fn value<'a>(form: &'a Form, name: &str) -> &'a str {
    let found = form.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// A running issuer.
pub(crate) struct TestIssuer {
    pub(crate) address: SocketAddr,
    /// The authority of its certificate, PEM.
    pub(crate) authority: String,
    requests: Arc<Mutex<Vec<Form>>>,
}

impl TestIssuer {
    /// Answers each request by `script`, which is told the form and how many requests came before.
    pub(crate) async fn start(script: impl Fn(&Form, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as("127.0.0.1", script).await
    }

    /// As [`start`](Self::start), with a certificate for this name.
    pub(crate) async fn start_as(name: &str, script: impl Fn(&Form, usize) -> Reply + Send + Sync + 'static) -> Self {
        let (authority, acceptor) = identity(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            authority,
            requests: Arc::default(),
        };
        let (requests, script) = (Arc::clone(&issuer.requests), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, requests, script) = (acceptor.clone(), Arc::clone(&requests), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let form = form(&mut stream).await;
                    let before = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(form.clone());
                        requests.len() - 1
                    };
                    send(&mut stream, script(&form, before)).await;
                });
            }
        });
        issuer
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The requests that have come.
    pub(crate) fn requests(&self) -> Vec<Form> {
        self.requests.lock().unwrap().clone()
    }
}

/// An authority, and a server with a certificate of it for `name`.
fn identity(name: &str) -> (String, TlsAcceptor) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(tls)))
}

/// Reads a request whole, which must be an exchange.
async fn form(stream: &mut TlsStream<TcpStream>) -> Form {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /token http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"),
        "{head}"
    );
    let (_, length) = head.split_once("\r\ncontent-length: ").unwrap();
    let mut body = vec![0; length.split('\r').next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    form_urlencoded::parse(&body).into_owned().collect()
}

async fn send(stream: &mut TlsStream<TcpStream>, reply: Reply) {
    // Who goes away has heard enough.
    match reply {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Endless(start, more) => {
            let _ = stream.write_all(&start).await;
            while stream.write_all(&more).await.is_ok() {}
        }
        Reply::Nothing => tokio::time::sleep(Duration::from_secs(3600)).await,
    }
}
