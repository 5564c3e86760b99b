//! Callers that prove nothing and never finish.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::channel::Channel;
use tokenscope_platform::tls::Peer;
use tokio::task::JoinSet;

use crate::setup::{Setup, form};

/// More than have room.
const CALLERS: u32 = 1200;

fn request(address: u32, body: Body) -> Request<Body> {
    let mut request = Request::post("/token")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body)
        .unwrap();
    let address = Ipv4Addr::from_bits(0x0a00_0000 | address);
    request.extensions_mut().insert(Peer(address.into()));
    request
}

#[tokio::test]
async fn bodies_that_never_end_give_way_to_honest_callers_and_are_given_up() {
    use tower::ServiceExt as _;
    let setup = Setup::new().await;
    let mut senders = Vec::new();
    let mut endless = JoinSet::new();
    for number in 0..CALLERS {
        let (sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        senders.push(sender);
        endless.spawn(setup.app.clone().oneshot(request(number, Body::new(body))));
    }
    // Each of them has had its time and holds its place.
    tokio::time::sleep(Duration::from_millis(400)).await;
    for number in 0..20 {
        let began = Instant::now();
        let body = Body::from(form(&setup.subject(), "sts.amazonaws.com"));
        let (status, answer) = setup.send(request(CALLERS + number, body)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    let began = Instant::now();
    while let Some(ended) = endless.join_next().await {
        assert_eq!(ended.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(senders);
}
