//! The programs that the tests and the demo run beside a cluster: a web server that publishes its issuer, an address that stands
//! for a server, and a guard that ends it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustls::{ServerConfig, ServerConnection, Stream};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokenscope_e2e::forward::leads_to;
use tokenscope_e2e::output::exit_code;
use tokenscope_xtask::cluster::Cluster;

/// What is published: the two documents that a verifier of tokens asks for.
const DOCUMENTS: [&str; 3] = ["/.well-known/openid-configuration", "/openid/v1/jwks", "/keys"];

/// How long a visitor may take.
const VISIT: Duration = Duration::from_secs(60);

/// The longest head of a request.
const LONGEST_HEAD: usize = 16 * 1024;

/// Runs beside a cluster of the tests or the demo.
#[derive(Parser)]
enum Arguments {
    /// Serve an issuer's two documents from a folder, as any web server could
    Publish {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
        /// The documents, by their paths in the URL
        #[arg(long)]
        folder: PathBuf,
        /// PEM
        #[arg(long)]
        certificate: PathBuf,
        /// PEM
        #[arg(long)]
        key: PathBuf,
    },
    /// Let an address stand for a server that listens on a loopback address only
    Forward {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
        /// The server
        #[arg(long)]
        to: SocketAddr,
    },
    /// End a cluster when standard input closes, because whoever started it is done or gone
    Guard {
        /// The cluster's name
        name: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Arguments::Publish {
            listen,
            folder,
            certificate,
            key,
        } => publish(listen, &folder, &certificate, &key),
        Arguments::Forward { listen, to } => forward(listen, to),
        Arguments::Guard { name } => guard(&name),
    };
    exit_code(result)
}

fn guard(name: &str) -> Result<()> {
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    Cluster::named(name)?.down()?;
    Ok(())
}

fn forward(listen: SocketAddr, to: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    println!("{}", listener.local_addr()?);
    leads_to(&listener, to);
    Ok(())
}

fn publish(listen: SocketAddr, folder: &Path, certificate: &Path, key: &Path) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    for visitor in listener.incoming() {
        let (config, folder) = (Arc::clone(&config), folder.to_owned());
        std::thread::spawn(move || {
            if let Err(error) = visitor
                .map_err(Into::into)
                .and_then(|visitor| answer(visitor, config, &folder))
            {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

fn answer(mut visitor: TcpStream, config: Arc<ServerConfig>, folder: &Path) -> Result<()> {
    visitor.set_read_timeout(Some(VISIT))?;
    visitor.set_write_timeout(Some(VISIT))?;
    let mut connection = ServerConnection::new(config)?;
    let mut stream = Stream::new(&mut connection, &mut visitor);
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes)?;
        if count == 0 || head.len() + count > LONGEST_HEAD {
            bail!("no request");
        }
        head.extend_from_slice(&bytes[..count]);
    }
    let head = String::from_utf8_lossy(&head);
    let asked = head.strip_prefix("GET ").and_then(|rest| rest.split([' ', '?']).next());
    let document = DOCUMENTS.into_iter().find(|path| Some(*path) == asked);
    let content = document.and_then(|path| std::fs::read(folder.join(path.trim_start_matches('/'))).ok());
    let (status, body) = match &content {
        Some(content) => ("200 OK", content.as_slice()),
        None => ("404 Not Found", b"{}".as_slice()),
    };
    println!("{} {status}", asked.unwrap_or("?"));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
