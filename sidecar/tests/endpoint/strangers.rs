//! Others in the pod, who may connect too.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;
use tokenscope_fixtures::retry_while;

use super::account::{Account, NEAR};
use super::lab::{Lab, read};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_of_an_sdk_is_refused_as_json() {
    let account = Account::start().await;
    let lab = Lab::new("no-request", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.credentials("app");
    let token = lab.authorization("app").unwrap();
    let request = |line: &str, host: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\n{more}\r\n")
    };
    let path = "GET /v1/credentials/app";
    for (bytes, status, code) in [
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), 400, "InvalidRequest"),
        (request(path, "evil.example", ""), 403, "HostRefused"),
        (
            request("POST /v1/credentials/app", "localhost", ""),
            405,
            "MethodNotAllowed",
        ),
        (request("GET /metrics", "localhost", ""), 404, "NotFound"),
        (
            request(path, "localhost", "Content-Length: 5\r\n"),
            400,
            "InvalidRequest",
        ),
        (
            request(path, "localhost", &format!("X: {}\r\n", "x".repeat(9000))),
            431,
            "InvalidRequest",
        ),
    ] {
        let answer = lab.send(bytes.as_bytes());
        assert_eq!(
            (answer.status, &answer.body["Code"]),
            (status, &json!(code)),
            "{bytes:.60}"
        );
    }
    // A second request on the same connection is not read.
    let twice = request(path, "localhost", "").repeat(2);
    assert_eq!(lab.send(twice.as_bytes()).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_give_way_and_keep_nobody_waiting() {
    let account = Account::start().await;
    let lab = Lab::new("silent", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.credentials("app");
    // On a machine that stalls meanwhile the time of the silent ones is over, so there are several attempts.
    let give_way = async || silent_ones_give_way(&lab);
    let gave_way = retry_while(|gave_way: &bool| !gave_way, 5, give_way).await;
    assert!(gave_way, "they kept somebody waiting each time, or did not give way");
}

/// Whether a request is answered beside many connections that say nothing, of which the oldest are gone by then.
fn silent_ones_give_way(lab: &Lab) -> bool {
    let mut silent: Vec<_> = (0..200).map(|_| lab.connect()).collect();
    for stream in &mut silent {
        let _ = stream.write_all(b"GET /v1/credentials/app HTTP/1.1\r\n"); // who gave way already can't be written to
    }
    let started = Instant::now();
    assert_eq!(lab.ask("app").status, 200);
    let is_at_once = started.elapsed() < Duration::from_secs(2);
    // The oldest are gone without a word; the newest are told.
    let mut first = silent.remove(0);
    let is_gone = first.read(&mut [0; 16]).unwrap_or(0) == 0;
    let last = silent.pop().unwrap();
    let answer = read(last);
    assert_eq!((answer.status, &answer.body["Code"]), (408, &json!("RequestTimeout")));
    is_at_once && is_gone
}
