//! Connections, as they come.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use socket2::Domain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::Listeners;
use super::unix::SocketFile;

/// A stream of bytes in both directions.
pub(in crate::http) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Whose connections compete for room first of all with each other: an address, or for IPv6 the
/// network of one host. None for a Unix socket.
pub(in crate::http) type Peer = Option<IpAddr>;

/// A connection, and who made it.
type Accepted = (Box<dyn Transport>, Peer);

/// Takes connections of all listeners in turn.
pub(in crate::http) struct Accept {
    listeners: Vec<Listener>,
    /// The listener whose turn it is.
    next: usize,
}

enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removed when dropped")] Option<SocketFile>,
    ),
}

impl Accept {
    /// Needs a tokio runtime with I/O.
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
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>()?,
            next: 0,
        })
    }

    /// The next connection, and who made it.
    pub(in crate::http) async fn next(&mut self) -> io::Result<Accepted> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        for _ in 0..self.listeners.len() {
            let listener = &self.listeners[self.next];
            self.next = (self.next + 1) % self.listeners.len();
            if let Poll::Ready(accepted) = listener.poll(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
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

/// Who owns one address of IPv6 owns its /64.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}
