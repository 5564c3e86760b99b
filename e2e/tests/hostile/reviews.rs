//! What a neighbour on the pod network can do with invented reviews.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokenscope_e2e::fixtures::{ADMIN, ORDERS};
use tokenscope_e2e::{get_json, shapes};
use tokio::io::AsyncWriteExt;

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::wire::{connect_from_elsewhere, head, post, post_with};

/// The largest body that is worth sending: just below what the webhook reads.
const LARGE: usize = 8_300_000;

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("T9", "posts_of_a_million_tiny_containers", 2, |field, round| {
            Box::pin(send(field, round, 400, || {
                let containers = shapes::list(LARGE / 12, |_| "{\"name\":\"\"}".to_owned());
                let pod = format!("{{\"metadata\":{{\"name\":\"p\"}},\"spec\":{{\"containers\":{containers}}}}}");
                vec![shapes::review(HOSTILE, &pod).into_bytes()]
            }))
        })
        .beside_large_pods(),
        Attack::new(
            "",
            "the_largest_reviews_of_invented_namespaces_that_nearly_come",
            6,
            |field, round| Box::pin(nearly_whole(field, round)),
        )
        .beside_large_pods(),
        Attack::new("T3", "forged_reviews_for_namespaces_of_others", 4, |field, round| {
            Box::pin(forged(field, round))
        })
        .judged_by(|field| Box::pin(nothing_is_written_elsewhere(field))),
        Attack::new("", "json_nested_a_million_deep", 2, |field, round| {
            Box::pin(send(field, round, 150, || {
                let nested = format!("{}{}", "[".repeat(LARGE / 2), "]".repeat(LARGE / 2));
                let objects = format!("{}1{}", "{\"a\":".repeat(1_000_000), "}".repeat(1_000_000));
                let annotations = format!("{{\"metadata\":{{\"annotations\":{objects}}}}}");
                vec![
                    nested.clone().into_bytes(),
                    shapes::review(HOSTILE, &objects).into_bytes(),
                    shapes::review(HOSTILE, &annotations).into_bytes(),
                    nested.into_bytes()[..LARGE / 2].to_vec(),
                ]
            }))
        })
        .beside_large_pods(),
        Attack::new(
            "",
            "members_that_stand_twice_are_never_granted_by_the_wrong_one",
            2,
            |field, round| Box::pin(members_twice(field, round)),
        ),
        Attack::new(
            "",
            "bytes_that_are_no_json_and_numbers_without_end",
            2,
            |field, round| Box::pin(send(field, round, 60, no_json)),
        )
        .beside_large_pods(),
        Attack::new("", "compressed_bodies_that_would_be_gigabytes", 2, |field, round| {
            Box::pin(compressed(field, round))
        }),
    ]
}

/// Bytes that are no JSON, and some that are no review.
fn no_json() -> Vec<Vec<u8>> {
    vec![
        vec![0xff; 1 << 20],
        b"{\"a\":\"\\ud800\"}".to_vec(),
        shapes::review(
            HOSTILE,
            &format!("{{\"spec\":{{\"containers\":{}}}}}", "9".repeat(4 << 20)),
        )
        .into_bytes(),
        shapes::review(
            HOSTILE,
            &format!("{{\"metadata\":{{\"name\":\"{}\"}}}}", "\\u0041".repeat(1 << 20)),
        )
        .into_bytes(),
        Vec::new(),
        b"null".to_vec(),
        vec![b' '; LARGE],
    ]
}

/// Posts each of the bodies in turn.
async fn send(field: Arc<Field>, round: Round, pause: u64, bodies: fn() -> Vec<Vec<u8>>) -> Result<()> {
    let bodies = bodies();
    for body in bodies.iter().cycle() {
        if !round.goes_on() {
            break;
        }
        post(&field, &round, body).await;
        round.pause(pause).await;
    }
    Ok(())
}

/// Each body holds as much memory as one can, is given up before it would be too slow, and is of another namespace. Six of them need
/// half as much again as there is for all large reviews.
async fn nearly_whole(field: Arc<Field>, round: Round) -> Result<()> {
    let filler = vec![b' '; LARGE];
    let head = head(&format!("Content-Length: {LARGE}"));
    for number in 0_u64.. {
        if !round.goes_on() {
            break;
        }
        let Ok(mut stream) = connect_from_elsewhere(&field, b"http/1.1").await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        let namespace = format!("invented-{}-{number}", round.worker);
        let begun = shapes::review(&namespace, &" ".repeat(1000));
        let rest = filler.len() - begun.len() - 1;
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(begun.as_bytes()).await?;
            stream.write_all(filler.get(..rest).unwrap_or_default()).await?;
            stream.flush().await
        };
        let sent = tokio::time::timeout(Duration::from_secs(1), sent).await;
        round.count(if matches!(sent, Ok(Ok(()))) { "held" } else { "refused" });
        round.pause(120).await;
    }
    Ok(())
}

/// The text that must not come up anywhere.
const SAYS: &str = "written-by-a-neighbour";

/// Refused pods of others' namespaces, of accounts that nobody knows, with names as long as a body takes.
async fn forged(field: Arc<Field>, round: Round) -> Result<()> {
    for number in 0_u64.. {
        if !round.goes_on() {
            break;
        }
        let namespace = ["kube-system", "honest", "default"][number as usize % 3];
        let long = if number % 20 == 0 {
            "n".repeat(2 << 20)
        } else {
            String::new()
        };
        let pod = format!(
            "{{\"metadata\":{{\"name\":\"{SAYS}-{number}{long}\",\"namespace\":\"{namespace}\",\
             \"annotations\":{{\"tokenscope.io/role-arn\":\"{ADMIN}\"}},\
             \"ownerReferences\":[{{\"apiVersion\":\"apps/v1\",\"kind\":\"ReplicaSet\",\"name\":\"{SAYS}\",\
             \"uid\":\"{number:08x}-0000-4000-8000-000000000000\",\"controller\":true}}]}},\
             \"spec\":{{\"serviceAccountName\":\"unknown-{}-{number}\",\"containers\":[{{\"name\":\"app\"}}]}}}}",
            round.worker
        );
        post(&field, &round, shapes::review(namespace, &pod).as_bytes()).await;
        round.pause(10).await;
    }
    Ok(())
}

async fn nothing_is_written_elsewhere(field: Arc<Field>) -> Result<()> {
    for namespace in ["kube-system", "default", "honest"] {
        let list = get_json(&field.admin, &format!("/api/v1/namespaces/{namespace}/events")).await?;
        let events = list["items"].as_array().context("a list has items")?;
        let forged = events.iter().filter(|event| event.to_string().contains(SAYS)).count();
        ensure!(
            forged == 0,
            "{forged} Events in namespace {namespace} say what a neighbour wrote"
        );
    }
    Ok(())
}

/// A review whose annotations, name or ServiceAccount stand twice. An answer may grant only what the API server would
/// read there: the last one.
async fn members_twice(field: Arc<Field>, round: Round) -> Result<()> {
    let asks = |role: &str| format!("{{\"tokenscope.io/role-arn\":\"{role}\"}}");
    let pods = [
        format!(
            "{{\"metadata\":{{\"annotations\":{},\"annotations\":{}}},{}}}",
            asks(ORDERS),
            asks(ADMIN),
            spec("orders")
        ),
        format!(
            "{{\"metadata\":{{\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\",\"tokenscope.io/role-arn\":\"{ADMIN}\"}}}},{}}}",
            spec("orders")
        ),
        format!(
            "{{\"metadata\":{{\"annotations\":{}}},{},{}}}",
            asks(ORDERS),
            spec("orders"),
            spec("nobody")
        ),
    ];
    for pod in pods.iter().cycle() {
        if !round.goes_on() {
            break;
        }
        if let Some(answer) = post(&field, &round, shapes::review(HOSTILE, pod).as_bytes()).await {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let answer: Value = serde_json::from_str(body).unwrap_or_default();
            let granted = answer["response"]["allowed"] == true && answer["response"]["patch"].is_string();
            ensure!(!granted, "granted by the first of two members: {pod}");
        }
        round.pause(20).await;
    }
    Ok(())
}

fn spec(account: &str) -> String {
    format!("\"spec\":{{\"serviceAccountName\":\"{account}\",\"containers\":[{{\"name\":\"app\"}}]}}")
}

/// gzip of zeros, made by hand: a header, and stored blocks that promise more than they have.
async fn compressed(field: Arc<Field>, round: Round) -> Result<()> {
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    // A deflate block with fixed codes that repeats one zero for ever: 258 bytes a symbol.
    body.extend([0x63].iter().chain(std::iter::repeat_n(&0x00, 2 << 20)));
    while round.goes_on() {
        for encoding in ["gzip", "gzip, gzip", "identity;q=0, *"] {
            let headers = format!(
                "Content-Encoding: {encoding}\r\nContent-Length: {}\r\nConnection: close",
                body.len()
            );
            post_with(&field, &round, &headers, &body).await;
        }
        round.pause(50).await;
    }
    Ok(())
}
