//! The socket toolkit: connections on loopback, and operations on them.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::state::{info, wait_for};
pub use crate::sys::set_linger2;

/// The local port.
pub fn port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| io::Error::other("not an IP socket"))?;
    Ok(address.port())
}

/// The two ends of a connection.
#[derive(Debug)]
pub struct Pair {
    /// The end that connected.
    pub client: Socket,
    /// The end that was accepted.
    pub server: Socket,
}

/// A listening socket, by default on loopback, that makes connections to itself.
#[derive(Debug)]
pub struct Loopback {
    listener: Socket,
    address: SockAddr,
    domain: Domain,
    narrow: bool,
}

impl Loopback {
    /// Connections over IPv4.
    pub fn new() -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Connections to this address of the host.
    pub fn at(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let listener = Socket::new(domain, Type::STREAM, None)?;
        if let IpAddr::V6(ip) = address.ip() {
            listener.set_only_v6(ip.to_ipv4_mapped().is_none())?;
        }
        listener.bind(&address.into())?;
        listener.listen(128)?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            domain,
            narrow: false,
        })
    }

    /// Makes the buffers of the connections as small as the kernel allows.
    pub fn narrow(self) -> io::Result<Self> {
        // Accepted sockets inherit it. It bounds the window only if it is set before the connection.
        self.listener.set_recv_buffer_size(1)?;
        let narrow = true;
        Ok(Self { narrow, ..self })
    }

    /// The listening socket.
    #[must_use]
    pub fn listener(&self) -> &Socket {
        &self.listener
    }

    /// The listening socket, to be closed.
    #[must_use]
    pub fn into_listener(self) -> Socket {
        self.listener
    }

    /// A socket that is not connected yet.
    pub fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::STREAM, None)?;
        if self.narrow {
            socket.set_send_buffer_size(1)?;
        }
        Ok(socket)
    }

    /// A connected socket, whose peer stays in the accept queue.
    pub fn connect(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.connect(&self.address)?;
        Ok(socket)
    }

    /// A socket whose connect stays under way, because the listener drops everything.
    pub fn connecting(&self) -> io::Result<Socket> {
        drop_all(&self.listener)?;
        let socket = self.socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error),
            Ok(()) => Err(io::Error::other("connected to a deaf listener")),
        }
    }

    /// The server's end of the oldest connection in the accept queue.
    pub fn accept(&self) -> io::Result<Socket> {
        Ok(self.listener.accept()?.0)
    }

    /// Both ends of a new connection.
    pub fn pair(&self) -> io::Result<Pair> {
        let client = self.connect()?;
        let server = self.accept()?;
        Ok(Pair { client, server })
    }

    /// Waits until this number of connections is in the accept queue.
    pub fn wait_for_queued(&self, connections: u32) -> io::Result<()> {
        let what = format!("{connections} connections in the accept queue");
        // For a listener this field is the length of the queue.
        wait_for(&what, || {
            Ok(info(&self.listener)?.tcpi_unacked == connections)
        })
    }
}

/// A classic BPF instruction. A jump skips one instruction if its condition is not met.
fn instruction(code: u32, operand: u32) -> SockFilter {
    #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
    SockFilter::new(code as u16, 0, 1, operand)
}

/// Makes the socket drop everything.
pub fn drop_all(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[instruction(libc::BPF_RET | libc::BPF_K, 0)])
}

/// Makes the socket drop segments with payload: its peer's data stays unacknowledged, while handshakes, bare FINs,
/// acknowledgements and resets go on as usual.
pub fn drop_data(socket: &Socket) -> io::Result<()> {
    // The filter sees the segment from its TCP header on; byte 12 has the header's length.
    socket.attach_filter(&[
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 12),
        instruction(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4),
        instruction(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K, 2),
        instruction(libc::BPF_MISC | libc::BPF_TAX, 0),
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        instruction(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_X, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0),
        instruction(libc::BPF_RET | libc::BPF_K, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0),
    ])
}

/// Ends [`drop_data`], if it is in effect.
pub fn accept_data(socket: &Socket) -> io::Result<()> {
    match socket.detach_filter() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Sends `bytes` bytes.
pub fn send(mut socket: &Socket, bytes: usize) -> io::Result<()> {
    socket.write_all(&vec![b'x'; bytes])
}

/// Writes until the send buffer is full. Returns the bytes written.
pub fn fill(mut socket: &Socket) -> io::Result<u64> {
    let chunk = [b'x'; 16384];
    let mut written = 0;
    socket.set_nonblocking(true)?;
    let result = loop {
        match socket.write(&chunk) {
            Ok(bytes) => written += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(written),
            Err(error) => break Err(error),
        }
    };
    socket.set_nonblocking(false)?;
    result
}

/// Reads until the peer's FIN. Returns the bytes read.
pub fn receive_all(mut socket: &Socket) -> io::Result<u64> {
    io::copy(&mut socket, &mut io::sink())
}

/// Ends the connection by `connect(AF_UNSPEC)`.
pub fn disconnect(socket: &Socket) -> io::Result<()> {
    let storage = SockAddrStorage::zeroed();
    let length = storage.size_of();
    // SAFETY: zero bytes of any number are an address of the family `AF_UNSPEC`, which is 0.
    socket.connect(&unsafe { SockAddr::new(storage, length) })
}

/// Switches `TCP_REPAIR` on; needs `CAP_NET_ADMIN`.
pub fn set_repair(socket: &Socket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::TcpRepair, &1)?)
}

/// Closes the descriptor, and with the last one the socket. Returns how long that took.
///
/// # Errors
///
/// The errors of close(2), which dropping the socket would hide.
pub fn close(socket: Socket) -> io::Result<Duration> {
    let start = Instant::now();
    nix::unistd::close(socket)?;
    Ok(start.elapsed())
}
