//! The two documents of this issuer as relying parties see them: fetched over TLS, within a deadline and a bound, and checked.
//!
//! The paths are those of the issuer's URL, whatever the discovery document says: it must say the same. No redirect is followed and no
//! proxy is asked.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::issuer_url::IssuerUrl;

/// For both documents together, from the resolution of the name on.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The most of one document, in bytes: 200 keys, each with a certificate.
pub const MOST_BYTES: usize = 1 << 20;
/// The most of an answer's head, in bytes.
const MOST_HEAD_BYTES: usize = 16 << 10;
/// The most claims that a discovery document may list. Ours lists 20 at most.
const MOST_CLAIMS: usize = 64;
/// The longest name of a claim, in bytes. Ours have 128 and a prefix at most.
const MOST_CLAIM_BYTES: usize = 256;

/// The reason why the documents can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The origin has a path.
    #[error("{0} should be https://HOST or https://HOST:PORT: the paths are those of the issuer's URL")]
    Origin(IssuerUrl),
    /// There is no authority to trust.
    #[error("there is no certificate of an authority in the file: it should have at least one, as PEM")]
    NoAuthority,
    /// The file of the authorities can't be read.
    #[error("the file can't be read")]
    File(#[source] io::Error),
    /// The file of the authorities is too long.
    #[error("the file has more than {most} KiB", most = MOST_BYTES >> 10)]
    FileTooLong,
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// No answer in time.
    #[error("{0} has not sent both documents within {seconds} s", seconds = DEADLINE.as_secs())]
    Late(Box<str>),
    /// Nobody answers there, or not with a certificate that is trusted.
    #[error("{0} can't be reached over TLS")]
    Connect(Box<str>, #[source] io::Error),
    /// The request can't be sent or the answer can't be read.
    #[error("{0} gives no whole answer of HTTP/1.1")]
    Http(String, #[source] hyper::Error),
    /// Another answer than the document.
    #[error("{0} answers {1}: it should be 200, and no redirect is followed")]
    Status(String, StatusCode),
    /// The document broke off or is too long.
    #[error("{0} did not arrive whole, or has more than {most} KiB", most = MOST_BYTES >> 10)]
    Body(String),
    /// The discovery document can't be read.
    #[error("{0} is no discovery document")]
    Discovery(String, #[source] serde_json::Error),
    /// The discovery document is of another issuer.
    #[error("the discovery document says {member} {found:?}, and it should be {expected:?}")]
    Other {
        /// The member.
        member: &'static str,
        /// The value that it has, at most 255 characters of it.
        found: Box<str>,
        /// The value that it should have.
        expected: Box<str>,
    },
    /// The discovery document lists too many or too long claims.
    #[error(
        "the discovery document lists more than {MOST_CLAIMS} claims, or one with more than {MOST_CLAIM_BYTES} bytes"
    )]
    Claims,
}

/// The documents, of which the first was checked and the second is as it came.
#[derive(Clone, Debug)]
pub struct FetchedDocuments {
    /// The claims that the discovery document lists.
    pub claims: Vec<Box<str>>,
    /// The key set, which nobody has read yet.
    pub keys: Bytes,
}

/// The place from which an issuer's documents are fetched.
#[derive(Clone, Debug)]
pub struct DocumentSource {
    issuer: IssuerUrl,
    /// The server of the documents: a URL without a path.
    origin: IssuerUrl,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl DocumentSource {
    /// The documents of `issuer` as `origin` serves them: the Service, say, or the issuer's own host. `authorities` vouch for its certificate.
    pub fn new(issuer: IssuerUrl, origin: IssuerUrl, authorities: RootCertStore) -> Result<Self, DocumentError> {
        let Ok(name) = ServerName::try_from(origin.host().to_owned()) else {
            return Err(DocumentError::Origin(origin));
        };
        if !origin.path().is_empty() {
            return Err(DocumentError::Origin(origin));
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Ok(Self {
            issuer,
            origin,
            name,
            tls: Arc::new(tls),
        })
    }

    /// Fetches both documents and checks that the first is of this issuer and names the second.
    pub async fn fetch(&self) -> Result<FetchedDocuments, DocumentError> {
        let late = || DocumentError::Late(self.origin.as_str().into());
        timeout(DEADLINE, self.both()).await.map_err(|_| late())?
    }

    async fn both(&self) -> Result<FetchedDocuments, DocumentError> {
        let path = self.issuer.discovery_path();
        let claims = self.claims(&self.get(&path).await?)?;
        let keys = self.get(&self.issuer.keys_path()).await?;
        Ok(FetchedDocuments { claims, keys })
    }

    /// The claims that a discovery document lists, if it is of this issuer.
    fn claims(&self, text: &[u8]) -> Result<Vec<Box<str>>, DocumentError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: Box<str>,
            jwks_uri: Box<str>,
            #[serde(default)]
            claims_supported: Vec<Box<str>>,
        }
        let url = self.issuer.discovery_path();
        let document: Discovery = serde_json::from_slice(text).map_err(|error| DocumentError::Discovery(url, error))?;
        let jwks_uri = self.issuer.jwks_uri();
        for (member, found, expected) in [
            ("issuer", &document.issuer, self.issuer.as_str()),
            ("jwks_uri", &document.jwks_uri, jwks_uri.as_str()),
        ] {
            if **found != *expected {
                return Err(DocumentError::Other {
                    member,
                    found: found.chars().take(255).collect::<String>().into(),
                    expected: expected.into(),
                });
            }
        }
        let claims = document.claims_supported;
        if claims.len() > MOST_CLAIMS || claims.iter().any(|claim| claim.len() > MOST_CLAIM_BYTES) {
            return Err(DocumentError::Claims);
        }
        Ok(claims)
    }

    /// One document, on a connection of its own.
    async fn get(&self, path: &str) -> Result<Bytes, DocumentError> {
        let origin = (self.origin.host(), self.origin.port());
        let url = format!("{}{path}", self.origin);
        let unreachable = |error| DocumentError::Connect(self.origin.as_str().into(), error);
        let broken = |error| DocumentError::Http(url.clone(), error);
        let stream = TcpStream::connect(origin).await.map_err(unreachable)?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(unreachable)?;
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(MOST_HEAD_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(broken)?;
        let mut connections = JoinSet::new(); // dropped, and so ended, with this call
        connections.spawn(connection);
        // A path of an issuer's URL is one of HTTP, and a host is a header: `IssuerUrl` has checked both.
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().unwrap_or_default();
        if let Ok(host) = self.origin.authority().parse() {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(DocumentError::Status(url, response.status()));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        body.map(Collected::to_bytes).map_err(|_| DocumentError::Body(url))
    }
}

/// The authorities in a PEM file of at most [`MOST_BYTES`].
pub async fn authorities_of_file(path: &Path) -> Result<RootCertStore, DocumentError> {
    let mut pem = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(DocumentError::File)?;
    let read = file.take(MOST_BYTES as u64 + 1).read_to_end(&mut pem).await;
    if read.map_err(DocumentError::File)? > MOST_BYTES {
        return Err(DocumentError::FileTooLong);
    }
    authorities(&pem)
}

/// The authorities in a text of PEM.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, DocumentError> {
    let mut roots = RootCertStore::empty();
    // What is no certificate vouches for nobody; the next one may.
    for certificate in CertificateDer::pem_slice_iter(pem).flatten() {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(DocumentError::NoAuthority);
    }
    Ok(roots)
}
