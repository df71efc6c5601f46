//! `sock_diag`: connections that no descriptor needs to lead to.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of a request: that, and `struct inet_diag_req_v2`.
const REQUEST: u8 = 16 + 56;
/// `IPPROTO_TCP`, in one byte.
const TCP: u8 = 6;

/// The addresses of a connection over IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    local: SocketAddrV4,
    remote: SocketAddrV4,
}

impl Connection {
    /// The connection of a socket.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        Ok(Self {
            local: ipv4(&socket.local_addr()?)?,
            remote: ipv4(&socket.peer_addr()?)?,
        })
    }

    /// Asks the kernel to end this end of it, as `ss -K` does; needs `CAP_NET_ADMIN`.
    pub fn destroy(self) -> io::Result<()> {
        let mut diag = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
        )?;
        diag.write_all(&self.destroy_request()?)?;
        let mut answer = [0; 1024];
        let length = diag.read(&mut answer)?;
        // struct nlmsgerr: the negative error follows the header.
        let error = answer[..length].get(HEADER..HEADER + 4);
        let error = error.and_then(|bytes| bytes.try_into().ok());
        let error = error.ok_or_else(|| io::Error::other("a short answer of sock_diag"))?;
        match -i32::from_ne_bytes(error) {
            0 => Ok(()),
            libc::EOPNOTSUPP => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel lacks CONFIG_INET_DIAG_DESTROY",
            )),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn destroy_request(self) -> io::Result<Vec<u8>> {
        const SOCK_DESTROY: u16 = 21;
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK);
        let family = u8::try_from(libc::AF_INET);
        // struct nlmsghdr
        let mut request = Vec::with_capacity(REQUEST.into());
        request.extend(u32::from(REQUEST).to_ne_bytes());
        request.extend(SOCK_DESTROY.to_ne_bytes());
        request.extend(flags.map_err(io::Error::other)?.to_ne_bytes());
        request.extend([0; 8]);
        // struct inet_diag_req_v2: family, protocol, no extensions, padding, every state, then the
        // id: ports, addresses of 16 bytes, any interface, any cookie.
        request.extend([family.map_err(io::Error::other)?, TCP, 0, 0]);
        request.extend([0xff; 4]);
        request.extend(self.local.port().to_be_bytes());
        request.extend(self.remote.port().to_be_bytes());
        for address in [self.local, self.remote] {
            request.extend(address.ip().octets());
            request.extend([0; 12]);
        }
        request.extend([0; 4]);
        request.extend([0xff; 8]);
        Ok(request)
    }
}

fn ipv4(address: &SockAddr) -> io::Result<SocketAddrV4> {
    match address.as_socket() {
        Some(SocketAddr::V4(address)) => Ok(address),
        _ => Err(io::Error::other("not an IPv4 socket")),
    }
}
