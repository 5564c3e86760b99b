//! Regions that hang, refuse connections or answer 503, and the next one that is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokenscope_aws::{
    Advice, AssumedRole, CallerIdentity, RegionChoice, RegionOutcome, StsEndpoint, StsError, get_caller_identity,
};
use tokenscope_fixtures::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::client::send;
use crate::{FAR, REGION, ann, plain_call, stand_in};

/// The deadline of a region that never answers.
const DEADLINE: Duration = Duration::from_secs(2);

/// The deadline of one that does, also where the machine stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A region that takes connections, reads, and answers so, or never.
struct SickRegion {
    endpoint: StsEndpoint,
    asked: Arc<AtomicUsize>,
}

impl SickRegion {
    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(&format!("http://{}", listener.local_addr().unwrap()));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            // Kept, so that a region that never answers doesn't hang up either.
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                } else {
                    kept.push(stream);
                }
            }
        });
        Self { endpoint, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn endpoint(url: &str) -> StsEndpoint {
    StsEndpoint::custom(url, &REGION.parse().unwrap()).unwrap()
}

/// Asks one region after the other who Ann is, at a time of the choice's clock. The first one never answers.
async fn who(choice: &mut RegionChoice, endpoints: &[StsEndpoint], seconds: u64) -> Option<CallerIdentity> {
    let now = Duration::from_secs(seconds);
    let mut call = choice.call(now);
    while let Some(region) = choice.next(&mut call) {
        let endpoint = &endpoints[region];
        let request = get_caller_identity(endpoint, &ann(), Timestamp::now());
        let deadline = if region == 0 { DEADLINE } else { PATIENCE };
        let answer = send(endpoint, &request, deadline).await.ok();
        let identity = answer.map(|(status, body)| CallerIdentity::read(status, &body));
        let outcome = match &identity {
            Some(Ok(_)) => RegionOutcome::Answered,
            Some(Err(error)) if error.advice() != Advice::TryElsewhere => RegionOutcome::Answered,
            _ => RegionOutcome::Failed,
        };
        choice.report(&mut call, outcome, now);
        if let Some(Ok(identity)) = identity {
            return Some(identity);
        }
    }
    None
}

#[tokio::test]
async fn the_first_region_that_answers_is_taken_and_those_that_failed_are_left_alone_for_a_while() {
    let sts = stand_in().await.unwrap();
    let hanging = SickRegion::start(None).await;
    let ill = SickRegion::start(Some("HTTP/1.1 503 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
    let proxy = SickRegion::start(Some(
        "HTTP/1.1 200 x\r\ncontent-length: 5\r\nconnection: close\r\n\r\n<html",
    ))
    .await;
    let closed = free_port().unwrap(); // nobody listens there
    let endpoints = [
        hanging.endpoint.clone(),
        endpoint(&format!("http://127.0.0.1:{closed}")),
        ill.endpoint.clone(),
        proxy.endpoint.clone(),
        endpoint(&sts.url()),
    ];
    let mut choice = RegionChoice::new(endpoints.len());
    assert!(who(&mut choice, &endpoints, 0).await.is_some());
    assert_eq!((hanging.asked(), ill.asked(), proxy.asked()), (1, 1, 1));
    for second in 1..10 {
        assert!(who(&mut choice, &endpoints, second).await.is_some());
    }
    assert_eq!((hanging.asked(), ill.asked(), proxy.asked()), (1, 1, 1));
    assert!(who(&mut choice, &endpoints, 30).await.is_some());
    assert_eq!((hanging.asked(), ill.asked(), proxy.asked()), (2, 2, 2));

    sts.stop().await;
    assert!(who(&mut choice, &endpoints, 31).await.is_none());
}

#[tokio::test]
async fn a_definite_refusal_is_not_taken_to_another_region() {
    let sts = stand_in().await.unwrap();
    let other = SickRegion::start(None).await;
    let endpoints = [endpoint(&sts.url()), other.endpoint.clone()];
    let mut choice = RegionChoice::new(2);
    let mut call = choice.call(Duration::ZERO);
    let mut refusals: Vec<StsError> = Vec::new();
    while let Some(region) = choice.next(&mut call) {
        // Ann isn't trusted by that role.
        let role = FAR.parse().unwrap();
        let request = plain_call(&role);
        let request = request.request(&endpoints[region], &ann(), Timestamp::now());
        let (status, body) = send(&endpoints[region], &request, PATIENCE).await.unwrap();
        let error = AssumedRole::read("AssumeRole", status, &body).unwrap_err();
        let outcome = match error.advice() {
            Advice::TryElsewhere => RegionOutcome::Failed,
            Advice::GiveUp | Advice::RetryLater => RegionOutcome::Answered,
        };
        refusals.push(error);
        choice.report(&mut call, outcome, Duration::ZERO);
    }
    assert_eq!((refusals.len(), other.asked()), (1, 0));
    assert_eq!(refusals[0].advice(), Advice::GiveUp);
    sts.stop().await;
}
