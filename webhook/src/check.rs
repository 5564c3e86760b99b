//! `tokenscope-webhook check`: asks an installed webhook for a review, as the API server does. `helm test` runs it in a pod.
//!
//! It needs no right in Kubernetes, only the certificates of the authorities that the webhook's own must come from.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokenscope_core::trial_review;
use tokenscope_platform::args::seconds;

/// The first argument that asks for a check instead of the process.
pub const NAME: &str = "check";

/// How long one try may take.
const TRY_DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks an installed webhook to review a pod that wants nothing, and ends with 0 if it lets the pod through
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tokenscope-webhook check", version)]
struct Arguments {
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

/// Why the check failed.
#[derive(Debug, thiserror::Error)]
enum Error {
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
    Broken(String, #[source] io::Error),
    #[error("it answered {0:?}")]
    Answer(String),
}

/// Runs the check with what follows [`NAME`] on the command line. Tells the outcome on standard output or error.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = [OsString::from(NAME)].into_iter().chain(arguments);
    let arguments = match <Arguments as clap::Parser>::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Where even this can't be printed there is nobody to tell.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    match check(&arguments) {
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

fn check(arguments: &Arguments) -> Result<(), Error> {
    let config = Arc::new(tls(arguments)?);
    let started = Instant::now();
    loop {
        let error = match review(&arguments.address, &config) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if started.elapsed() + PAUSE > arguments.deadline {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

fn tls(arguments: &Arguments) -> Result<ClientConfig, Error> {
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
fn review(address: &str, config: &Arc<ClientConfig>) -> Result<(), Error> {
    let (host, _) = address
        .rsplit_once(':')
        .ok_or_else(|| Error::Address(address.to_owned()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Address(address.to_owned()))?;
    let unreachable = |error| Error::Unreachable(address.to_owned(), error);
    let broken = |error| Error::Broken(address.to_owned(), error);

    let socket = address.to_socket_addrs().map_err(unreachable)?.next();
    let socket = socket.ok_or_else(|| unreachable(io::ErrorKind::NotFound.into()))?;
    let stream = TcpStream::connect_timeout(&socket, TRY_DEADLINE).map_err(unreachable)?;
    stream.set_read_timeout(Some(TRY_DEADLINE)).map_err(broken)?;
    stream.set_write_timeout(Some(TRY_DEADLINE)).map_err(broken)?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream);

    let request = trial_review::request(host);
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut text = Vec::new();
    stream
        .take(trial_review::LONGEST_ANSWER)
        .read_to_end(&mut text)
        .map_err(broken)?;
    let text = String::from_utf8_lossy(&text);
    if trial_review::lets_the_pod_through(&text) {
        return Ok(());
    }
    Err(Error::Answer(text.lines().next().unwrap_or_default().to_owned()))
}
