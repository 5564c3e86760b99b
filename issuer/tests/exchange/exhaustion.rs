//! Callers that prove nothing and never finish.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http::{Request, StatusCode, header};
use http_body_util::channel::Channel;
use serde_json::json;
use tokenscope_fixtures::retry_while;
use tokenscope_platform::tls::Peer;
use tokio::task::JoinSet;

use crate::setup::{Setup, form, pod, policy_with};

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
    let setup = Setup::with_the_usual_deadlines().await;
    let mut senders = Vec::new();
    let mut endless = JoinSet::new();
    for number in 0..CALLERS {
        let (sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        senders.push(sender);
        endless.spawn(setup.app.clone().oneshot(request(number, Body::new(body))));
    }
    // Each of them has begun, has had its time and holds its place.
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut late = 0;
    for number in 0..20 {
        let began = Instant::now();
        let body = Body::from(form(&setup.subject(), "sts.amazonaws.com"));
        let (status, answer) = setup.send(request(CALLERS + number, body)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        late += usize::from(began.elapsed() > Duration::from_secs(2));
    }
    assert!(
        late <= 2,
        "{late}: a machine that stalls makes one or two of them late, and bodies that hold their places each"
    );
    let all_end = async {
        while let Some(ended) = endless.join_next().await {
            assert_eq!(ended.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_end).await.unwrap();
    drop(senders);
}

#[tokio::test]
async fn an_exchange_that_is_slow_to_decide_blocks_nobody_and_brings_the_same_token() {
    let setup = Setup::new().await;
    let ends_first = async || {
        let (exchanged, asked) = (Cell::new(None), Cell::new(None));
        let next = || Some(exchanged.get().is_none() && asked.get().is_none());
        let exchange = async {
            let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
            assert_eq!(status, StatusCode::OK, "{body}");
            exchanged.set(next());
        };
        let keys = async {
            let keys = Request::get("/a/keys").body(Body::empty()).unwrap();
            assert_eq!(setup.send(keys).await.0, StatusCode::OK);
            asked.set(next());
        };
        // There is one thread, which polls the exchange first.
        tokio::join!(biased; exchange, keys);
        if asked.get() == Some(true) { "keys" } else { "exchange" }
    };
    assert_eq!(ends_first().await, "exchange", "a decision as usual is made at once");

    let mut large = pod("a", "a");
    large["spec"]["containers"] = (0..60).map(|number| json!({"name": format!("c{number}")})).collect();
    setup.put_pod(large);
    for number in 0..60 {
        let stars = format!("arn:aws:iam::111122223333:role/{}", "*s*h*o*p".repeat(20));
        let mut other = policy_with("a", &json!({"roles": {"allowed": [stars]}}));
        other["metadata"]["name"] = json!(format!("other-{number}"));
        setup.put_policy(other);
    }
    // A machine that stops this thread between the two disturbs some of the attempts. A decision on this thread ends first in each.
    let ended_first = retry_while(|first: &&str| *first != "keys", 10, ends_first).await;
    assert_eq!(ended_first, "keys", "in each attempt");
}
