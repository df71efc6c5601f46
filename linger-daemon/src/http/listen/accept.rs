//! Accepts connections.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};

use socket2::Domain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::Listeners;
use super::unix::SocketFile;

/// A bidirectional stream of bytes.
pub(in crate::http) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A client, whose connections compete for slots with each other first: an address, or all those that one host may
/// have. `None` for a Unix socket.
pub(in crate::http) type Peer = Option<IpAddr>;

type Accepted = (Box<dyn Transport>, Peer);

/// Takes connections of all listeners in turn; it is the first one's.
pub(in crate::http) struct Accept(Vec<Listener>);

enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "its file is removed on drop")] Option<SocketFile>,
    ),
}

impl Accept {
    /// Registers the listeners. Needs a tokio runtime with I/O.
    pub(in crate::http) fn new(listeners: Listeners) -> io::Result<Self> {
        let listeners = listeners.0.into_iter().map(|listener| {
            Ok(match listener.socket.domain()? {
                Domain::UNIX => {
                    let socket = UnixListener::from_std(listener.socket.into())?;
                    Listener::Unix(socket, listener.file)
                }
                _ => Listener::Tcp(TcpListener::from_std(listener.socket.into())?),
            })
        });
        Ok(Self(listeners.collect::<io::Result<_>>()?))
    }

    pub(in crate::http) async fn next(&mut self) -> io::Result<Accepted> {
        poll_fn(|context| {
            for _ in 0..self.0.len() {
                let accepted = self.0[0].poll(context);
                self.0.rotate_left(1);
                if accepted.is_ready() {
                    return accepted;
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Listener {
    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, address)| (Box::new(stream) as _, Some(host(address.ip())))),
            Self::Unix(listener, _) => listener
                .poll_accept(context)
                .map_ok(|(stream, _)| (Box::new(stream) as _, None)),
        }
    }
}

/// Reduces an address to one that stands for all of its host's: an IPv6 address to its /64 network, and any address of
/// 127.0.0.0/8, of which every local user may choose one for each connection, to 127.0.0.1.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_host_are_one_client() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.9.8.7", "127.0.0.1"),
            ("::ffff:127.9.8.7", "127.0.0.1"),
            ("::1", "::1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let found = host(address.parse().unwrap());
            assert_eq!(found.to_string(), expected, "{address}");
        }
    }
}
