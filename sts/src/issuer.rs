//! The keys of issuers: discovery and JWKS over TLS, remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::aws_error::AwsError;
use crate::token::{Key, KeySet, no_verification_key};

/// For discovery and keys together. AWS gives an issuer 5 s.
const DEADLINE: Duration = Duration::from_secs(5);
/// Enough for 200 keys with their certificates.
const MAX_BODY: usize = 1 << 20;
/// The time that keys are used without asking again, in seconds.
const KEYS_LAST: i64 = 300;
/// The time between two questions because of an unknown `kid`, in seconds.
const REFRESH_EVERY: i64 = 30;

/// Fetches and remembers keys. One fetch at a time for each issuer.
pub(crate) struct Issuers {
    connector: TlsConnector,
    connect_to: BTreeMap<String, SocketAddr>,
    /// Bounded by the registered providers: nobody else's issuer is ever asked for.
    remembered: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Remembered>>>>,
}

#[derive(Default)]
struct Remembered {
    keys: KeySet,
    fetched: Option<Timestamp>,
}

impl Remembered {
    /// True if the issuer is to be asked before `key_id` is looked up.
    fn needs_fetch(&self, key_id: &str, now: Timestamp) -> bool {
        let Some(fetched) = self.fetched else { return true };
        let age = now.as_second() - fetched.as_second();
        age >= KEYS_LAST || (age >= REFRESH_EVERY && self.keys.find(key_id).is_none())
    }
}

/// The reason why an issuer's keys could not be had. For the log; the caller reads AWS's text.
#[derive(Debug, thiserror::Error)]
enum KeyFetchError {
    #[error("no connection to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error("{0} leads to {1}, which can't be reached from the internet; use connect_to for a loopback address")]
    NotPublic(String, IpAddr),
    #[error("TLS with {0}")]
    Tls(String, #[source] std::io::Error),
    #[error("{0} is not an https URL")]
    Url(String),
    #[error("HTTP with {0}")]
    Http(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    #[error("{0}: the discovery document is not valid")]
    Discovery(String, #[source] serde_json::Error),
    #[error("the discovery document of {0} is of another issuer, {1}")]
    OtherIssuer(String, String),
    #[error("{0}: {1}")]
    Keys(String, String),
}

impl KeyFetchError {
    /// AWS says that an issuer can't be reached where a retry may help, and else that there is no key.
    fn as_aws_error(&self) -> AwsError {
        let unreachable = match self {
            Self::Connect(..) => true,
            Self::Status(_, status) => status.is_server_error(),
            _ => false,
        };
        if unreachable {
            let message =
                "The identity provider that was asked to verify the incoming identity token could not be reached";
            return AwsError::new(400, "IDPCommunicationError", message);
        }
        no_verification_key()
    }
}

impl Issuers {
    /// `trust_pem`: the CAs that issuers' certificates must chain to.
    pub(crate) fn new(
        trust_pem: &str,
        connect_to: BTreeMap<String, SocketAddr>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trust_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls)),
            connect_to,
            remembered: Mutex::default(),
        })
    }

    /// The key of a registered issuer.
    pub(crate) async fn key(&self, issuer: &str, key_id: &str, now: Timestamp) -> Result<Key, AwsError> {
        // Waiting for another request's fetch counts too, so that a dead issuer holds nobody longer than this.
        let found = match tokio::time::timeout(DEADLINE, self.find(issuer, key_id, now)).await {
            Ok(found) => found,
            Err(_) => Err(KeyFetchError::Deadline),
        };
        let key = found.map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::warn!(issuer, %error, cause, "no keys");
            error.as_aws_error()
        })?;
        key.ok_or_else(no_verification_key)
    }

    async fn find(&self, issuer: &str, key_id: &str, now: Timestamp) -> Result<Option<Key>, KeyFetchError> {
        let remembered = {
            let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(issuer.to_owned()).or_default().clone()
        };
        let mut remembered = remembered.lock().await;
        if remembered.needs_fetch(key_id, now) {
            *remembered = Remembered {
                keys: self.fetch(issuer).await?,
                fetched: Some(now),
            };
        }
        Ok(remembered.keys.find(key_id).cloned())
    }

    async fn fetch(&self, issuer: &str) -> Result<KeySet, KeyFetchError> {
        #[derive(Deserialize)]
        struct DiscoveryDocument {
            issuer: String,
            jwks_uri: String,
        }
        // OpenID Connect Discovery 1.0 §4.1: a slash at the end of the issuer is removed first.
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let body = self.get(&url).await?;
        let discovery: DiscoveryDocument =
            serde_json::from_slice(&body).map_err(|error| KeyFetchError::Discovery(url.clone(), error))?;
        if discovery.issuer != issuer {
            return Err(KeyFetchError::OtherIssuer(issuer.to_owned(), discovery.issuer));
        }
        let keys = self.get(&discovery.jwks_uri).await?;
        KeySet::parse(&keys).map_err(|problem| KeyFetchError::Keys(discovery.jwks_uri, problem))
    }

    /// Redirects are not followed.
    async fn get(&self, url: &str) -> Result<Bytes, KeyFetchError> {
        let wrong_url = || KeyFetchError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong_url())?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(wrong_url)?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong_url());
        }
        let host = authority.host().to_owned();
        let http = |error: Box<dyn std::error::Error + Send + Sync>| KeyFetchError::Http(host.clone(), error);
        let stream = self.connect(&host, authority.port_u16().unwrap_or(443)).await?;
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong_url())?;
        let stream = self
            .connector
            .connect(name, stream)
            .await
            .map_err(|error| KeyFetchError::Tls(host.clone(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| http(error.into()))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header("host", authority.as_str())
            // kube-apiserver serves its keys as the second only, and answers 406 to whoever doesn't take that.
            .header("accept", "application/json, application/jwk-set+json")
            .header("user-agent", "tokenscope-sts")
            .body(Empty::<Bytes>::new())
            .map_err(|error| http(error.into()))?;
        let response = sender.send_request(request).await.map_err(|error| http(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(KeyFetchError::Status(url.to_owned(), response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(http)?;
        Ok(body.to_bytes())
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, KeyFetchError> {
        let failed = |error| KeyFetchError::Connect(host.to_owned(), error);
        if let Some(address) = self.connect_to.get(host) {
            return TcpStream::connect(address).await.map_err(failed);
        }
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
        if let Some(address) = addresses.iter().find(|address| !is_public(address.ip())) {
            return Err(KeyFetchError::NotPublic(host.to_owned(), address.ip()));
        }
        TcpStream::connect(addresses.as_slice()).await.map_err(failed)
    }
}

/// AWS asks from the internet; an issuer at a private address works nowhere but here.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_last_five_minutes_and_an_unknown_kid_asks_again_every_half_minute() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let keys = KeySet::parse(br#"{"keys":[{"kty":"RSA","kid":"known","n":"AQAB","e":"AQAB"}]}"#).unwrap();
        let remembered = Remembered {
            keys,
            fetched: Some(at(1000)),
        };
        assert!(Remembered::default().needs_fetch("known", at(1000)));
        for (key_id, second, expected) in [
            ("known", 1299, false),
            ("known", 1300, true),
            ("unknown", 1029, false),
            ("unknown", 1030, true),
        ] {
            assert_eq!(
                remembered.needs_fetch(key_id, at(second)),
                expected,
                "{key_id} {second}"
            );
        }
    }

    #[test]
    fn only_addresses_that_aws_could_reach_are_public() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        assert!(is_public("198.51.100.10".parse().unwrap()) && is_public("2001:db8::1".parse().unwrap()));
    }
}
