//! Listening for connections, on IPv6 and IPv4 at once where the machine has both.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// The most connections that wait to be accepted, as at tokio's own listeners.
const BACKLOG: i32 = 1024;

/// Listens on an address. `[::]` is every address of both families, and on a machine without IPv6 every IPv4 address.
///
/// It needs a runtime of tokio. Fails if the address is taken, or is none of this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = with_fallback(address, open)?;
    TcpListener::from_std(socket.into())
}

/// Opens an address, or `0.0.0.0` in place of `[::]` where there is no IPv6.
fn with_fallback<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && lacks_ipv6(&error) => {
            tracing::info!(%address, %error, "this machine has no IPv6, so only IPv4 is listened on");
            open((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        opened => opened,
    }
}

/// True if the kernel knows no IPv6, or no interface has any of its addresses.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) || error.kind() == ErrorKind::AddrNotAvailable
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said outright: the machine's own default (net.ipv6.bindv6only) may be the other one.
        socket.set_only_v6(false)?;
    }
    // A restarted process must not wait until the connections of the last one are forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    const EVERY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    /// The outcome where the system answers so for IPv6, and the addresses that were tried.
    fn tried(address: &str, v6: impl Fn() -> io::Result<()>) -> (Result<(), ErrorKind>, Vec<String>) {
        let tried = std::cell::RefCell::new(Vec::new());
        let result = with_fallback(address.parse().unwrap(), |address| {
            tried.borrow_mut().push(address.to_string());
            if address.is_ipv6() { v6() } else { Ok(()) }
        });
        (result.map_err(|error| error.kind()), tried.into_inner())
    }

    fn no_ipv6() -> io::Result<()> {
        Err(Errno::AFNOSUPPORT.into())
    }

    #[tokio::test]
    async fn both_families_reach_a_listener_of_every_address() {
        let listener = bind(EVERY).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut loopbacks = vec!["127.0.0.1"];
        if bind("[::1]:0".parse().unwrap()).is_ok() {
            loopbacks.push("::1");
        }
        for loopback in loopbacks {
            let (connected, accepted) = tokio::join!(TcpStream::connect((loopback, port)), listener.accept());
            let (_, peer) = accepted.unwrap();
            connected.unwrap();
            assert_eq!(peer.ip().to_canonical().to_string(), loopback);
        }
    }

    #[test]
    fn a_machine_without_ipv6_is_listened_on_by_ipv4() {
        let both = vec!["[::]:8443".to_owned(), "0.0.0.0:8443".to_owned()];
        assert_eq!(tried("[::]:8443", no_ipv6), (Ok(()), both.clone()));
        let no_address = || Err(Errno::ADDRNOTAVAIL.into());
        assert_eq!(tried("[::]:8443", no_address), (Ok(()), both));
    }

    #[test]
    fn an_address_that_was_chosen_or_is_taken_is_not_replaced() {
        let one = vec!["[::1]:8443".to_owned()];
        assert_eq!(tried("[::1]:8443", no_ipv6).1, one);
        let taken = || Err(Errno::ADDRINUSE.into());
        let all = vec!["[::]:8443".to_owned()];
        assert_eq!(tried("[::]:8443", taken), (Err(ErrorKind::AddrInUse), all));
        assert_eq!(
            tried("0.0.0.0:8443", no_ipv6),
            (Ok(()), vec!["0.0.0.0:8443".to_owned()])
        );
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_whichever_family_took_it() {
        let listener = bind(EVERY).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["0.0.0.0", "[::]"] {
            let address = format!("{address}:{port}").parse().unwrap();
            assert_eq!(bind(address).unwrap_err().kind(), ErrorKind::AddrInUse, "{address}");
        }
    }
}
