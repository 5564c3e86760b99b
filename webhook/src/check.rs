//! `tokenscope-webhook check`: asks an installed webhook for a review, as the API server does. `helm test` runs it in a pod.
//!
//! It needs no right in Kubernetes, only the certificates of the authorities that the webhook's own must come from. It exits with 0 if
//! the webhook answers and lets the pod through, with 1 if it does not before the deadline, and with 2 after wrong usage.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokenscope_core::trial_review;
use tokenscope_platform::args::seconds;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

/// The longest time that one try may take.
const TRY_DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two.
const PAUSE: Duration = Duration::from_secs(1);

/// The flags of the check.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArguments {
    /// The webhook's Service: HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    address: String,

    /// A PEM file with the authorities that the webhook's certificate may come from
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,

    /// A PEM file with the certificate to show, where the webhook asks its clients for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// A PEM file with that certificate's key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,

    /// For how many seconds it is tried again
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    deadline: Duration,
}

/// The reason why the check failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no thread or timer can be had")]
    Runtime(#[source] io::Error),
    #[error("{0:?} is no address: HOST:PORT is expected")]
    Address(String),
    #[error("{} has no readable certificate", .0.display())]
    Authorities(PathBuf, #[source] pem::Error),
    #[error("{} has no readable certificate", .0.display())]
    Certificate(PathBuf, #[source] pem::Error),
    // The parser's own error may quote a line of the key.
    #[error("{} has no readable private key", .0.display())]
    Key(PathBuf),
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    #[error("{0} can't be reached")]
    Unreachable(String, #[source] io::Error),
    #[error("{0} broke off")]
    Broken(String, #[source] hyper::Error),
    #[error("{0} can't be reached, or did not answer within {seconds} s", seconds = TRY_DEADLINE.as_secs())]
    Late(String),
    #[error("{0} sent an answer that can't be read")]
    Unreadable(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} answered with status {1}, and did not let the pod through")]
    Answer(String, StatusCode),
}

/// Runs the check. Says the outcome on standard output or error.
pub fn run(arguments: &CheckArguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(check(arguments)));
    match result {
        Ok(()) => {
            println!(
                "the webhook answers at {}, with a certificate of its authority",
                arguments.address
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", tokenscope_platform::telemetry::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn check(arguments: &CheckArguments) -> Result<(), Error> {
    let address = &arguments.address;
    let connector = TlsConnector::from(Arc::new(tls(arguments)?));
    let started = Instant::now();
    loop {
        let tried = timeout(TRY_DEADLINE, review(address, &connector)).await;
        let error = match tried.unwrap_or_else(|_| Err(Error::Late(address.clone()))) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if started.elapsed() + PAUSE > arguments.deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

fn tls(arguments: &CheckArguments) -> Result<ClientConfig, Error> {
    let authorities = &arguments.ca;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities).map_err(|error| Error::Authorities(authorities.clone(), error))? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&arguments.client_cert, &arguments.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate).map_err(|error| Error::Certificate(certificate.clone(), error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| Error::Key(key.clone()))?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}

/// One review of a pod that opts out: no policy says anything about it.
async fn review(address: &str, connector: &TlsConnector) -> Result<(), Error> {
    let no_address = || Error::Address(address.to_owned());
    let unreachable = |error| Error::Unreachable(address.to_owned(), error);
    let broken = |error| Error::Broken(address.to_owned(), error);
    let (host, _) = address.rsplit_once(':').ok_or_else(no_address)?;
    // An IPv6 address stands in brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| no_address())?;
    let request = Request::post(trial_review::PATH)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(trial_review::review())))
        .map_err(|_| no_address())?;

    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let stream = connector.connect(name, stream).await.map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), trial_review::LONGEST_ANSWER as usize).collect();
        let body = body
            .await
            .map_err(|error| Error::Unreadable(address.to_owned(), error))?;
        if status == StatusCode::OK && trial_review::allows(&body.to_bytes()) {
            return Ok(());
        }
        Err(Error::Answer(address.to_owned(), status))
    };
    tokio::pin!(answer);
    // The connection must be polled for its answer to arrive. It may end before the body was looked at.
    tokio::select! {
        answered = &mut answer => answered,
        ended = connection => {
            ended.map_err(broken)?;
            answer.await
        }
    }
}
