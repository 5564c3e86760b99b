//! The exchange at an issuer: what is asked, what is made of each answer, and what is never done or said.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, also outside the tests themselves"
)]

mod lab;
mod server;
mod waits;

use std::fs;
use std::time::Duration;

use lab::Lab;
use server::{Reply, TestIssuer, token, value};

const STS: &str = "sts.amazonaws.com";

/// A pod's own token.
fn subject(name: &str) -> String {
    format!(
        "{}.{name}",
        token("https://tokens.example", 3600).rsplit_once('.').unwrap().0
    )
}

/// An issuer that always has a token.
async fn generous() -> TestIssuer {
    TestIssuer::start(|form, _| Reply::token(&token(value(form, "audience"), 3600))).await
}

#[tokio::test]
async fn one_exchange_for_each_audience_fills_all_its_files() {
    let issuer = generous().await;
    let lab = Lab::new("audiences", &issuer);
    let other = |name: &str| lab.path("other").join(name).display().to_string();
    let files = format!("token={STS} {}=vault {}={STS}", other("token"), other("copy"));
    let lab = lab.with("TOKENSCOPE_ISSUED_TOKENS", files);
    let sidecar = lab.start();
    sidecar
        .until("all files are there", || lab.not_ready().is_none().then_some(()))
        .await;

    let read = |path| fs::read_to_string(path).unwrap();
    assert_eq!(lab.token().unwrap(), read(lab.path("other/copy")));
    assert_ne!(lab.token().unwrap(), read(lab.path("other/token")));
    let mut requests = issuer.requests();
    requests.sort();
    let expected = |audience: &str| {
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &*subject("first")),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("audience", audience),
            ("expires_in", "900"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    };
    let audiences: Vec<_> = requests.iter().map(|form| value(form, "audience")).collect();
    assert_eq!(audiences, [STS, "vault"]);
    let without_subject = |mut form: server::Form| {
        form.retain(|(name, _)| name != "subject_token");
        form
    };
    assert_eq!(without_subject(requests[0].clone()), without_subject(expected(STS)));
    sidecar.log();
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_with_the_subject_token_that_is_there_then() {
    let issuer = TestIssuer::start(|form, _| Reply::token(&token(value(form, "audience"), 6))).await;
    let lab = Lab::new("renewed", &issuer);
    let sidecar = lab.start();
    let first = sidecar.until("there is a token", || lab.token()).await;
    // As the kubelet replaces it; a line's end belongs to no token.
    let second = subject("second");
    lab.write_subject(&format!("{second}\n"));
    let asked_with_second = || {
        let requests = issuer.requests();
        let found = requests.iter().find(|form| value(form, "subject_token") == second);
        found.map(|_| ())
    };
    sidecar.until("it is asked with the new one", asked_with_second).await;
    sidecar
        .until("there is the next one", || lab.token().filter(|token| *token != first))
        .await;
    sidecar
        .until("it is ready", || lab.not_ready().is_none().then_some(()))
        .await;
    sidecar.log();
}

#[tokio::test]
async fn the_subject_token_is_waited_for() {
    let issuer = generous().await;
    let lab = Lab::new("subject", &issuer);
    fs::remove_file(lab.path("subject")).unwrap();
    let sidecar = lab.start();
    sidecar.logs("can't read the pod's own token").await;
    assert!(lab.not_ready().unwrap().contains("can't read the pod's own token"));
    for none in [String::new(), "\n".to_owned(), "x".repeat(20_000)] {
        lab.write_subject(&none);
        sidecar.logs("is empty, or too long to be one").await;
    }
    assert!(issuer.requests().is_empty());
    lab.write_subject(&subject("first"));
    sidecar.until("there is a token", || lab.token()).await;
    sidecar.log();
}

#[tokio::test]
async fn who_has_no_certificate_of_the_given_authorities_for_the_name_is_told_nothing() {
    let right = generous().await;
    let impostor = generous().await;
    let other_name = TestIssuer::start_as("issuer.example", |_, _| Reply::Nothing).await;
    for (name, issuer, authority) in [
        ("impostor", &impostor, &right.authority),
        ("name", &other_name, &other_name.authority),
    ] {
        let lab = Lab::new(name, issuer).with("TOKENSCOPE_ISSUER_CA", authority.clone());
        let sidecar = lab.start();
        sidecar.logs(&format!("no TLS with the issuer {}", issuer.url())).await;
        let why = lab.not_ready().unwrap();
        assert!(why.contains("invalid peer certificate"), "{why}");
        assert_eq!((issuer.requests().len(), lab.token()), (0, None));
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_tried_again() {
    let issuer = generous().await;
    // It listens for nobody, and is nobody else's meanwhile.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let nobody = silent.local_addr().unwrap();
    for (name, url) in [
        ("nobody", format!("https://{nobody}")),
        ("no-name", "https://issuer.invalid".to_owned()),
    ] {
        let lab = Lab::new(name, &issuer).with("TOKENSCOPE_ISSUER", url.clone());
        let sidecar = lab.start();
        sidecar
            .logs(&format!("can't connect to the issuer {url}/token: "))
            .await;
        let often = || (sidecar.log().matches(r#""reason":"connect""#).count() > 2).then_some(());
        sidecar.until("it is tried again", often).await;
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_is_given_up_and_asked_again() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::Nothing,
        _ => Reply::token(&token(value(form, "audience"), 3600)),
    })
    .await;
    let lab = Lab::new("hangs", &issuer);
    let sidecar = lab.start();
    sidecar.logs("the issuer has not answered yet").await;
    assert!(lab.not_ready().unwrap().contains("the issuer has not answered yet"));
    sidecar.logs("the issuer gave no answer in 10 s").await;
    sidecar.until("there is a token", || lab.token()).await;
    sidecar.logs("written for the first time").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = generous().await;
    let location = format!("location: {}/token\r\n", elsewhere.url());
    let issuer = TestIssuer::start(move |_, before| {
        let status = [301, 302, 303, 307, 308][before % 5];
        Reply::json(status, &location, &serde_json::json!({}))
    })
    .await;
    // Even where the other one is trusted.
    let both = format!("{}{}", issuer.authority, elsewhere.authority);
    let lab = Lab::new("redirect", &issuer).with("TOKENSCOPE_ISSUER_CA", both);
    let sidecar = lab.start();
    sidecar
        .until("all were answered", || (issuer.requests().len() > 5).then_some(()))
        .await;
    sidecar.logs("and redirects are not followed").await;
    assert_eq!((elsewhere.requests().len(), lab.token()), (0, None));
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::Endless(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            format!("1000\r\n{}\r\n", "x".repeat(0x1000)).into_bytes(),
        ),
        1 => Reply::Endless(
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{\"access_token\":\"".to_vec(),
            vec![b'e'; 0x1000],
        ),
        2 => Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(100)),
        3 => Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'e'; 0x1000]),
        _ => Reply::token(&token(value(form, "audience"), 3600)),
    })
    .await;
    let lab = Lab::new("endless", &issuer);
    let sidecar = lab.start();
    sidecar.until("there is a token", || lab.token()).await;
    let log = sidecar.log();
    assert_eq!(log.matches("longer than any with a token").count(), 4, "{log}");
}

#[tokio::test]
async fn a_token_that_is_not_the_one_that_was_asked_for_is_not_written() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::token(&token("sts.example", 3600)),
        1 => Reply::token(&token(value(form, "audience"), -5)),
        2 => Reply::token("opaque"),
        3 => Reply::json(200, "", &serde_json::json!({"id_token": token(STS, 3600)})),
        4 => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{".to_vec()),
        5 => Reply::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        6 => Reply::Bytes(Vec::new()),
        _ => Reply::token(&token(value(form, "audience"), 3600)),
    })
    .await;
    let lab = Lab::new("another", &issuer);
    let sidecar = lab.start();
    sidecar.until("there is a token", || lab.token()).await;
    let log = sidecar.log();
    for part in [
        "the issuer gave a token for another audience than was asked for",
        "the issuer gave a token that ended 5 s ago: is the clock of this node or of the issuer wrong?",
        "the issuer's token is malformed: it is no JWS",
        "the issuer's answer is malformed: it has no access_token",
        "the issuer's answer is malformed: it is no HTTP/1.1",
        "the connection to the issuer broke",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    assert_eq!(issuer.requests().len(), 8);
}

#[tokio::test]
async fn a_refusal_is_logged_once_in_the_policys_words_and_leaves_the_token_that_is_there() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::token(&token(value(form, "audience"), 4)),
        _ => Reply::refusal(
            "unauthorized_client",
            &format!(
                "TokenScopePolicy shop/orders\nhas expired ({})",
                value(form, "subject_token")
            ),
        ),
    })
    .await;
    let lab = Lab::new("refused", &issuer);
    let sidecar = lab.start();
    let first = sidecar.until("there is a token", || lab.token()).await;
    let sentence = r"the issuer refuses (unauthorized_client): TokenScopePolicy shop/orders\\u{a}has expired ([token]";
    sidecar.logs(sentence).await;
    assert_eq!(lab.token().as_ref(), Some(&first));
    // It is there until it ends, and then the probe says why there is no other.
    let why = sidecar.until("it has ended", || lab.not_ready()).await;
    assert!(why.contains("expired") && why.contains("the issuer refuses"), "{why}");
    assert!(!why.contains("eyJ"), "{why}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.token(), Some(first));
    assert_eq!(issuer.requests().len(), 2, "it is not asked again soon");
    assert_eq!(sidecar.log().matches("the issuer refuses").count(), 1);
}
