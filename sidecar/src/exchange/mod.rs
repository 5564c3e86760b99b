//! The exchange of the pod's own token for one of tokenscope's issuer (RFC 8693), as a client of it.
//!
//! Each exchange is a connection of its own: between two of them lie many minutes. No redirect is followed, and nobody is trusted
//! but who has a certificate of the given authorities.

mod answer;
mod error;
mod token_endpoint;

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use answer::Answer;
pub use error::NotExchanged;
use http::Request;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
pub use token_endpoint::{InvalidTokenEndpoint, TokenEndpoint};
use tokenscope_core::{Audience, TokenExpiration};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::one_request::{self, Broken};
use crate::token::Token;
use crate::words::shown;
use crate::x509;

/// The longest exchange, connecting included. The issuer gives itself 3 s.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The longest wait for the connection, without TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest own token of the pod that is sent, in bytes: the issuer reads no longer request than 16 KiB.
const LONGEST_SUBJECT: usize = 15 << 10;
/// The most of what is said of a certificate that is refused, in bytes.
const LONGEST_REASON: usize = 300;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The issuer, and what is asked of it.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// The address of the exchange.
    pub endpoint: TokenEndpoint,
    /// The authorities of its certificate.
    pub authorities: Arc<[Authority]>,
    /// The file with the pod's own token. The kubelet replaces it, so it is read for each exchange.
    pub subject_token: PathBuf,
    /// The lifetime that is asked for; `None` leaves it to the issuer.
    pub lifetime: Option<TokenExpiration>,
}

/// An authority of the issuer's certificate. It vouches for nobody after its end, which rustls does not look at: a trust anchor has
/// none there (RFC 5280 §6.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    ends: Timestamp,
}

/// The authorities in a PEM text, of which there must be one.
pub fn authorities(pem: &str) -> Result<Arc<[Authority]>, String> {
    let mut authorities = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("a certificate is no PEM: {error}"))?;
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|error| format!("a certificate can't be read: {error}"))?;
        let ends = x509::valid_until(&certificate).ok_or("the end of a certificate can't be read")?;
        authorities.push(Authority { certificate, ends });
    }
    if authorities.is_empty() {
        return Err("it should have a certificate as PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(authorities.into())
}

/// Those that have not ended, if there are any.
pub(crate) fn trusted(authorities: &[Authority], now: Timestamp) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in authorities.iter().filter(|authority| authority.ends > now) {
        // Each could be added when it was read.
        let _ = roots.add(authority.certificate.clone());
    }
    (!roots.is_empty()).then_some(roots)
}

/// A client of one issuer.
pub struct Exchanger {
    settings: IssuerSettings,
    provider: Arc<CryptoProvider>,
    deadline: Duration,
}

impl Exchanger {
    /// Nothing is connected to before the first exchange. `deadline` is how long one may take; see [`DEADLINE`].
    pub fn new(settings: IssuerSettings, deadline: Duration) -> Self {
        Self {
            settings,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            deadline,
        }
    }

    /// TLS that trusts the authorities of this moment.
    fn connector(&self, now: Timestamp) -> Result<TlsConnector, NotExchanged> {
        let roots = trusted(&self.settings.authorities, now).ok_or(NotExchanged::AuthoritiesEnded)?;
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.no_tls(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(tls)))
    }

    fn no_tls(&self, error: &dyn std::fmt::Display) -> NotExchanged {
        NotExchanged::Tls {
            issuer: self.settings.endpoint.to_string(),
            reason: shown(&error.to_string(), LONGEST_REASON),
        }
    }

    /// Exchanges the pod's own token for one of this audience, with the lifetime of the settings.
    pub async fn token(&self, audience: &Audience) -> Result<Token, NotExchanged> {
        self.token_for(audience, self.settings.lifetime).await
    }

    /// The same with another lifetime; `None` leaves it to the issuer, which may give less than is asked for.
    pub async fn token_for(
        &self,
        audience: &Audience,
        lifetime: Option<TokenExpiration>,
    ) -> Result<Token, NotExchanged> {
        let subject = self.subject_token()?;
        let form = Self::form(&subject, audience, lifetime);
        let late = || NotExchanged::Deadline(self.deadline.as_secs());
        let answer = timeout(self.deadline, self.ask(form)).await.map_err(|_| late())??;
        answer.token(&subject)
    }

    /// The pod's own token, as the kubelet has it now.
    fn subject_token(&self) -> Result<String, NotExchanged> {
        let path = &self.settings.subject_token;
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST_SUBJECT as u64 + 1).read_to_string(&mut text));
        read.map_err(|error| NotExchanged::SubjectToken {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let length = text.trim_ascii_end().len();
        if length == 0 || text.len() > LONGEST_SUBJECT {
            return Err(NotExchanged::SubjectTokenLength(path.clone()));
        }
        text.truncate(length);
        Ok(text)
    }

    fn form(subject: &str, audience: &Audience, lifetime: Option<TokenExpiration>) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", GRANT_TYPE)
            .append_pair("subject_token", subject)
            .append_pair("subject_token_type", TOKEN_TYPE)
            .append_pair("requested_token_type", TOKEN_TYPE)
            .append_pair("audience", audience.as_str());
        if let Some(lifetime) = lifetime {
            form.append_pair("expires_in", &lifetime.seconds().to_string());
        }
        form.finish()
    }

    async fn ask(&self, form: String) -> Result<Answer, NotExchanged> {
        let request = self.request(form)?;
        let stream = self.connect().await?;
        let answer = one_request::send(stream, request).await?;
        Ok(Answer {
            status: answer.status,
            retry_after: answer.headers.get(RETRY_AFTER).cloned(),
            body: answer.body,
        })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, NotExchanged> {
        let connector = self.connector(Timestamp::now())?;
        let endpoint = &self.settings.endpoint;
        let no_connection = |reason| NotExchanged::Connect {
            issuer: endpoint.to_string(),
            reason,
        };
        let connecting = TcpStream::connect((endpoint.host(), endpoint.port()));
        let stream = timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| no_connection(format!("nothing came about in {} s", CONNECT_DEADLINE.as_secs())))?
            .map_err(|error| no_connection(error.to_string()))?;
        let handshake = connector.connect(endpoint.name(), stream).await;
        handshake.map_err(|error| self.no_tls(&error))
    }

    fn request(&self, form: String) -> Result<Request<Full<Bytes>>, NotExchanged> {
        let endpoint = &self.settings.endpoint;
        Request::post(endpoint.path())
            .header(HOST, endpoint.authority())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("tokenscope-sidecar/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(form)))
            // Path and authority were parsed as parts of a URL.
            .map_err(|_| NotExchanged::Malformed("its URL makes no request"))
    }
}

impl From<Broken> for NotExchanged {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TooLong => Self::TooLong,
            Broken::NotHttp => Self::Malformed("it is no HTTP/1.1"),
            Broken::Lost => Self::ConnectionLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn an_authority_that_has_ended_vouches_for_nobody() {
        let pem = [2030, 2040].map(|year| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        });
        let authorities = authorities(&pem.concat()).unwrap();
        for (day, valid) in [("2029-12-31", 2), ("2030-01-01", 1), ("2039-12-31", 1)] {
            let now = format!("{day}T00:00:00Z").parse().unwrap();
            assert_eq!(trusted(&authorities, now).unwrap().len(), valid, "{day}");
        }
        let after = "2040-01-01T00:00:00Z".parse().unwrap();
        assert!(trusted(&authorities, after).is_none());
    }
}
