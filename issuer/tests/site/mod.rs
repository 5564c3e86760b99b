//! A web server with TLS on 127.0.0.1 that answers what a test says, byte for byte.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokenscope_fixtures::unique_name;
use tokenscope_issuer::signers::Signers;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The server. It ends when it is dropped.
pub(crate) struct Site {
    pub(crate) port: u16,
    /// The certificate that vouches for it, as PEM.
    pub(crate) authority: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    pub(crate) asked: Arc<AtomicUsize>,
    folder: PathBuf,
    _stop: DropGuard,
}

#[derive(Clone, Debug)]
enum Answer {
    Text(Vec<u8>),
    Nothing,
}

impl Site {
    /// Serves nothing yet: each path is answered with 404.
    pub(crate) async fn start(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stop = CancellationToken::new();
        let folder = std::env::temp_dir().join(unique_name(&format!("site-{name}")));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.crt"), made.cert.pem()).unwrap();
        let this = Self {
            port: listener.local_addr().unwrap().port(),
            authority: made.cert.pem(),
            answers: Arc::default(),
            asked: Arc::default(),
            folder,
            _stop: stop.clone().drop_guard(),
        };
        let (answers, asked) = (this.answers.clone(), this.asked.clone());
        tokio::spawn(async move {
            let serving = async {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(acceptor.clone(), stream, answers.clone(), asked.clone()));
                }
            };
            stop.run_until_cancelled(serving).await;
        });
        this
    }

    /// https, and no path.
    pub(crate) fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A file with the authority of its certificate.
    pub(crate) fn authorities(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A folder of the test's own.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Answers a path with 200 and this text from now on.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        self.put_raw(path, &format!("{head}{text}"));
    }

    /// Answers a path with these bytes from now on.
    pub(crate) fn put_raw(&self, path: &str, answer: &str) {
        let answer = Answer::Text(answer.as_bytes().to_vec());
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Takes requests for a path and never answers them, from now on.
    pub(crate) fn stall(&self, path: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), Answer::Nothing);
    }

    /// Serves both documents as the issuer does, below this path.
    pub(crate) fn put_documents(&self, path: &str, signers: &Signers) {
        for (below, document) in [
            ("/.well-known/openid-configuration", &signers.discovery),
            ("/keys", &signers.keys),
        ] {
            self.put(&format!("{path}{below}"), std::str::from_utf8(&document.text).unwrap());
        }
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<AtomicUsize>,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = answers.lock().unwrap().get(path).cloned();
    asked.fetch_add(1, Ordering::Relaxed);
    match answer {
        Some(Answer::Text(text)) => {
            let _ = stream.write_all(&text).await;
        }
        Some(Answer::Nothing) => std::future::pending().await,
        None => {
            let _ = stream
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    }
    let _ = stream.shutdown().await;
}
