//! The documents of a running issuer as files: fetched over TLS, checked, and written as they were served.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod site;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_fixtures::retry_while;
use tokenscope_issuer::args::{IssuerAction, IssuerCommand};
use tokenscope_issuer::commands;
use tokenscope_issuer::document_source::DEADLINE;
use tokenscope_issuer::key_source::{KeyFile, KeySource};
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::signers::Signers;

use crate::site::Site;

const URL: &str = "https://issuer.example.com/a";
const DISCOVERY: &str = "/a/.well-known/openid-configuration";
const KEYS: &str = "/a/keys";

fn ring() -> KeyRing {
    let keys = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    KeyRing::of_signing_keys(keys, Timestamp::UNIX_EPOCH).unwrap()
}

fn served(ring: KeyRing) -> Signers {
    Signers::new(ring, &URL.parse().unwrap())
}

/// Runs the command as the chart's CronJob does, and gives the folder. An error is all of its text.
///
/// A site that answers is late only where the machine stalls, and is asked again then.
async fn publish(site: &Site) -> Result<PathBuf, String> {
    let was_late = |published: &Result<PathBuf, String>| published.as_ref().is_err_and(|error| error.contains(LATE));
    let publish = async || publish_from(site, &site.origin(), &site.authorities()).await;
    retry_while(was_late, 5, publish).await
}

/// What an error says of a site that takes too long.
const LATE: &str = "has not sent both documents within 5 s";

async fn publish_from(site: &Site, origin: &str, authorities: &Path) -> Result<PathBuf, String> {
    let folder = site.folder().join("published");
    let (dir, authorities) = (folder.display().to_string(), authorities.display().to_string());
    let flags = [
        "--issuer-url",
        URL,
        "--from",
        origin,
        "--from-authorities",
        &authorities,
        "--dir",
        &dir,
    ];
    let command = ["tokenscope-issuer", "publish"].iter().chain(&flags);
    let command = IssuerCommand::try_parse_from(command).map_err(|error| error.to_string())?;
    let arguments = match command.action {
        IssuerAction::Publish(arguments) => arguments,
        other => panic!("{other:?}"),
    };
    let done = commands::publish(*arguments).await;
    done.map(|()| folder).map_err(|error| format!("{error:#}"))
}

fn document(folder: &Path, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap()
}

fn json_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[tokio::test]
async fn what_a_running_issuer_serves_is_written_as_files_with_its_certificates() {
    let site = Site::start("served").await;
    for signers in [
        served(ring()),
        Signers::certified(ring(), &URL.parse().unwrap()).unwrap(),
    ] {
        site.put_documents("/a", &signers);
        let folder = publish(&site).await.unwrap();
        assert_eq!(document(&folder, "keys"), json_of(&signers.keys.text));
        let discovery = document(&folder, ".well-known/openid-configuration");
        assert_eq!(discovery, json_of(&signers.discovery.text));
    }
}

#[tokio::test]
async fn the_claims_that_the_issuer_lists_are_published_and_what_the_project_does_not_know_is_not() {
    let site = Site::start("claims").await;
    let signers = served(ring());
    site.put_documents("/a", &signers);
    let mut discovery = json_of(&signers.discovery.text);
    let claims = discovery["claims_supported"].as_array_mut().unwrap();
    claims.push(json!("tokenscope_team"));
    let claims = discovery["claims_supported"].clone();
    discovery["registration_endpoint"] = json!("https://evil.example");
    site.put(DISCOVERY, &discovery.to_string());
    let published = document(&publish(&site).await.unwrap(), ".well-known/openid-configuration");
    assert_eq!(published["claims_supported"], claims);
    assert!(!published.to_string().contains("evil"), "{published}");
}

/// Answers that are not the issuer's own: the path, the whole response, and a part of what is said of it.
fn foreign_answers(signers: &Signers) -> Vec<(&'static str, String, &'static str)> {
    let documents = changed_documents(signers);
    let others = broken_answers();
    documents.into_iter().chain(others).collect()
}

/// Documents that say something else.
fn changed_documents(signers: &Signers) -> Vec<(&'static str, String, &'static str)> {
    let changed = |text: &[u8], change: &dyn Fn(&mut Value)| {
        let mut value = json_of(text);
        change(&mut value);
        let text = value.to_string();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    };
    let discovery = |change: &dyn Fn(&mut Value)| changed(&signers.discovery.text, change);
    let keys = |change: &dyn Fn(&mut Value)| changed(&signers.keys.text, change);
    vec![
        (
            DISCOVERY,
            discovery(&|it| it["issuer"] = json!("https://evil.example")),
            "says issuer \"https://evil.example\"",
        ),
        (
            DISCOVERY,
            discovery(&|it| it["issuer"] = json!(format!("{URL}/"))),
            "says issuer",
        ),
        (
            DISCOVERY,
            discovery(&|it| it["jwks_uri"] = json!("https://evil.example/keys")),
            "says jwks_uri",
        ),
        (
            DISCOVERY,
            discovery(&|it| it["claims_supported"] = json!(vec!["a"; 65])),
            "more than 64 claims",
        ),
        (
            KEYS,
            keys(&|it| it["keys"][0]["d"] = json!("the-secret")),
            "private member \"d\"",
        ),
        (
            KEYS,
            keys(&|it| it["keys"][1]["kid"] = json!("mine")),
            "none that tokenscope's issuer makes",
        ),
        (KEYS, keys(&|it| it["keys"] = json!([])), "no RSA or EC key"),
    ]
}

/// Answers that are no document, or no whole one.
fn broken_answers() -> Vec<(&'static str, String, &'static str)> {
    let redirect =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://evil.example/keys\r\ncontent-length: 0\r\n\r\n";
    let away = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let long = 2 << 20;
    vec![
        (DISCOVERY, redirect.to_owned(), "307"),
        (KEYS, redirect.to_owned(), "307"),
        (KEYS, away.to_owned(), "503"),
        (
            DISCOVERY,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_owned(),
            "no discovery document",
        ),
        (
            KEYS,
            format!("HTTP/1.1 200 OK\r\ncontent-length: {long}\r\n\r\n{}", " ".repeat(long)),
            "more than 1024 KiB",
        ),
        (
            KEYS,
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned(),
            "did not arrive whole",
        ),
        (
            KEYS,
            format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(64 << 10)),
            "no whole answer",
        ),
        (KEYS, "SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "no whole answer"),
    ]
}

/// With each answer that is not the issuer's own, nothing is written: neither over good files nor where there were none.
#[tokio::test]
async fn what_is_not_of_this_issuer_or_has_a_private_key_is_refused_and_nothing_is_written() {
    let site = Site::start("refused").await;
    let signers = served(ring());
    for (path, answer, says) in foreign_answers(&signers) {
        site.put_documents("/a", &signers);
        site.put_raw(path, &answer);
        let error = publish(&site).await.unwrap_err();
        assert!(
            error.contains(says) && !error.contains("the-secret"),
            "{path} {says}: {error}"
        );
        assert!(!site.folder().join("published").exists(), "{path} {says}");
    }
}

#[tokio::test]
async fn an_authority_that_does_not_vouch_for_the_issuer_and_an_origin_with_a_path_are_refused() {
    let (site, other) = (Site::start("authority").await, Site::start("other-authority").await);
    site.put_documents("/a", &served(ring()));
    let error = publish_from(&site, &site.origin(), &other.authorities())
        .await
        .unwrap_err();
    assert!(error.contains("can't be reached over TLS"), "{error}");
    assert_eq!(site.asked(), 0, "nothing was asked");
    let error = publish_from(&site, &format!("{}/a", site.origin()), &site.authorities())
        .await
        .unwrap_err();
    assert!(error.contains("should be https://HOST or https://HOST:PORT"), "{error}");
    for (file, says) in [
        ("/dev/null", "no certificate"),
        ("/dev/zero", "more than 1024 KiB"),
        ("/no/such/file", "can't be read"),
    ] {
        let error = publish_from(&site, &site.origin(), Path::new(file)).await.unwrap_err();
        assert!(error.contains("--from-authorities") && error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn an_issuer_that_takes_the_request_and_says_nothing_is_given_up_after_the_deadline() {
    let site = Site::start("stalls").await;
    site.put_documents("/a", &served(ring()));
    site.stall(KEYS);
    let began = Instant::now();
    let error = publish_from(&site, &site.origin(), &site.authorities())
        .await
        .unwrap_err();
    assert!(error.contains(LATE), "{error}");
    assert!(began.elapsed() >= DEADLINE && site.asked() <= 2);
}

#[tokio::test]
async fn keys_of_ones_own_are_published_from_a_file_that_is_encrypted_with_age() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/age");
    let file = KeySource::File(KeyFile {
        path: folder.join("keys.pem.age"),
        identities: Some(folder.join("identity.txt")),
    });
    let keys = file.read(Timestamp::now()).await.unwrap();
    let site = Site::start("file").await;
    site.put_documents("/a", &served(keys.ring));
    let published = document(&publish(&site).await.unwrap(), "keys");
    assert_eq!(published["keys"][0]["alg"], "ES256", "{published}");
    assert!(published["keys"][0].get("d").is_none(), "{published}");
}

#[test]
fn the_command_says_what_is_missing_and_takes_no_keys() {
    let parse = |flags: &[&str]| {
        let first = ["tokenscope-issuer", "publish", "--dir", "d", "--issuer-url", URL];
        IssuerCommand::try_parse_from(first.iter().chain(flags)).map_err(|error| error.to_string())
    };
    assert!(
        parse(&["--from", "https://a"])
            .unwrap_err()
            .contains("--from-authorities")
    );
    assert!(
        parse(&["--from", "http://a"])
            .unwrap_err()
            .contains("should begin with https://")
    );
    for gone in [
        "--keys-secret=a",
        "--keys-file=a",
        "--x5c=true",
        "--context-config-map=a",
    ] {
        assert!(parse(&[gone]).unwrap_err().contains("unexpected argument"), "{gone}");
    }
}
