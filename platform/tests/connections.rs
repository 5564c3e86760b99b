//! Connections of a listener that is full: which of them give way, and to whom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod support;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Ca, NAME, SOON, Server, is_closed, patient, receive, send, serving};
use tokenscope_platform::tls::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A new connection, though others fill the listener for far longer than [`SOON`].
async fn is_served(ca: &Ca, server: &Server) {
    let mut stream = timeout(SOON, ca.connect(server.address, b"http/1.1"))
        .await
        .expect("a slot")
        .unwrap();
    send(&mut stream, "/now").await;
    assert!(receive(&mut stream).await.ends_with("now"));
}

fn small(connections: usize) -> Limits {
    Limits {
        connections,
        ..patient()
    }
}

/// Both ends of all connections are here.
fn allow_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).unwrap();
}

#[tokio::test]
async fn more_mute_connections_than_there_are_slots_do_not_keep_a_new_one_out() {
    let ca = Ca::new();
    allow_open_files();
    let server = serving(ca.certificate(), patient()).await;
    let mut mute = Vec::new();
    for _ in 0..700 {
        mute.push(TcpStream::connect(server.address).await.unwrap());
    }
    is_served(&ca, &server).await;
    assert!(server.metric("test_connections_evicted_total") >= 700 - 512);
}

#[tokio::test]
async fn connections_that_send_half_a_header_or_half_a_body_give_way() {
    let ca = Ca::new();
    for begun in [
        "GET /now HTTP/1.1\r\nhost",
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 8000\r\n\r\nx",
    ] {
        let server = serving(ca.certificate(), small(8)).await;
        let mut slow = Vec::new();
        for _ in 0..8 {
            let mut stream = ca.connect(server.address, b"http/1.1").await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            slow.push(stream);
        }
        sleep(Duration::from_millis(50)).await;
        is_served(&ca, &server).await;
    }
}

#[tokio::test]
async fn established_connections_give_way_too_the_longest_idle_first() {
    let ca = Ca::new();
    let server = serving(ca.certificate(), small(4)).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut stream = ca.connect(server.address, b"http/1.1").await.unwrap();
        send(&mut stream, "/now").await;
        receive(&mut stream).await;
        idle.push(stream);
        sleep(Duration::from_millis(20)).await;
    }
    // The first one is used again, so the second is the longest idle now.
    send(&mut idle[0], "/now").await;
    receive(&mut idle[0]).await;
    is_served(&ca, &server).await;
    is_closed(idle.remove(1)).await;
    send(&mut idle[0], "/now").await;
    assert!(
        receive(&mut idle[0]).await.ends_with("now"),
        "the others are still there"
    );
}

#[tokio::test]
async fn a_flood_of_newcomers_displaces_newcomers_and_no_established_connection() {
    let ca = Ca::new();
    let server = serving(ca.certificate(), small(8)).await;
    let mut established = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut established, "/now").await;
    receive(&mut established).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(TcpStream::connect(server.address).await.unwrap());
    }
    is_served(&ca, &server).await;
    send(&mut established, "/now").await;
    assert!(receive(&mut established).await.ends_with("now"));
}

#[tokio::test]
async fn a_running_request_is_finished_while_idle_connections_give_way() {
    let ca = Ca::new();
    let server = serving(ca.certificate(), small(2)).await;
    let mut running = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut running, "/now").await;
    receive(&mut running).await;
    let mut idle = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut idle, "/now").await;
    receive(&mut idle).await;
    send(&mut running, "/held").await;
    server.has_begun(1).await;
    is_served(&ca, &server).await;
    server.released.add_permits(1);
    assert!(receive(&mut running).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_answer_that_is_not_taken_and_a_body_that_does_not_come_are_cut() {
    let ca = Ca::new();
    let limits = Limits {
        request: Duration::from_millis(200),
        ..patient()
    };
    let server = serving(ca.certificate(), limits).await;
    let mut not_taken = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut not_taken, "/large").await;
    let mut half = ca.connect(server.address, b"http/1.1").await.unwrap();
    half.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")
        .await
        .unwrap();
    // Any other limit is far beyond it.
    is_closed(half).await;
    sleep(limits.request * 3).await;
    let mut taken = Vec::new();
    let _cut = timeout(SOON, not_taken.read_to_end(&mut taken)).await.expect("closed");
    assert!(taken.len() < 32 << 20, "{} bytes", taken.len());
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut_also_where_other_requests_go_on_beside_it() {
    let ca = Ca::new();
    let limits = Limits {
        request: Duration::from_millis(200),
        ..patient()
    };
    let server = serving(ca.certificate(), limits).await;
    let stream = ca.connect(server.address, b"h2").await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let get = |path| {
        let request = http::Request::get(format!("https://{NAME}{path}"));
        sender
            .clone()
            .send_request(request.body(axum::body::Body::empty()).unwrap())
    };
    let _not_taken = get("/large").await.unwrap();
    let began = Instant::now();
    while get("/now").await.is_ok() {
        assert!(began.elapsed() < SOON, "still open after {SOON:?}");
        sleep(Duration::from_millis(20)).await;
    }
    let _ended = timeout(SOON, connection).await.expect("closed");
}
