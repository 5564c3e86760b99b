//! The port on the loopback addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// The reason why the port can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{}", words(*.address, .source))]
pub struct PortError {
    /// The address.
    pub address: SocketAddr,
    /// The system's words.
    #[source]
    pub source: io::Error,
}

fn words(address: SocketAddr, source: &io::Error) -> String {
    let port = address.port();
    if source.kind() == io::ErrorKind::AddrInUse {
        return format!(
            "the port {port} is taken at {address}: another container of this pod listens there, and credentials are served nowhere else; choose another port for tokenscope or for that container"
        );
    }
    format!("can't listen on port {port} at {address}: {source}")
}

/// The listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) v4: TcpListener,
    /// `None` in a pod without IPv6.
    pub(super) v6: Option<TcpListener>,
}

/// Listens on 127.0.0.1 and ::1, on both or on none; only where a pod has no IPv6, on 127.0.0.1 alone.
pub(super) async fn listen(port: u16) -> Result<Listeners, PortError> {
    let v4 = bind(Ipv4Addr::LOCALHOST.into(), port).await?;
    let v6 = match bind(Ipv6Addr::LOCALHOST.into(), port).await {
        Ok(listener) => Some(listener),
        // ::1 is no address of this pod, or its kernel has no IPv6.
        Err(error) if is_without_ipv6(&error.source) => None,
        Err(error) => return Err(error),
    };
    Ok(Listeners { v4, v6 })
}

async fn bind(ip: IpAddr, port: u16) -> Result<TcpListener, PortError> {
    let address = SocketAddr::new(ip, port);
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| PortError { address, source })
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(no_family)
}
