//! What a neighbour can do with connections: idle, slow, half-open, endless, and many.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokenscope_e2e::shapes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::wire::{connect, failure, head, post_with, tcp};

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("N1", "idle_connections_to_the_port_of_the_probes", 4, |field, round| {
            Box::pin(async move { idle(&round, field.observe_port()?, 90).await })
        }),
        Attack::new("N2", "bodies_that_are_declared_and_never_come", 4, |field, round| {
            Box::pin(slow_bodies(field, round))
        })
        .beside_large_pods(),
        Attack::new(
            "T7b",
            "idle_connections_to_the_port_of_the_reviews",
            4,
            |field, round| Box::pin(async move { idle(&round, field.review_port(), 200).await }),
        ),
        Attack::new(
            "",
            "heads_that_come_a_byte_at_a_time_on_both_ports",
            2,
            |field, round| Box::pin(slow_heads(field, round)),
        ),
        Attack::new("", "answers_that_nobody_reads", 4, |field, round| {
            Box::pin(unread_answers(field, round))
        })
        .beside_large_pods(),
        Attack::new("", "bodies_in_chunks_without_end", 3, |field, round| {
            Box::pin(endless_chunks(field, round))
        })
        .beside_large_pods(),
        Attack::new("", "heads_of_megabytes", 2, |field, round| {
            Box::pin(large_heads(field, round))
        }),
        Attack::new("", "handshakes_that_are_begun_and_left", 3, |field, round| {
            Box::pin(handshakes(field, round))
        }),
        Attack::new("", "connections_that_close_before_their_answer", 3, |field, round| {
            Box::pin(early_close(field, round))
        }),
        Attack::new("", "a_flood_of_scrapes", 4, |field, round| {
            Box::pin(scrapes(field, round))
        }),
        Attack::new("", "requests_pipelined_by_the_thousand", 2, |field, round| {
            Box::pin(pipelined(field, round))
        }),
    ]
}

/// Opens connections, says nothing, and opens those again that were closed.
async fn idle(round: &Round, port: u16, count: usize) -> Result<()> {
    while round.goes_on() {
        let mut open = Vec::new();
        for _ in 0..count {
            match tcp(port).await {
                Ok(stream) => {
                    round.count("open");
                    open.push(stream);
                }
                Err(error) => round.count(failure(&error)),
            }
        }
        round.pause(2500).await;
    }
    Ok(())
}

/// What makes honest reviews need new connections meanwhile.
async fn reconnect(field: &Field, round: &Round) -> Result<()> {
    while round.goes_on() {
        round.pause(700).await;
        field.reconnect().await?;
        round.count("reconnected");
    }
    Ok(())
}

/// The largest body that is taken is declared; a byte of it comes now and then.
async fn slow_bodies(field: Arc<Field>, round: Round) -> Result<()> {
    let declared = head("Content-Length: 8388608");
    let mut open = Vec::new();
    while round.goes_on() {
        while open.len() < 12 {
            match connect(&field, b"http/1.1").await {
                Ok(mut stream) => {
                    round.count("open");
                    if stream.write_all(declared.as_bytes()).await.is_ok() {
                        open.push(stream);
                    }
                }
                Err(error) => {
                    round.count(failure(&error));
                    break;
                }
            }
        }
        let mut still = Vec::new();
        for mut stream in open {
            if stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok() {
                still.push(stream);
            }
        }
        open = still;
        round.pause(200).await;
    }
    Ok(())
}

async fn slow_heads(field: Arc<Field>, round: Round) -> Result<()> {
    let text = format!("GET /livez HTTP/1.1\r\nHost: webhook\r\nX-Slow: {}", "s".repeat(4000));
    let mut plain = Vec::new();
    let mut secure = Vec::new();
    for _ in 0..60 {
        plain.extend(tcp(field.observe_port()?).await);
        secure.extend(connect(&field, b"http/1.1").await);
    }
    for byte in text.as_bytes().chunks(1) {
        if !round.goes_on() {
            break;
        }
        for stream in &mut plain {
            round.count(if stream.write_all(byte).await.is_ok() {
                "byte"
            } else {
                "broken"
            });
        }
        for stream in &mut secure {
            let sent = stream.write_all(byte).await.is_ok() && stream.flush().await.is_ok();
            round.count(if sent { "byte" } else { "broken" });
        }
        round.pause(150).await;
    }
    Ok(())
}

/// Large answers asked for one after the other on connections that nobody reads.
async fn unread_answers(field: Arc<Field>, round: Round) -> Result<()> {
    let body = shapes::review(HOSTILE, &shapes::containers(HOSTILE, "unread", 64));
    let request = format!("{}{body}", head(&format!("Content-Length: {}", body.len())));
    let mut open = Vec::new();
    while round.goes_on() {
        if open.len() < 40 {
            open.extend(connect(&field, b"http/1.1").await);
            round.pause(5).await;
        }
        for stream in &mut open {
            let write = stream.write_all(request.as_bytes());
            let sent = tokio::time::timeout(Duration::from_millis(20), write).await;
            round.count(if matches!(sent, Ok(Ok(()))) {
                "sent"
            } else {
                "not taken"
            });
            round.pause(25).await;
        }
    }
    Ok(())
}

async fn endless_chunks(field: Arc<Field>, round: Round) -> Result<()> {
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    while round.goes_on() {
        let Ok(mut stream) = connect(&field, b"http/1.1").await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        let _ = stream.write_all(head("Transfer-Encoding: chunked").as_bytes()).await;
        while round.goes_on() {
            let write = tokio::time::timeout(Duration::from_secs(1), stream.write_all(chunk.as_bytes())).await;
            if !matches!(write, Ok(Ok(()))) {
                round.count("refused");
                break;
            }
            round.count("chunk");
            round.pause(1).await;
        }
    }
    Ok(())
}

async fn large_heads(field: Arc<Field>, round: Round) -> Result<()> {
    let one = format!("X-Large: {}\r\nContent-Length: 0", "h".repeat(2 << 20));
    let many = format!("{}Content-Length: 0", "X-Many: h\r\n".repeat(100_000));
    while round.goes_on() {
        for headers in [&one, &many] {
            post_with(&field, &round, headers, b"").await;
            round.pause(30).await;
        }
    }
    Ok(())
}

/// A whole handshake costs the server more than its client; half of one holds its place.
async fn handshakes(field: Arc<Field>, round: Round) -> Result<()> {
    // The beginning of a record that would be a ClientHello of 512 bytes.
    const BEGUN: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    if round.worker == 0 {
        return reconnect(&field, &round).await;
    }
    while round.goes_on() {
        let mut begun = Vec::new();
        for _ in 0..60 {
            if let Ok(mut stream) = tcp(field.review_port()).await {
                round.count(if stream.write_all(BEGUN).await.is_ok() {
                    "begun"
                } else {
                    "broken"
                });
                begun.push(stream);
            }
        }
        for _ in 0..10 {
            let whole = connect(&field, b"http/1.1").await;
            round.count(if whole.is_ok() { "handshake" } else { "no handshake" });
        }
        round.pause(300).await;
    }
    Ok(())
}

async fn early_close(field: Arc<Field>, round: Round) -> Result<()> {
    let body = shapes::review(HOSTILE, &shapes::containers(HOSTILE, "closed", 200));
    let request = format!("{}{body}", head(&format!("Content-Length: {}", body.len())));
    while round.goes_on() {
        if let Ok(mut stream) = connect(&field, b"http/1.1").await {
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.flush().await;
            round.count("closed");
        } else {
            round.count("not accepted");
        }
        round.pause(10).await;
    }
    Ok(())
}

async fn scrapes(field: Arc<Field>, round: Round) -> Result<()> {
    let port = field.observe_port()?;
    while round.goes_on() {
        let answer = tokio::time::timeout(Duration::from_secs(2), tokenscope_e2e::get(port, "/metrics")).await;
        match answer {
            Ok(Ok((status, _))) => round.count(status.to_string()),
            Ok(Err(_)) => round.count("broken"),
            Err(_) => round.count("no answer"),
        }
        round.pause(5).await;
    }
    Ok(())
}

async fn pipelined(field: Arc<Field>, round: Round) -> Result<()> {
    let many = "GET /nowhere HTTP/1.1\r\nHost: webhook\r\n\r\n".repeat(4000);
    while round.goes_on() {
        if let Ok(stream) = connect(&field, b"http/1.1").await {
            let (mut read, mut write) = tokio::io::split(stream);
            let reader = tokio::spawn(async move {
                let mut sink = vec![0; 64 << 10];
                while matches!(read.read(&mut sink).await, Ok(length) if length > 0) {}
            });
            let sent = tokio::time::timeout(Duration::from_secs(3), write.write_all(many.as_bytes())).await;
            round.count(if matches!(sent, Ok(Ok(()))) {
                "sent"
            } else {
                "not taken"
            });
            reader.abort();
        }
        round.pause(100).await;
    }
    Ok(())
}
