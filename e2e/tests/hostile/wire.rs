//! What a neighbour sends: bytes over TCP and TLS, without a client that would mend them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::attack::Round;
use crate::field::Field;

/// After that an attacker gives a connection up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of an answer is read at most.
const MOST_READ: u64 = 1 << 20;

/// A TLS connection to where reviews are taken, for HTTP/1.1 or HTTP/2.
pub(crate) async fn connect(field: &Field, protocol: &[u8]) -> Result<TlsStream<TcpStream>> {
    secured(field, protocol, tcp(field.review_port()).await?).await
}

/// The same from an address that no API server has, as pods have: 127.0.0.2.
pub(crate) async fn connect_from_elsewhere(field: &Field, protocol: &[u8]) -> Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)))?;
    let webhook = SocketAddr::from((Ipv4Addr::LOCALHOST, field.review_port()));
    let stream = tokio::time::timeout(PATIENCE, socket.connect(webhook)).await??;
    secured(field, protocol, stream).await
}

async fn secured(field: &Field, protocol: &[u8], stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(client_config(&field.authorities, protocol)?);
    let name = ServerName::try_from("127.0.0.1")?;
    Ok(tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await??)
}

/// A connection to a port of 127.0.0.1.
pub(crate) async fn tcp(port: u16) -> Result<TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(("127.0.0.1", port))).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head of a POST of a review, with these headers beside its type.
pub(crate) fn head(headers: &str) -> String {
    format!("POST /mutate?timeout=2s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n{headers}\r\n\r\n")
}

/// Posts a body on a connection of its own and counts the answer's status, or what happened instead.
pub(crate) async fn post(field: &Field, round: &Round, body: &[u8]) -> Option<String> {
    post_with(
        field,
        round,
        &format!("Content-Length: {}\r\nConnection: close", body.len()),
        body,
    )
    .await
}

/// The same with headers of its own.
pub(crate) async fn post_with(field: &Field, round: &Round, headers: &str, body: &[u8]) -> Option<String> {
    let exchange = async {
        let mut stream = connect(field, b"http/1.1").await?;
        stream.write_all(head(headers).as_bytes()).await?;
        // A server that has refused it already doesn't read the rest.
        let _ = stream.write_all(body).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let read = (&mut stream).take(MOST_READ).read_to_end(&mut answer).await;
        if answer.is_empty() {
            read?;
        }
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => {
            round.count(answer.split(' ').nth(1).unwrap_or("closed"));
            Some(answer)
        }
        Ok(Err(error)) => {
            round.count(failure(&error));
            None
        }
        Err(_) => {
            round.count("no answer");
            None
        }
    }
}

/// What became of a connection, in a word.
pub(crate) fn failure(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "not accepted",
        _ => "broken",
    }
}

fn client_config(authorities: &str, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate.context("an authority is PEM")?)?;
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}
