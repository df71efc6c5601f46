//! `sock_diag`: access to connections without a descriptor.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// The addresses of a connection over IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    /// The address of this end.
    pub local: SocketAddrV4,
    /// The address of the other end.
    pub remote: SocketAddrV4,
}

impl Endpoints {
    /// The connection of a socket.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        Ok(Self {
            local: ipv4(&socket.local_addr()?)?,
            remote: ipv4(&socket.peer_addr()?)?,
        })
    }

    /// Asks the kernel to end this end of it, as `ss -K` does; needs `CAP_NET_ADMIN`.
    pub fn destroy(self) -> io::Result<()> {
        const SOCK_DESTROY: u16 = 21;
        const NLM_F_ACK: u16 = 4;
        /// Length of `struct nlmsghdr`.
        const HEADER: usize = 16;
        let answer = self.ask(SOCK_DESTROY, NLM_F_ACK)?;
        let error = answer.get(HEADER..).and_then(|error| error.first_chunk());
        let error = error.ok_or_else(|| io::Error::other("a short answer of sock_diag"))?;
        match -i32::from_ne_bytes(*error) {
            0 => Ok(()),
            libc::EOPNOTSUPP => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel lacks CONFIG_INET_DIAG_DESTROY",
            )),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Sends a request of `sock_diag` about this end, with `struct tcp_info`. Returns the first answer, from its
    /// `struct nlmsghdr` on.
    pub fn ask(self, message: u16, flags: u16) -> io::Result<Vec<u8>> {
        const NLM_F_REQUEST: u16 = 1;
        const AF_INET: u8 = 2;
        const IPPROTO_TCP: u8 = 6;
        const INET_DIAG_INFO: u8 = 2;
        const EXTENSIONS: u8 = 1 << (INET_DIAG_INFO - 1);
        const LENGTH: u32 = 16 + 56;
        // struct nlmsghdr
        let mut request = LENGTH.to_ne_bytes().to_vec();
        request.extend(message.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend([0; 8]);
        // struct inet_diag_req_v2: family, protocol, extensions, padding, every state, then the id:
        // ports, addresses of 16 bytes, any interface, any cookie.
        request.extend([AF_INET, IPPROTO_TCP, EXTENSIONS, 0]);
        request.extend([0xff; 4]);
        request.extend(self.local.port().to_be_bytes());
        request.extend(self.remote.port().to_be_bytes());
        for address in [self.local, self.remote] {
            request.extend(address.ip().octets());
            request.extend([0; 12]);
        }
        request.extend([0; 4]);
        request.extend([0xff; 8]);

        let mut diag = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
        )?;
        diag.write_all(&request)?;
        let mut answer = vec![0; 4096];
        let length = diag.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }
}

fn ipv4(address: &socket2::SockAddr) -> io::Result<SocketAddrV4> {
    match address.as_socket() {
        Some(SocketAddr::V4(address)) => Ok(address),
        _ => Err(io::Error::other("not an IPv4 socket")),
    }
}
