//! The listening sockets: TCP, Unix, and those that a service manager opened before.

mod accept;
mod activation;
mod unix;

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockAddr, Socket, Type};

pub(super) use self::accept::{Accept, Peer, Transport};
pub use self::activation::passed;
use self::unix::SocketFile;
use crate::config::ListenAddr;

/// Connections that the kernel queues for a listening socket; it may allow fewer (`somaxconn`).
const BACKLOG: i32 = 4096;

/// Reason why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address or path is in use.
    #[error("{0} is in use: is another lingerd running? Choose another address with --listen")]
    InUse(ListenAddr),
    /// The address is not one of this host.
    #[error("{0} is not an address of this host: choose another one with --listen")]
    NotHere(ListenAddr),
    /// The port needs privileges.
    #[error(
        "no permission to listen on {0}: ports this low need CAP_NET_BIND_SERVICE, choose a higher \
         one with --listen"
    )]
    LowPort(ListenAddr),
    /// lingerd may not write the directory of the socket.
    #[error(
        "no permission to create {0}: let lingerd write to its directory, or choose another one"
    )]
    NotWritable(ListenAddr),
    /// The directory of the socket does not exist.
    #[error(
        "the directory of {0} does not exist: create it; for a systemd service, RuntimeDirectory= does"
    )]
    NoDirectory(ListenAddr),
    /// The path is a file other than a socket, which must not be replaced.
    #[error("{0} is a file, not a socket: remove it or choose another path with --listen")]
    NotASocket(ListenAddr),
    /// The path is longer than the kernel accepts.
    #[error(
        "{0} is too long for the path of a socket, which has at most 107 bytes: choose a shorter one"
    )]
    TooLong(ListenAddr),
    /// Anything else.
    #[error("cannot listen on {place}: choose another address with --listen")]
    Other {
        /// The address to listen on.
        place: ListenAddr,
        /// The error from the kernel.
        source: io::Error,
    },
    /// The service manager passed an unusable descriptor.
    #[error("the service manager passed {0}: have its socket unit listen with ListenStream= only")]
    Passed(String),
}

impl BindError {
    /// Describes an error from the kernel with a remedy.
    fn of(place: ListenAddr, source: io::Error) -> Self {
        match (source.kind(), &place) {
            (io::ErrorKind::AddrInUse, _) => Self::InUse(place),
            (io::ErrorKind::AddrNotAvailable, ListenAddr::Tcp(_)) => Self::NotHere(place),
            (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(_)) => Self::LowPort(place),
            (io::ErrorKind::PermissionDenied, ListenAddr::Unix(_)) => Self::NotWritable(place),
            (io::ErrorKind::NotFound, ListenAddr::Unix(_)) => Self::NoDirectory(place),
            _ => Self::Other { place, source },
        }
    }
}

/// Listening sockets. The files of Unix sockets that this process created are removed when dropped.
pub struct Listeners(Vec<Listener>);

struct Listener {
    socket: Socket,
    /// Its address, with the port that the kernel chose if none was given.
    place: ListenAddr,
    /// The file, if this process created it.
    file: Option<SocketFile>,
}

impl Listeners {
    /// Returns the addresses of the sockets.
    pub fn places(&self) -> impl Iterator<Item = &ListenAddr> {
        self.0.iter().map(|listener| &listener.place)
    }

    /// Duplicates the sockets. The files of Unix sockets are removed with the original.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = |listener: &Listener| {
            Ok(Listener {
                socket: listener.socket.try_clone()?,
                place: listener.place.clone(),
                file: None,
            })
        };
        Ok(Self(self.0.iter().map(clone).collect::<io::Result<_>>()?))
    }
}

/// Opens the listening sockets for [`super::serve`].
pub fn bind(places: &[ListenAddr]) -> Result<Listeners, BindError> {
    let listeners = places.iter().map(|place| match place {
        ListenAddr::Tcp(address) => {
            tcp(*address, places).map_err(|source| BindError::of(place.clone(), source))
        }
        ListenAddr::Unix(path) => unix::bind(path),
    });
    Ok(Listeners(listeners.collect::<Result<_, _>>()?))
}

fn tcp(address: SocketAddr, places: &[ListenAddr]) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let has_v4 = places.iter().any(|place| match place {
        ListenAddr::Tcp(other) => other.is_ipv4() && other.port() == address.port(),
        ListenAddr::Unix(_) => false,
    });
    // [::] takes IPv4 as well, unless that has a socket of its own.
    if address.is_ipv6() && has_v4 {
        socket.set_only_v6(true)?;
    }
    // Let the next daemon listen although connections of this one still exist.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    listen(socket, ListenAddr::Tcp(bound), None)
}

/// Starts listening on a bound socket.
fn listen(socket: Socket, place: ListenAddr, file: Option<SocketFile>) -> io::Result<Listener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener {
        socket,
        place,
        file,
    })
}
