//! Where the endpoints are served: TCP, Unix sockets, and what a service manager opened before.

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

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something listens there already.
    #[error("{0} is in use: is another lingerd running? Choose another place with --listen")]
    InUse(ListenAddr),
    /// The address belongs to another host.
    #[error("{0} is no address of this host: choose another one with --listen")]
    NotHere(ListenAddr),
    /// The port needs privileges.
    #[error(
        "no permission to listen on {0}: ports this low need CAP_NET_BIND_SERVICE, choose a higher \
         one with --listen"
    )]
    LowPort(ListenAddr),
    /// The directory of the socket is not lingerd's to write.
    #[error("no permission to make {0}: let lingerd write its directory, or choose another one")]
    NotWritable(ListenAddr),
    /// There is no directory for the socket.
    #[error("{0} has no directory: create it, with RuntimeDirectory= where systemd starts lingerd")]
    NoDirectory(ListenAddr),
    /// There is a file that is not to be replaced.
    #[error("{0} is a file, and no socket: remove it or choose another path with --listen")]
    NotASocket(ListenAddr),
    /// More than the kernel takes.
    #[error(
        "{0} is too long for the path of a socket, which has at most 107 bytes: choose a shorter one"
    )]
    TooLong(ListenAddr),
    /// Anything else.
    #[error("cannot listen on {place}: choose another place with --listen")]
    Other {
        /// Where it was to listen.
        place: ListenAddr,
        /// The error from the kernel.
        source: io::Error,
    },
    /// The service manager passed an unusable descriptor.
    #[error(
        "the service manager passed {what}: have its socket unit listen with ListenStream= only"
    )]
    Passed {
        /// Describes the descriptor.
        what: String,
    },
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

/// Listening sockets. The files of Unix sockets that were made here are removed when dropped.
pub struct Listeners(Vec<Listener>);

/// One of them.
struct Listener {
    socket: Socket,
    /// Where it listens, with the port that the kernel chose if none was given.
    place: ListenAddr,
    /// The file, if it was made here.
    file: Option<SocketFile>,
}

impl Listeners {
    /// Where they listen.
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
            tcp(*address).map_err(|source| BindError::of(place.clone(), source))
        }
        ListenAddr::Unix(path) => unix::bind(path),
    });
    Ok(Listeners(listeners.collect::<Result<_, _>>()?))
}

fn tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // The next daemon may listen although connections of this one linger on.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    listen(socket, ListenAddr::Tcp(bound), None)
}

/// Begins to listen at a socket that is bound.
fn listen(socket: Socket, place: ListenAddr, file: Option<SocketFile>) -> io::Result<Listener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener {
        socket,
        place,
        file,
    })
}
