//! Talking to a webhook without an API server between: which certificate it shows, and reviews at a chosen moment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const DEADLINE: Duration = Duration::from_secs(60);

/// The first certificate of a PEM text.
pub fn first_certificate(pem: &str) -> Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?)
}

/// The certificate that is shown on a port of 127.0.0.1. Fails unless one of the authorities, PEM, vouches for it.
pub async fn shown_certificate(port: u16, authorities: &str) -> Result<CertificateDer<'static>> {
    let stream = tokio::time::timeout(DEADLINE, connect(port, authorities)).await??;
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .context("a TLS server shows a certificate")?;
    Ok(chain.first().context("its chain is not empty")?.clone().into_owned())
}

/// Sends a review of a new pod, and gives the `response` of the answer.
pub async fn review(port: u16, authorities: &str, pod: &Value) -> Result<Value> {
    let namespace = &pod["metadata"]["namespace"];
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "00000000-0000-4000-8000-000000000000", "operation": "CREATE", "namespace": namespace,
            "name": pod["metadata"]["name"], "dryRun": true, "options": null, "object": pod, "oldObject": null,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "somebody", "groups": ["system:authenticated"]},
        },
    })
    .to_string();
    let answer = async {
        let mut stream = connect(port, authorities).await?;
        let head = format!(
            "POST /mutate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            review.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(review.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let text = String::from_utf8(tokio::time::timeout(DEADLINE, answer).await??)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{text}");
    let mut answer: Value = serde_json::from_str(body).with_context(|| format!("not JSON: {text}"))?;
    Ok(answer["response"].take())
}

pub(crate) async fn connect(port: u16, authorities: &str) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("127.0.0.1")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}
