//! Credentials inside a pod: the program serves them, the strict stand-in for STS gives them, and SDKs and strangers ask for them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, also outside the tests themselves"
)]

#[expect(dead_code, reason = "the tests of a thousand pods use the rest")]
mod account;
mod aporeto;
mod documents;
mod faulty_sts;
mod lab;
mod outages;
mod outbound;
mod slow_clock;
mod strangers;
#[path = "../issuer/server.rs"]
#[expect(dead_code, reason = "the issuer's own tests use all of it")]
mod token_issuer;
mod withdrawn;

use std::fs;
use std::io::Write as _;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;

use account::{Account, EXTERNAL_ID, FAR, NEAR, certificate};
use faulty_sts::{Fault, FaultySts};
use jiff::Timestamp;
use lab::{Lab, read};
use serde_json::json;
use tokenscope_sts::PolicyDecision;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_its_roles_credentials_with_its_own_authorization_and_no_other() {
    let account = Account::start().await;
    let lab = Lab::new("own", &["app", "job"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let body = sidecar.credentials("app");
    sidecar.credentials("job");

    let session = account.sts.session(body["AccessKeyId"].as_str().unwrap()).unwrap();
    let arn = "arn:aws:sts::111122223333:assumed-role/near/orders-7d9f-x2x9p";
    assert_eq!((&*session.arn, &body["RoleArn"]), (arn, &json!(NEAR)));
    assert_eq!(body["AccountId"], "111122223333");
    assert_eq!(body["Expiration"], session.expires.to_string());
    for field in ["SecretAccessKey", "Token"] {
        let secret = body[field].as_str().unwrap();
        assert!(!secret.is_empty() && !sidecar.log().contains(secret));
    }
    let file = fs::metadata(lab.path("authorization/app/token")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o444);

    let (app, job) = (lab.authorization("app").unwrap(), lab.authorization("job").unwrap());
    assert_ne!(app, job);
    for (container, token) in [("app", &*job), ("job", &*app), ("app", "x"), ("app", "")] {
        let refused = lab.ask_with(container, token);
        assert_eq!(
            (refused.status, &refused.body["Code"]),
            (403, &json!("InvalidAuthorization"))
        );
    }
    assert_eq!(lab.ask_with("other", &app).status, 404);
    assert_eq!(lab.not_ready(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_loopback_addresses_are_served() {
    let account = Account::start().await;
    let lab = Lab::new("both", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let over_v4 = sidecar.credentials("app");
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return sidecar.logs("this pod has no IPv6");
    }
    let mut stream = lab.connect_v6();
    let authorization = lab.authorization("app").unwrap();
    let head = format!("GET /v1/credentials/app HTTP/1.1\r\nHost: [::1]\r\nAuthorization: {authorization}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read(stream).body, over_v4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_ends_in_another_account_and_the_session_policy_narrows_its_last_session() {
    let account = Account::start().await;
    let mut lab = Lab::new("chain", &["app"], &account.sts.url(), NEAR);
    let allow = |action: &str| json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]});
    let container = &mut lab.endpoint["containers"][0];
    container["chain"] = json!([{"role": FAR, "externalId": EXTERNAL_ID, "sessionName": "nightly"}]);
    // Were the first session narrowed by it, it could not take the second role.
    container["sessionPolicy"] = json!({"inline": allow("s3:GetObject").to_string()});
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let body = sidecar.credentials("app");
    assert_eq!(
        (&body["RoleArn"], &body["AccountId"]),
        (&json!(FAR), &json!("444455556666"))
    );
    let session = account.sts.session(body["AccessKeyId"].as_str().unwrap()).unwrap();
    assert_eq!(session.arn, "arn:aws:sts::444455556666:assumed-role/far/nightly");
    let decide = |action| {
        session
            .decide(&[allow("s3:*")], action, "arn:aws:s3:::orders/1", Timestamp::now())
            .unwrap()
    };
    assert_eq!(decide("s3:GetObject"), PolicyDecision::Allowed);
    assert_eq!(decide("s3:PutObject"), PolicyDecision::ImplicitDeny);
    drop(sidecar);

    lab.endpoint["containers"][0]["chain"][0]["externalId"] = json!("e-3");
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:AssumeRole");
    let refused = lab.ask("app");
    assert_eq!((refused.status, &refused.body["Code"]), (403, &json!("AccessDenied")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_makes_another_authorization_token() {
    let account = Account::start().await;
    let lab = Lab::new("start", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.credentials("app");
    let before = lab.authorization("app").unwrap();
    drop(sidecar);

    let sidecar = lab.start();
    sidecar.credentials("app");
    assert_eq!(lab.ask_with("app", &before).status, 403);
    assert_ne!(lab.authorization("app").unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_at_either_address_is_a_failed_start_that_names_it() {
    let lab = Lab::new("taken", &["app"], "http://127.0.0.1:1", NEAR);
    let v4 = std::net::Ipv4Addr::LOCALHOST.into();
    let no_ipv6 = |error: &std::io::Error| {
        error.kind() == std::io::ErrorKind::AddrNotAvailable
            || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    };
    for taken in [v4, std::net::IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let neighbour = match TcpListener::bind((taken, lab.port())) {
            Err(error) if taken.is_ipv6() && no_ipv6(&error) => continue,
            bound => bound.unwrap(),
        };
        let mut sidecar = lab.start_without_waiting();
        assert!(!sidecar.child.wait().unwrap().success());
        assert!(
            sidecar.log().contains(&format!("the port {} is taken", lab.port())),
            "{}",
            sidecar.log()
        );
        assert_eq!(
            lab.authorization("app"),
            None,
            "nothing is written before the port is had"
        );
        drop(neighbour);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_leaves_the_probe_and_the_authorization_of_the_one_that_runs() {
    let account = Account::start().await;
    let lab = Lab::new("second", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.credentials("app");
    let before = lab.authorization("app");
    let second = lab.run_to_its_end();
    assert!(
        second.contains(&format!("the port {} is taken", lab.port())),
        "{second}"
    );
    assert_eq!(lab.not_ready(), None);
    assert_eq!(lab.authorization("app"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_that_sts_repeats_in_an_error_is_neither_logged_nor_answered() {
    const SESSION_TOKEN: &str = "FwoGZXIvYXdzEXAMPLEabcdefghijklmnopqrstuvwxyz";
    // STS's words are cut at 1000 characters, here within the token.
    for padding in [0, 960] {
        let words = format!("{}{SESSION_TOKEN}", "x".repeat(padding));
        let faulty = FaultySts::start(Fault::AnswersInTurn(vec![
            faulty_sts::credentials(SESSION_TOKEN),
            faulty_sts::refusal(403, "AccessDenied", &words),
        ]))
        .await;
        let mut lab = Lab::new("repeated", &["app"], &faulty.url(), NEAR);
        lab.endpoint["containers"][0]["chain"] = json!([{"role": FAR}]);
        lab.write_token("a.b.c");
        let sidecar = lab.start();
        sidecar.logs("[token]");
        let refused = lab.ask("app");
        assert_eq!((refused.status, &refused.body["Code"]), (403, &json!("AccessDenied")));
        let said = lab.not_ready().unwrap();
        for text in [sidecar.log(), refused.body.to_string(), said, lab.state().unwrap()] {
            assert!(!text.contains(&SESSION_TOKEN[..16]), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definite_refusal_is_answered_from_memory_and_told_by_the_probe() {
    let account = Account::start().await;
    account.trust_pod(false);
    let faulty = FaultySts::start(Fault::Passes(account.sts.addr())).await;
    let lab = Lab::new("refused", &["app"], &faulty.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity");
    for _ in 0..20 {
        let refused = lab.ask("app");
        assert_eq!((refused.status, &refused.body["Code"]), (403, &json!("AccessDenied")));
        let message = refused.body["Message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("AssumeRoleWithWebIdentity of {NEAR}: AccessDenied")),
            "{message}"
        );
    }
    assert_eq!(faulty.asked(), 1);
    let said = lab.not_ready().unwrap();
    assert!(
        said.starts_with("container app has no credentials: AssumeRoleWithWebIdentity of "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sts_is_trusted_over_tls_by_the_given_authorities_alone() {
    let (authority, certificate) = certificate("127.0.0.1");
    let account = Account::start_with(Some(certificate)).await;
    let mut lab = Lab::new("tls", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("no TLS with AWS STS at 127.0.0.1");
    assert_eq!(lab.ask("app").status, 503);
    drop(sidecar);

    lab.endpoint["stsAuthorities"] = json!(authority);
    lab.start().credentials("app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_late_is_waited_for() {
    let account = Account::start().await;
    let lab = Lab::new("late", &["app"], &account.sts.url(), NEAR);
    let sidecar = lab.start();
    sidecar.logs("can't read the web identity token");
    assert_eq!(lab.ask("app").body["Code"], "NoWebIdentityToken");
    lab.write_token(&account.token());
    sidecar.credentials("app");
}

#[test]
fn what_is_wrong_with_the_variable_stands_in_the_error() {
    let mut lab = Lab::new("wrong", &["app"], "http://sts.example", NEAR);
    let said = lab.not_ready().unwrap();
    assert!(
        said.contains("TOKENSCOPE_ENDPOINT: stsUrl: http:// is for loopback"),
        "{said}"
    );
    lab.endpoint["stsUrl"] = json!("http://127.0.0.1:1");
    let lab = lab.with("TOKENSCOPE_OBSERVE", "127.0.0.1:0".to_owned());
    let said = lab.not_ready().unwrap();
    assert!(
        said.contains("TOKENSCOPE_OBSERVE can't be given where credentials are served"),
        "{said}"
    );
}
