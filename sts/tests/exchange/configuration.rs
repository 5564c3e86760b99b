//! The server's own certificate and configuration.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokenscope_sts::{Provider, Server, StartError, StsConfig, StsConfigError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ISSUER, Issuer, ROLE, Signer, assume_form, certificate, config, exchange, loopback, request, role};

#[tokio::test]
async fn it_speaks_tls_when_it_has_a_certificate() {
    use rustls_pki_types::pem::PemObject as _;
    let signer = Signer::new(Algorithm::ES384, "k");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (trust_pem, serving) = certificate("localhost");
    let server = Server::start(config(&issuer), loopback(), Some(serving)).await.unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(trust_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let now = Timestamp::now().as_second();
    let token = signer.token(&json!({"iat": now, "nbf": now, "exp": now + 600}));
    let (status, body) = exchange(stream, &request("localhost", "", &assume_form(ROLE, &token, ""))).await;
    assert_eq!(status, 200, "{body}");
    server.stop().await;
}

#[tokio::test]
async fn what_it_is_configured_with_is_checked_when_it_is_added() {
    let public = Server::start(StsConfig::default(), "0.0.0.0:0".parse().unwrap(), None).await;
    assert!(matches!(public, Err(StartError::NotLoopback(_))));
    let connect_to = [("a.test".to_owned(), "192.0.2.1:443".parse().unwrap())].into();
    let elsewhere = Server::start(
        StsConfig {
            connect_to,
            ..StsConfig::default()
        },
        loopback(),
        None,
    )
    .await;
    assert!(
        elsewhere
            .err()
            .unwrap()
            .to_string()
            .starts_with("ValidationError: connect_to: ")
    );

    let server = Server::start(StsConfig::default(), loopback(), None).await.unwrap();
    let good = role(ROLE, &json!("sts:AssumeRoleWithWebIdentity"));
    server.add_role(&good).unwrap();
    assert_eq!(
        server.add_role(&good),
        Err(StsConfigError::EntityAlreadyExists(ROLE.into()))
    );
    server.set_role(&good).unwrap();
    let bad = role(ROLE, &json!("s3:GetObject"));
    assert!(
        server
            .set_role(&bad)
            .unwrap_err()
            .to_string()
            .starts_with("MalformedPolicyDocument: ")
    );
    let provider = || Provider {
        url: ISSUER.into(),
        client_ids: Vec::new(),
        account: "111122223333".into(),
        partition: "aws".into(),
        context_provider: None,
    };
    server.add_provider(provider()).unwrap();
    assert!(matches!(
        server.add_provider(provider()),
        Err(StsConfigError::EntityAlreadyExists(_))
    ));
    let port = Provider {
        url: "https://a.test:6443".into(),
        ..provider()
    };
    assert_eq!(
        server.add_provider(port).unwrap_err().to_string(),
        "ValidationError: url: `https://a.test:6443` has a port"
    );
}
