//! Tokens by audience, as clients of Aporeto's enforcer ask for them: who gets which, and what strangers get.

use std::io::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::account::NEAR;
use super::faulty_sts::{Fault, FaultySts, credentials};
use super::lab::{Lab, read_text};
use super::token_issuer::{Form, Reply, TestIssuer, token, value};

const STS: &str = "sts.amazonaws.com";
const VAULT: &str = "https://vault.example";
/// The header that asks for a token.
const METADATA: &str = "X-Aporeto-Metadata: secrets";

/// An issuer that gives a token for each audience but `refused.example`.
async fn issuer() -> TestIssuer {
    TestIssuer::start(|form: &Form, _| match value(form, "audience") {
        "refused.example" => Reply::refusal("invalid_target", "TokenScopePolicy shop/orders has expired"),
        audience => Reply::token(&token(audience, value(form, "expires_in").parse().unwrap_or(3600))),
    })
    .await
}

/// A pod with the containers `app` and `job`, which share the audience of STS. `app` alone has the other one.
fn pod(name: &str, sts: &FaultySts, issuer: &TestIssuer) -> Lab {
    let lab = Lab::new(name, &["app", "job"], &sts.url(), NEAR);
    let mut lab = lab.with_issuer(issuer.url(), &issuer.authority, &token("https://tokens.example", 3600));
    let given = |audience: &str, seconds: u32| json!({"audience": audience, "mostSeconds": seconds});
    lab.endpoint["containers"][0]["tokens"] =
        json!([given(STS, 7200), given(VAULT, 900), given("refused.example", 900)]);
    lab.endpoint["containers"][1]["tokens"] = json!([given(STS, 3600)]);
    lab.endpoint["hasAllContainers"] = json!(true);
    lab
}

async fn sts() -> FaultySts {
    let (status, body) = credentials("t");
    FaultySts::start(Fault::Answers(status, body)).await
}

/// Status and body of a request with these lines of a head.
fn send(lab: &Lab, line: &str, host: &str, headers: &[&str]) -> (u16, String) {
    let mut head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut stream = lab.connect();
    stream.write_all(head.as_bytes()).unwrap();
    read_text(stream)
}

fn ask(lab: &Lab, query: &str, authorization: Option<&str>) -> (u16, String) {
    let authorization = authorization.map(|token| format!("Authorization: {token}"));
    let mut headers = vec![METADATA];
    headers.extend(authorization.as_deref());
    send(lab, &format!("GET /token?{query}"), "127.0.0.1", &headers)
}

/// Audience and lifetime of a token that was given.
fn given((status, body): (u16, String)) -> (String, i64) {
    assert_eq!(status, 200, "{body}");
    let token = tokenscope_sidecar::token::Token::parse(&body).unwrap();
    let life = token.expires_at.duration_since(token.issued_at.unwrap());
    (token.audiences[0].to_string(), life.as_secs())
}

fn refused((status, body): (u16, String)) -> (u16, String) {
    let body: Value = serde_json::from_str(&body).unwrap();
    assert!(!body["Message"].as_str().unwrap().is_empty(), "{body}");
    (status, body["Code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_gets_what_all_containers_are_granted_and_a_container_what_it_is_granted() {
    let (issuer, sts) = (issuer().await, sts().await);
    let lab = pod("given", &sts, &issuer);
    let sidecar = lab.start();
    for container in ["app", "job"] {
        sidecar.credentials(container);
    }
    let (app, job) = (lab.authorization("app").unwrap(), lab.authorization("job").unwrap());

    let query = "type=OAUTH&audience=sts.amazonaws.com&validity=10m";
    assert_eq!(given(ask(&lab, query, None)), (STS.to_owned(), 600));
    let vault = "audience=https%3A%2F%2Fvault.example";
    assert_eq!(
        given(ask(&lab, vault, Some(&app))),
        (VAULT.to_owned(), 900),
        "an hour is cut"
    );
    assert_eq!(
        given(ask(&lab, "audience=sts.amazonaws.com&validity=12h", Some(&app))).1,
        7200
    );
    assert_eq!(
        given(ask(&lab, "audience=sts.amazonaws.com&validity=12h", Some(&job))).1,
        3600
    );
    for authorization in [None, Some(&*job)] {
        let answer = refused(ask(&lab, vault, authorization));
        assert_eq!(answer, (400, "AudienceNotGranted".to_owned()));
    }
    // The same question is answered from memory.
    let before = issuer.requests().len();
    assert_eq!(ask(&lab, query, None), ask(&lab, query, Some(&job)));
    assert_eq!(issuer.requests().len(), before);
    assert_eq!(lab.not_ready(), None);
    let log = sidecar.log();
    assert!(log.contains("a token was given") && !log.contains(&app), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_granted_nothing_leaves_every_token_to_those_that_say_who_they_are() {
    let (issuer, sts) = (issuer().await, sts().await);
    let mut lab = pod("some", &sts, &issuer);
    lab.endpoint["hasAllContainers"] = json!(false);
    let sidecar = lab.start();
    sidecar.credentials("job");
    let query = "audience=sts.amazonaws.com";
    assert_eq!(refused(ask(&lab, query, None)), (400, "AudienceNotGranted".to_owned()));
    let job = lab.authorization("job").unwrap();
    assert_eq!(given(ask(&lab, query, Some(&job))).0, STS);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_token_and_the_issuer_is_not_asked_for_them() {
    let (issuer, sts) = (issuer().await, sts().await);
    let lab = pod("strangers", &sts, &issuer);
    let sidecar = lab.start();
    sidecar.credentials("app");
    let before = issuer.requests().len();
    let path = "GET /token?audience=sts.amazonaws.com";
    for (line, host, headers, status) in [
        (path, "127.0.0.1", &[][..], 403),
        (path, "127.0.0.1", &["X-Aporeto-Metadata: secret"], 403),
        (path, "evil.example", &[METADATA], 403),
        (path, "127.0.0.1.evil.example", &[METADATA], 403),
        (path, "169.254.254.1", &[METADATA], 403),
        (path, "127.0.0.1", &[METADATA, METADATA], 400),
        (path, "127.0.0.1", &[METADATA, "Authorization: x"], 403),
        (path, "127.0.0.1", &[METADATA, "Authorization: "], 403),
        (path, "127.0.0.1", &[METADATA, "Host: localhost"], 400),
        (path, "127.0.0.1", &[METADATA, "Content-Length: 4"], 400),
        (&path.replace("GET", "OPTIONS"), "127.0.0.1", &[METADATA], 405),
        (&path.replace("GET", "POST"), "127.0.0.1", &[METADATA], 405),
        (&path.replace("/token", "/token/"), "127.0.0.1", &[METADATA], 404),
        (
            &path.replace("/token", "http://127.0.0.1/token"),
            "127.0.0.1",
            &[METADATA],
            400,
        ),
    ] {
        let answer = refused(send(&lab, line, host, headers));
        assert_eq!(answer.0, status, "{line} {host} {headers:?}: {}", answer.1);
    }
    let long = |length| format!("audience={}", "a".repeat(length));
    for (query, status) in [
        ("", 400),
        ("audience=https://tokens.example", 400),
        ("audience=sts.amazonaws.com&audience=x", 400),
        ("audience=sts.amazonaws.com%00", 400),
        ("audience=sts.amazonaws.c\u{f6}m", 400),
        ("audience=sts.amazonaws.c%C3%B6m", 400),
        ("audience=sts.amazonaws.com&validity=-1h", 422),
        ("audience=sts.amazonaws.com&validity=1s", 422),
        ("audience=sts.amazonaws.com&validity=%EF%BC%91h", 422),
        (&long(8000), 400),
        (&long(9000), 431),
    ] {
        let answer = refused(ask(&lab, query, None));
        assert_eq!(answer.0, status, "{query:.80}: {}", answer.1);
    }
    assert_eq!(issuer.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_issuer_refuses_is_told_as_json_and_not_asked_again_at_once() {
    let (issuer, sts) = (issuer().await, sts().await);
    let lab = pod("refused", &sts, &issuer);
    let sidecar = lab.start();
    sidecar.credentials("app");
    let app = lab.authorization("app").unwrap();
    let (before, began) = (issuer.requests().len(), Instant::now());
    for _ in 0..5 {
        let (status, body) = ask(&lab, "audience=refused.example", Some(&app));
        assert_eq!(status, 400);
        assert!(body.contains("TokenScopePolicy shop/orders has expired"), "{body}");
        assert_eq!(refused((status, body)).1, "TokenRefused");
    }
    // Once in five seconds, and again only where a machine stalls for so long.
    let most = 1 + began.elapsed().as_secs() as usize / 5;
    let asked = issuer.requests().len() - before;
    assert!((1..=most).contains(&asked), "{asked}");
    assert_eq!(
        given(ask(&lab, "audience=sts.amazonaws.com", Some(&app))).0,
        STS,
        "others are not touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_many_is_told_to_wait_and_takes_nothing_from_the_containers() {
    let (issuer, sts) = (issuer().await, sts().await);
    let lab = pod("many", &sts, &issuer);
    let sidecar = lab.start();
    sidecar.credentials("app");
    let (before, began) = (issuer.requests().len(), Instant::now());
    let answers: Vec<u16> = (600..700)
        .map(|seconds| ask(&lab, &format!("audience=sts.amazonaws.com&validity={seconds}s"), None).0)
        .collect();
    let asked = issuer.requests().len() - before;
    // Six at once and one in ten seconds, and what the sidecar asks for itself.
    let most = 12 + began.elapsed().as_secs() as usize / 10;
    assert!((6..=most).contains(&asked), "{asked}");
    assert!(answers.iter().all(|status| [200, 429].contains(status)), "{answers:?}");
    let job = lab.authorization("job").unwrap();
    assert_eq!(
        given(ask(&lab, "audience=sts.amazonaws.com&validity=700s", Some(&job))).1,
        700
    );
    assert_eq!(lab.ask("app").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_policys_word_there_is_no_such_path_and_without_an_issuer_no_start() {
    let (issuer, sts) = (issuer().await, sts().await);
    let mut lab = pod("silent-policy", &sts, &issuer);
    for container in lab.endpoint["containers"].as_array_mut().unwrap() {
        container.as_object_mut().unwrap().remove("tokens");
    }
    let sidecar = lab.start();
    sidecar.credentials("app");
    let app = lab.authorization("app").unwrap();
    for authorization in [None, Some(&*app)] {
        let answer = refused(ask(&lab, "audience=sts.amazonaws.com", authorization));
        assert_eq!(answer, (404, "NotFound".to_owned()));
    }
    drop(sidecar);

    let mut lab = Lab::new("no-issuer", &["app"], &sts.url(), NEAR);
    lab.endpoint["containers"][0]["tokens"] = json!([{"audience": STS, "mostSeconds": 3600}]);
    let said = lab.run_to_its_end();
    assert!(
        said.contains("TOKENSCOPE_ENDPOINT: tokens: only tokenscope's issuer"),
        "{said}"
    );
}
