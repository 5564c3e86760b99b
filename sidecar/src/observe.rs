//! `/livez`, `/readyz` and `/metrics` in plain HTTP, for a port on loopback.
//!
//! Three answers to GET need no HTTP library: the request line is read, all else ignored, and the connection closed. This
//! takes 29 kB of the program; with hyper's server the program has 82 kB more (docs/adr/0010).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::health::Health;

/// The most requests that are answered at a time; others wait.
const MOST_CONNECTIONS: usize = 8;
/// The longest time that one may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest request, in bytes.
const LONGEST_REQUEST: usize = 8192;

/// Listens. Fails if the address is taken, or is none of this pod's.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, clock: Arc<impl Clock>) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors are left, or so
            continue;
        };
        let health = Arc::clone(&health);
        let now = clock.now();
        tokio::spawn(async move {
            let _slot = slot;
            // Who goes away or is slow gets no answer.
            let _ = timeout(DEADLINE, answer(stream, &health, now)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, health: &Health, now: jiff::Timestamp) -> io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut part).await?;
        request.extend(&part[..count]);
        if count == 0 || request.len() > LONGEST_REQUEST {
            break;
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        (b"GET", b"/livez") => ("200 OK", "ok\n".to_owned()),
        (b"GET", b"/readyz") => match health.ready(now) {
            Ok(()) => ("200 OK", "ok\n".to_owned()),
            Err(why) => ("503 Service Unavailable", why + "\n"),
        },
        (b"GET", b"/metrics") => ("200 OK", health.metrics()),
        (b"GET", _) => ("404 Not Found", "there are /livez, /readyz and /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
