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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::process::free_port;

    /// A server that sends its name, then what it receives, until the connection ends.
    fn server(name: &'static str) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepting = listener.try_clone().unwrap();
        thread::spawn(move || {
            for mut stream in accepting.incoming().flatten() {
                stream.write_all(name.as_bytes()).unwrap();
                io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
            }
        });
        listener
    }

    #[test]
    fn connections_go_in_turn_to_the_servers_that_answer() {
        let (first, second) = (server("first "), server("second "));
        let nobody = free_port().unwrap();
        let port = free_port().unwrap();
        let ports = [first, second].map(|listener| listener.local_addr().unwrap().port());
        forward(port, vec![ports[0], ports[1], nobody]).unwrap();
        let mut answers = Vec::new();
        for _ in 0..6 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(b"hello").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answers.push(answer);
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers, ["first hello", "second hello"]);
    }
}
