//! The probe against servers of its own, over TLS.

use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use serde_json::json;
use tokenscope_core::trial_review::UID;
use tokenscope_fixtures::retry_while;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers every question with `answer`; its address and its certificate.
async fn webhook(answer: impl Into<String>) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let answer: String = answer.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut question = [0; 4096];
            // Who was late, and has given up, has gone.
            let Ok(count @ 1..) = stream.read(&mut question).await else {
                continue;
            };
            assert!(question[..count].starts_with(b"POST /mutate HTTP/1.1\r\n"));
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            // Where the rest of the question was left unread, its sender would find a broken connection and no answer.
            while stream.read(&mut question).await.is_ok_and(|count| count > 0) {}
        }
    });
    (address, cert.pem())
}

fn answer(uid: &str, allowed: bool) -> String {
    let review = json!({"response": {"uid": uid, "allowed": allowed}});
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{review}")
}

/// A webhook that answers is late only where the machine stalls, and is asked again then.
async fn ask(address: &str, bundles: &[&str]) -> Result<(), Error> {
    let was_late = |asked: &Result<(), Error>| matches!(asked, Err(Error::Late(_)));
    retry_while(was_late, 5, async || ask_once(address, bundles).await).await
}

async fn ask_once(address: &str, bundles: &[&str]) -> Result<(), Error> {
    let bundles = bundles.iter().map(|bundle| bundle.as_bytes().to_vec()).collect();
    let (_sender, bundles) = watch::channel(Some(Some(bundles)));
    let probe = Probe {
        address: address.into(),
        bundles,
        client_certificate: None,
    };
    probe.ask().await
}

#[tokio::test]
async fn a_webhook_that_lets_the_pod_through_works() {
    let (address, authority) = webhook(answer(UID, true)).await;
    ask(&address, &[&authority, &authority]).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_none_of_the_webhooks_shows_nothing() {
    for wrong in [
        answer(UID, false),
        answer("11111111-1111-1111-1111-111111111111", true),
        "HTTP/1.1 503 Service Unavailable\r\n\r\n".into(),
        answer(UID, true).replace("200 OK", "500 no"),
        String::new(),
    ] {
        let (address, authority) = webhook(wrong.clone()).await;
        let error = ask(&address, &[&authority]).await.unwrap_err();
        assert!(matches!(error, Error::Answer(..)), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_an_entry_of_the_configuration_does_not_trust_shows_nothing() {
    let (address, authority) = webhook(answer(UID, true)).await;
    let (_, other) = webhook(answer(UID, true)).await;
    for bundles in [&[][..], &[""], &[&authority, ""], &[&authority, &other]] {
        let error = ask(&address, bundles).await.unwrap_err();
        assert!(matches!(error, Error::NoAuthority), "{error}");
    }
    let error = ask(&address, &[&other]).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(..)), "{error}");
}

#[tokio::test]
async fn a_webhook_that_says_nothing_is_not_waited_for_longer_than_the_deadline() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (_, authority) = webhook("").await;
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let began = Instant::now();
    let error = ask_once(&address, &[&authority]).await.unwrap_err();
    assert!(matches!(error, Error::Late(_)), "{error}");
    // Far more than that only because machines stall.
    assert!(began.elapsed() < DEADLINE * 12);
}

#[tokio::test]
async fn a_missing_client_certificate_is_named() {
    let (address, authority) = webhook(answer(UID, true)).await;
    let (_sender, bundles) = watch::channel(Some(Some(vec![authority.into_bytes()])));
    let missing = Path::new("/nonexistent/tls.crt");
    let probe = Probe {
        address,
        bundles,
        client_certificate: Some(ClientCertificate {
            certificate: missing.into(),
            key: missing.into(),
        }),
    };
    let error = probe.ask().await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/tls.crt"), "{error}");
}

#[test]
fn evidence_ages_and_a_failure_ends_it_at_once() {
    let (mut evidence, began) = (Evidence::default(), Instant::now());
    assert!(!evidence.is_fresh(began), "nobody was asked yet");
    assert!(evidence.may_ask(began));
    assert!(!evidence.may_ask(began + PAUSE), "it has not answered yet");
    assert!(!evidence.note(true, began));
    assert!(evidence.is_fresh(began + VALID / 2) && !evidence.is_fresh(began + VALID));
    assert!(!evidence.may_ask(began + PAUSE / 2));
    assert!(evidence.may_ask(began + PAUSE));
    assert!(evidence.note(false, began + PAUSE));
    assert!(!evidence.is_fresh(began + PAUSE));
    assert!(!evidence.note(false, began + PAUSE * 2), "it is told once");
}
