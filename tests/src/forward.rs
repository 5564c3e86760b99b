//! What a Service does in a cluster: connections to one address go in turn to those of several servers that answer.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Forwards from a new port on 127.0.0.1 to ports on 127.0.0.1, until this process ends. Uses threads, not a runtime,
/// because it outlives the runtime of the test that starts it.
pub fn forward(listen: u16, ports: Vec<u16>) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", listen))?;
    let turn = Arc::new(AtomicUsize::new(0));
    let ports: Arc<[u16]> = ports.into();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (turn, ports) = (Arc::clone(&turn), Arc::clone(&ports));
            thread::spawn(move || {
                // A connection that breaks is the clients' and the servers' to notice.
                let _ = connect(&turn, &ports).and_then(|server| join(&client, &server));
            });
        }
    });
    Ok(())
}

fn connect(turn: &AtomicUsize, ports: &[u16]) -> io::Result<TcpStream> {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for offset in 0..ports.len() {
        let address = SocketAddr::from(([127, 0, 0, 1], ports[(first + offset) % ports.len()]));
        match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(server) => return Ok(server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
