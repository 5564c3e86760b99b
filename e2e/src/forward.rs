//! Servers that lead connections elsewhere: one does a Service's work in a cluster, where connections to one address go in turn to those of
//! several servers that answer; one lets another address stand for a server; and one is an HTTP proxy.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// An address on 127.0.0.1 that stands for servers, until this process ends.
#[derive(Clone, Debug)]
pub struct Forward {
    port: u16,
    servers: Arc<RwLock<Vec<u16>>>,
}

impl Forward {
    /// Listens on a port, for no server yet. Uses threads, not a runtime, because it outlives the runtime of the test that
    /// starts it.
    pub fn listen(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let turn = Arc::new(AtomicUsize::new(0));
        let servers = Arc::new(RwLock::new(Vec::new()));
        let all = Arc::clone(&servers);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let turn = Arc::clone(&turn);
                let servers = all.read().unwrap_or_else(PoisonError::into_inner).clone();
                thread::spawn(move || {
                    // A connection that breaks is the clients' and the servers' to notice.
                    let _ = connect(&turn, &servers).and_then(|server| join(&client, &server));
                });
            }
        });
        Ok(Self { port, servers })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections go to the server on this port as well.
    pub fn add(&self, server: u16) {
        self.servers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(server);
    }

    /// New connections no longer go to the server on this port. Those that are open stay.
    pub fn remove(&self, server: u16) {
        self.servers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| *other != server);
    }
}

fn connect(turn: &AtomicUsize, ports: &[u16]) -> io::Result<TcpStream> {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for offset in 0..ports.len() {
        let address = SocketAddr::from(([127, 0, 0, 1], ports[(first + offset) % ports.len()]));
        match TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
            Ok(server) => return Ok(server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Leads each connection that comes to `listener` to this server, as long as this process lives.
pub fn leads_to(listener: &TcpListener, server: SocketAddr) {
    for client in listener.incoming().flatten() {
        // As above: who opened the connection notices that it broke.
        thread::spawn(move || TcpStream::connect(server).and_then(|server| join(&client, &server)));
    }
}

/// The longest head of a request for a tunnel.
const MOST_HEAD_BYTES: usize = 8192;

/// An HTTP proxy on 127.0.0.1, until this process ends: its port. Each tunnel (RFC 9110 §9.3.6) leads to this server, whatever name
/// was asked for, so that programs which resolve names by themselves reach a name that nobody resolves.
pub fn tunnels_to(server: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // As above: who opened the tunnel notices that it broke.
            thread::spawn(move || tunnel(&client, server));
        }
    });
    Ok(port)
}

fn tunnel(mut client: &TcpStream, server: u16) -> io::Result<()> {
    // Byte by byte: what follows the head belongs to the tunnel.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MOST_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let server = TcpStream::connect(("127.0.0.1", server))?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    join(client, &server)
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
    use tokenscope_fixtures::free_port;

    use super::*;

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
        let forward = Forward::listen(port).unwrap();
        for server in [ports[0], ports[1], nobody] {
            forward.add(server);
        }
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

    #[test]
    fn another_address_stands_for_a_server() {
        let server = server("the server ").local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || leads_to(&listener, server));
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the server hello");
    }

    #[test]
    fn every_tunnel_leads_to_the_server_whatever_name_is_asked_for() {
        let server = server("the server ");
        let proxy = tunnels_to(server.local_addr().unwrap().port()).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", proxy)).unwrap();
        client
            .write_all(b"CONNECT tokens.tokenscope.test:443 HTTP/1.1\r\nHost: tokens.tokenscope.test:443\r\n\r\nhello")
            .unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\nthe server hello");
    }
}
