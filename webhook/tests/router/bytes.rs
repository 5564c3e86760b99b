//! Bodies and answers, and the bytes that they hold.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Instant;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokenscope_webhook::budget::MOST_BODY_BYTES;
use tokenscope_webhook::deadlines::ReviewDeadlines;
use tokio::task::JoinHandle;

use super::{API_SERVER, Harness, PATIENT, nothing};
use crate::fixtures::{ReviewFixture, ReviewedPod, app, asking, plain};

#[tokio::test]
async fn a_large_pod_is_read_and_one_that_is_too_large_is_not() {
    let harness = Harness::knowing(nothing);
    let with_note = |bytes: usize| {
        let mut pod = asking(app());
        pod["metadata"]["annotations"]["note"] = json!("n".repeat(bytes));
        ReviewFixture::new().request(&pod).to_string()
    };
    let (status, body) = harness.post(with_note(3 << 20)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"allowed\":true") && body.len() < 8192);

    let (status, body) = harness.post(with_note(MOST_BODY_BYTES)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("more than 8 MiB"), "{body}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let deadlines = ReviewDeadlines {
        review: ReviewDeadlines::default().review,
        ..PATIENT
    };
    let harness = Harness::knowing_within(deadlines, nothing);
    let stuck = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, Infallible>>());
    let began = Instant::now();
    let (status, body) = harness.post(stuck).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("no verdict within 1.8 s"), "{body}");
    assert!(began.elapsed() >= deadlines.review, "{:?}", began.elapsed());
}

#[tokio::test]
async fn bodies_count_as_they_arrive_and_not_as_they_are_announced() {
    let harness = Harness::knowing(nothing);
    // None of them says how long it is, so each may become 8 MiB.
    let slow: Vec<_> = (0..100).map(|_| harness.stuck("/mutate", 1)).collect();
    let held = |harness: &Harness| harness.bytes_in_flight("mutate", "small");
    harness.until_at_least(100 * (4 << 10), held).await;
    // None of them ends, so a review that is answered has waited for none.
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);
    assert!(held(&harness) <= 100 * (8 << 10));
    drop(slow);
}

fn ended(tasks: &[JoinHandle<StatusCode>]) -> u64 {
    tasks.iter().filter(|task| task.is_finished()).count() as u64
}

/// The statuses of those that were answered; the others are ended.
async fn those_that_ended(tasks: Vec<JoinHandle<StatusCode>>) -> Vec<StatusCode> {
    let mut statuses = Vec::new();
    for task in tasks {
        if task.is_finished() {
            statuses.push(task.await.unwrap());
        } else {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }
    statuses
}

#[tokio::test]
async fn large_bodies_at_a_time_are_bounded_and_keep_no_small_one_out() {
    let harness = Harness::knowing(nothing);
    let large: Vec<_> = (0..6).map(|_| harness.stuck("/mutate", 7 << 20)).collect();
    harness.until_at_least(2, |_| ended(&large)).await;
    assert!(harness.bytes_in_flight("mutate", "large") <= 32 << 20);
    // The others never end, so a review that is answered has waited for none.
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);

    let statuses = those_that_ended(large).await;
    assert_eq!(statuses, [StatusCode::SERVICE_UNAVAILABLE; 2]);
    assert_eq!(harness.reviews("shed"), 2);
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"bytes\"}"), 2);
    assert_eq!(harness.bytes_in_flight("mutate", "large"), 0);
}

#[tokio::test]
async fn a_slow_body_gives_way_to_one_that_needs_its_memory() {
    let usual = ReviewDeadlines::default();
    let deadlines = ReviewDeadlines {
        patience: usual.patience,
        ..PATIENT
    };
    let harness = Harness::knowing_within(deadlines, nothing);
    let slow: Vec<_> = (0..4).map(|_| harness.stuck("/mutate", 7 << 20)).collect();
    let held = |harness: &Harness| harness.bytes_in_flight("mutate", "large");
    harness.until_at_least(4 * (6 << 20), held).await;
    tokio::time::sleep(usual.patience).await;
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["note"] = json!("n".repeat(4 << 20));
    assert_eq!(harness.review(&pod).await["allowed"], true);
    assert_eq!(those_that_ended(slow).await, [StatusCode::SERVICE_UNAVAILABLE]);
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"slow\"}"), 1);
}

/// A pod that asks, of three megabytes.
fn large() -> Value {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["note"] = json!("n".repeat(3 << 20));
    pod
}

#[tokio::test]
async fn an_address_that_sends_the_largest_reviews_without_end_has_no_large_one_of_others_shed() {
    let harness = Harness::knowing(nothing);
    let stranger = IpAddr::from([10, 9, 9, 9]);
    let crowd = || harness.stuck_from(stranger, "/mutate", vec![vec![b' '; MOST_BODY_BYTES]]);
    let flood: Vec<_> = (0..12).map(|_| crowd()).collect();
    // None of them is slow, so nothing gives way.
    let shed = |harness: &Harness| harness.metric("tokenscope_webhook_shed_total{cause=\"bytes\"}");
    harness.until_at_least(1, shed).await;
    // None of them ends, so a review that is answered has waited for none.
    assert!(harness.review(&large()).await["patch"].is_string());
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"slow\"}"), 0);
    drop(flood);
}

#[tokio::test]
async fn a_namespace_with_a_flood_of_large_pods_has_none_of_another_namespace_shed() {
    let harness = Harness::knowing(nothing);
    let begins = ReviewFixture::new().request(&plain(app())).to_string();
    let begins = begins.replace("\"namespace\":\"shop\"", "\"namespace\":\"crowd\"");
    let pieces = || vec![[begins.as_bytes(), &[b' '; 1 << 10]].concat(), vec![b' '; 3 << 20]];
    let crowd = || harness.stuck_from(API_SERVER, "/mutate", pieces());
    let flood: Vec<_> = (0..12).map(|_| crowd()).collect();
    let shed = |harness: &Harness| harness.metric("tokenscope_webhook_shed_total{cause=\"bytes\"}");
    harness.until_at_least(1, shed).await;
    // None of them ends, so a review that is answered has waited for none.
    assert!(harness.review(&large()).await["patch"].is_string());
    assert_eq!(harness.metric("tokenscope_webhook_shed_total{cause=\"slow\"}"), 0);
    drop(flood);
}

#[tokio::test]
async fn reviews_that_are_hardly_large_are_bounded_in_number_too() {
    let harness = Harness::knowing(nothing);
    let stranger = IpAddr::from([10, 9, 9, 9]);
    let crowd = || harness.stuck_from(stranger, "/mutate", vec![vec![b' '; 65 << 10]]);
    let flood: Vec<_> = (0..200).map(|_| crowd()).collect();
    // Each takes one of 128 places where large reviews wait, and this address has no more than two thirds of them.
    let expected = 64 * (256 << 10)..=(32 << 20) * 2 / 3;
    let held = |harness: &Harness| harness.bytes_in_flight("mutate", "large");
    harness.until_at_least(*expected.start(), held).await;
    let held = held(&harness);
    assert!(expected.contains(&held), "{held} bytes");
    assert!(harness.review(&large()).await["patch"].is_string());
    drop(flood);
}

#[tokio::test]
async fn an_answer_counts_until_it_was_written() {
    let harness = Harness::knowing(nothing);
    let request = ReviewFixture::new().request(&asking(app())).to_string();
    let response = harness.respond("/mutate", request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(harness.bytes_in_flight("mutate", "small") > 0);
    drop(response);
    assert_eq!(harness.bytes_in_flight("mutate", "small"), 0);
}

#[tokio::test]
async fn a_mark_that_a_pod_brings_is_removed_also_while_reviews_crowd() {
    let harness = Harness::knowing(nothing);
    let crowd: Vec<_> = (0..300).map(|_| harness.stuck("/mutate", 70 << 10)).collect();
    let held = |harness: &Harness| harness.bytes_in_flight("mutate", "small");
    harness.until_at_least(4 << 20, held).await;
    let mut pod = plain(app());
    pod["metadata"]["labels"]["tokenscope.io/reviewed"] = json!("granted");
    pod["metadata"]["annotations"]["note"] = json!("n".repeat(200 << 10));
    let (status, body) = harness
        .post_to("/strip-mark", ReviewFixture::new().request(&pod).to_string())
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let patched = ReviewedPod::of_body(&body, &pod).pod;
    assert_eq!(patched["metadata"]["labels"].get("tokenscope.io/reviewed"), None);

    pod["metadata"]["labels"] = json!({});
    harness
        .post_to("/strip-mark", ReviewFixture::new().request(&pod).to_string())
        .await;
    assert_eq!(harness.post_to("/strip-mark", "{}").await.0, StatusCode::BAD_REQUEST);
    let marks = |harness: &Harness, outcome: &str| {
        harness.metric(&format!("tokenscope_webhook_strip_mark_total{{outcome=\"{outcome}\"}}"))
    };
    for (outcome, count) in [("removed", 1), ("absent", 1), ("failed", 1), ("shed", 0)] {
        assert_eq!(marks(&harness, outcome), count, "{outcome}");
    }
    drop(crowd);

    let deadlines = ReviewDeadlines {
        review: ReviewDeadlines::default().review,
        ..PATIENT
    };
    let harness = Harness::knowing_within(deadlines, nothing);
    let stuck = harness.stuck("/strip-mark", 1).await.unwrap();
    assert_eq!(stuck, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(marks(&harness, "failed"), 1);
}
