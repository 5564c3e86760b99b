//! The TLS listener: its certificate, and how connections begin and end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod support;

use std::time::{Duration, Instant};

use rcgen::date_time_ymd;
use support::{Ca, NAME, SOON, Server, is_closed, patient, receive, send, serving, try_send};
use tokenscope_fixtures::retry_while;
use tokenscope_platform::certificate::UnusablePair;
use tokenscope_platform::tls::{Limits, ServingCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_replaced_certificate_shows_in_new_handshakes_and_leaves_open_connections_alone() {
    let (old, new) = (Ca::new(), Ca::new());
    let certificate = old.certificate();
    let server = serving(certificate.clone(), patient()).await;
    let mut open = old.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut open, "/now").await;
    assert!(receive(&mut open).await.starts_with("HTTP/1.1 200"));

    let (pem, key) = new.leaf(|_| {});
    let info = certificate.replace(pem, key).unwrap();
    assert_eq!(info.dns_names, [NAME]);
    assert_eq!(certificate.certificate(), Some(info));

    send(&mut open, "/now").await;
    assert!(receive(&mut open).await.ends_with("now"));
    let mut fresh = new.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut fresh, "/now").await;
    assert!(receive(&mut fresh).await.ends_with("now"));
    let refused = old.connect(server.address, b"http/1.1").await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
}

#[test]
fn a_pair_that_does_not_fit_or_is_not_valid_now_is_refused_and_the_old_one_stays() {
    let ca = Ca::new();
    let certificate = ca.certificate();
    let before = certificate.certificate();
    let (pem, key) = ca.leaf(|_| {});
    let (_, foreign) = ca.leaf(|_| {});
    let (expired, expired_key) = ca.leaf(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
    let (early, early_key) = ca.leaf(|leaf| leaf.not_before = date_time_ymd(2090, 1, 1));

    assert!(matches!(
        certificate.replace(&pem, foreign),
        Err(UnusablePair::Mismatch(_))
    ));
    assert!(matches!(
        certificate.replace(expired, expired_key),
        Err(UnusablePair::NotValidNow { .. })
    ));
    assert!(matches!(
        certificate.replace(early, early_key),
        Err(UnusablePair::NotValidNow { .. })
    ));
    assert!(matches!(
        certificate.replace("", &key),
        Err(UnusablePair::NoCertificate)
    ));
    let cut = key.replacen("-----\n", "\n", 1);
    let unreadable = certificate.replace(&pem, &cut).unwrap_err();
    assert!(matches!(unreadable, UnusablePair::Key));
    assert!(
        !format!("{unreadable:?}").contains(&key[40..60]),
        "no part of the key in the error"
    );
    assert_eq!(certificate.certificate(), before);
    assert!(!format!("{certificate:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn without_a_certificate_handshakes_fail_and_the_listener_stays() {
    let ca = Ca::new();
    let certificate = ServingCertificate::empty();
    let server = serving(certificate.clone(), patient()).await;
    assert!(ca.connect(server.address, b"http/1.1").await.is_err());
    let (pem, key) = ca.leaf(|_| {});
    certificate.replace(pem, key).unwrap();
    assert!(ca.connect(server.address, b"http/1.1").await.is_ok());
}

/// A ClientHello of TLS 1.2 at most (RFC 5246, 7.4.1.2): one cipher suite, and the extensions that an ECDHE handshake needs.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // supported_groups: secp256r1
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4], // signature_algorithms: ECDSA and RSA-PSS with SHA-256
        &[0, 23, 0, 0],                   // extended_master_secret
    ]
    .concat();
    let mut body = [&version[..], &[7; 32], &[0]].concat(); // the random part, and no session
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM, for both kinds of keys
    body.extend([1, 0]); // no compression
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    let length = u16::try_from(handshake.len()).unwrap().to_be_bytes();
    [&[22, 3, 1][..], &length, &handshake].concat()
}

#[tokio::test]
async fn versions_of_tls_before_1_2_are_refused() {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    let ca = Ca::new();
    let server = serving(ca.certificate(), patient()).await;
    // SSL 3.0, TLS 1.0, 1.1 and 1.2 (RFC 8446, appendix D).
    for (version, answer) in [(0, ALERT), (1, ALERT), (2, ALERT), (3, HANDSHAKE)] {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        connection.write_all(&client_hello([3, version])).await.unwrap();
        let mut record = [0; 7];
        timeout(SOON, connection.read_exact(&mut record))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(record[0], answer, "version 3.{version}: {record:?}");
        if answer == ALERT {
            // Fatal, and protocol_version (RFC 8446, section 6.2).
            assert_eq!(record[5..], [2, 70], "version 3.{version}");
        }
    }
}

#[tokio::test]
async fn whoever_is_slow_is_cut() {
    let ca = Ca::new();
    // One limit is short each time, so it is the one that cuts.
    let short = Duration::from_millis(200);

    let handshake = Limits {
        handshake: short,
        ..patient()
    };
    let server = serving(ca.certificate(), handshake).await;
    let began = Instant::now();
    is_closed(TcpStream::connect(server.address).await.unwrap()).await;
    assert!(began.elapsed() >= short, "handshake: {:?}", began.elapsed());

    let header = Limits {
        header: short,
        ..patient()
    };
    let server = serving(ca.certificate(), header).await;
    for (protocol, begun) in [("http/1.1", "GET /now HTTP/1.1\r\nhos"), ("h2", "")] {
        let began = Instant::now();
        let mut slow = ca.connect(server.address, protocol.as_bytes()).await.unwrap();
        // On a machine that stalls it is cut by then.
        let _ = slow.write_all(begun.as_bytes()).await;
        is_closed(slow).await;
        assert!(began.elapsed() >= short, "{protocol}: {:?}", began.elapsed());
    }

    // A connection is looked at again when its first request is due.
    let idle = Limits {
        header: Duration::from_secs(5),
        idle: short,
        ..patient()
    };
    let server = serving(ca.certificate(), idle).await;
    let began = Instant::now();
    let mut idle = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut idle, "/now").await;
    assert!(receive(&mut idle).await.ends_with("now"));
    let _ = idle.write_all(b"GET /now HTTP/1.1\r\nhos").await;
    is_closed(idle).await;
    assert!(began.elapsed() >= short, "idle: {:?}", began.elapsed());
}

/// Whether a connection is still there after several times the limit, with requests all the while.
async fn outlives(ca: &Ca, server: &Server, limit: Duration) -> bool {
    let mut stream = ca.connect(server.address, b"http/1.1").await.unwrap();
    let began = Instant::now();
    while began.elapsed() < limit * 3 {
        if try_send(&mut stream, "/now").await.is_err() || !receive(&mut stream).await.ends_with("now") {
            return false;
        }
        sleep(limit / 20).await;
    }
    true
}

#[tokio::test]
async fn a_busy_connection_outlives_the_idle_limit() {
    let ca = Ca::new();
    let limits = Limits {
        idle: Duration::from_millis(400),
        ..patient()
    };
    let server = serving(ca.certificate(), limits).await;
    // A machine that stalls for as long as the limit makes the connection idle, so there are several attempts.
    let outlives = async || outlives(&ca, &server, limits.idle).await;
    let outlived = retry_while(|outlived: &bool| !outlived, 10, outlives).await;
    assert!(outlived, "it was cut each time");
}

#[tokio::test]
async fn the_drain_finishes_running_requests_and_takes_no_new_ones() {
    let ca = Ca::new();
    let server = serving(ca.certificate(), patient()).await;
    let mut running = ca.connect(server.address, b"http/1.1").await.unwrap();
    let mut idle = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut idle, "/now").await;
    receive(&mut idle).await;
    send(&mut running, "/held").await;
    server.has_begun(1).await;

    server.stop.cancel();
    // An idle connection is closed while the request still runs.
    is_closed(idle).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "new connections are refused"
    );
    server.released.add_permits(1);
    assert!(receive(&mut running).await.starts_with("HTTP/1.1 200"));
    timeout(SOON, server.task).await.expect("drained").unwrap();
}

#[tokio::test]
async fn after_the_drain_what_still_runs_is_cut() {
    let ca = Ca::new();
    let limits = Limits {
        drain: Duration::from_millis(200),
        ..patient()
    };
    let server = serving(ca.certificate(), limits).await;
    let mut stuck = ca.connect(server.address, b"http/1.1").await.unwrap();
    send(&mut stuck, "/never").await;
    sleep(Duration::from_millis(50)).await;
    server.stop.cancel();
    timeout(SOON, server.task).await.expect("cut").unwrap();
    assert_eq!(receive(&mut stuck).await, "");
}

#[tokio::test]
async fn one_http2_connection_carries_many_requests_and_drains() {
    let ca = Ca::new();
    let server = serving(ca.certificate(), patient()).await;
    let stream = ca.connect(server.address, b"h2").await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(executor, hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let requests = (0..50).map(|_| {
        let request = http::Request::get(format!("https://{NAME}/held"))
            .body(axum::body::Body::empty())
            .unwrap();
        sender.clone().send_request(request)
    });
    let answers = futures::future::join_all(requests);
    let stop = async {
        // At the same time, not one after the other: none is answered before the last one has begun.
        server.has_begun(50).await;
        server.stop.cancel();
        server.released.add_permits(50);
    };
    let (answers, ()) = futures::future::join(answers, stop).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200));
    timeout(SOON, server.task).await.expect("drained").unwrap();
    timeout(SOON, connection).await.expect("closed").unwrap().unwrap();
}
