//! `tokenscope-webhook check` against a listener that asks its clients for a certificate.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use axum::routing::post;
use clap::{CommandFactory as _, Parser as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokenscope_platform::tls::{Clients, ConnectionMetrics, Limits, ServingCertificate, serve, server_config};
use tokenscope_webhook::args::{WebhookArguments, WebhookCommand};
use tokenscope_webhook::check;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const ANSWER: &str = r#"{"response":{"uid":"00000000-0000-0000-0000-000000000000","allowed":true}}"#;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("tokenscope-check-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> OsString {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        file.into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn is_passed(arguments: &[OsString]) -> bool {
    let command_line = ["tokenscope-webhook".into(), "check".into()].into_iter();
    let arguments = WebhookArguments::try_parse_from(command_line.chain(arguments.iter().cloned())).unwrap();
    let Some(WebhookCommand::Check(arguments)) = arguments.command else {
        return false;
    };
    let code = tokio::task::spawn_blocking(move || check::run(&arguments));
    format!("{:?}", code.await.unwrap()) == format!("{:?}", ExitCode::SUCCESS)
}

#[tokio::test]
async fn the_check_shows_its_certificate_where_the_webhook_asks_for_one() {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let leaf = |usage| {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![usage];
        (leaf.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let folder = Folder::new();
    let ca = folder.write("ca.pem", &authority.pem());
    let (certificate, key) = leaf(ExtendedKeyUsagePurpose::ClientAuth);
    let (certificate, key) = (folder.write("client.pem", &certificate), folder.write("key.pem", &key));

    let clients = Clients::from_file(ca.as_ref(), vec!["localhost".to_owned()]).unwrap();
    let (serving, serving_key) = leaf(ExtendedKeyUsagePurpose::ServerAuth);
    let config = server_config(
        ServingCertificate::from_pem(serving, serving_key).unwrap(),
        Some(clients),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new().route("/mutate", post(async || ANSWER));
    let (metrics, stop) = (ConnectionMetrics::default(), CancellationToken::new());
    tokio::spawn(serve(listener, config, app, Limits::default(), metrics, stop));

    let asking: [OsString; 4] = ["--address".into(), address.into(), "--ca".into(), ca];
    let certified: [OsString; 4] = ["--client-cert".into(), certificate, "--client-key".into(), key];
    // One try, and as many as a machine needs that stalls.
    let (once, long): ([OsString; 2], [OsString; 2]) =
        (["--deadline".into(), "0".into()], ["--deadline".into(), "60".into()]);
    assert!(!is_passed(&[&asking[..], &once].concat()).await);
    assert!(is_passed(&[&asking[..], &certified, &long].concat()).await);
}

#[test]
fn the_help_names_the_check_and_wrong_usage_of_it_is_an_error() {
    let help = WebhookArguments::command().render_long_help().to_string();
    assert!(
        help.contains("check") && help.contains("Ask an installed webhook"),
        "{help}"
    );
    for wrong in [
        &["check"][..],
        &["check", "--address=a:1"],
        &["check", "--address=a:1", "--ca=a", "--client-cert=c"],
        &["check", "--address=a:1", "--ca=a", "--listen=127.0.0.1:1"],
    ] {
        let arguments = ["tokenscope-webhook"].iter().chain(wrong);
        let error = WebhookArguments::try_parse_from(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong:?}: {error}");
    }
}
