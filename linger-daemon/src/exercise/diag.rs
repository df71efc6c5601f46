//! `sock_diag`: access to connections without a descriptor.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use super::state::{Queues, TcpState};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_msg`.
const ANSWER: usize = 72;

const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_INFO: u16 = 2;

/// The addresses of a connection over IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    local: SocketAddrV4,
    remote: SocketAddrV4,
}

impl Endpoints {
    /// The connection of a socket.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        Ok(Self {
            local: ipv4(&socket.local_addr()?)?,
            remote: ipv4(&socket.peer_addr()?)?,
        })
    }

    /// The connection of a socket, as its peer on this host sees it.
    pub fn of_peer(socket: &Socket) -> io::Result<Self> {
        let Self { local, remote } = Self::of(socket)?;
        Ok(Self {
            local: remote,
            remote: local,
        })
    }

    /// Asks the kernel to end this end of it, as `ss -K` does; needs `CAP_NET_ADMIN`.
    pub fn destroy(self) -> io::Result<()> {
        const SOCK_DESTROY: u16 = 21;
        const NLM_F_ACK: u16 = 4;
        let answer = self.ask(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK)?;
        match error(&answer)? {
            0 => Ok(()),
            libc::EOPNOTSUPP => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel lacks CONFIG_INET_DIAG_DESTROY",
            )),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// The payload in the send queue of this end, in this network namespace; zero if the connection has ended.
    pub fn send_queue(self) -> io::Result<Queues> {
        const SOCK_DIAG_BY_FAMILY: u16 = 20;
        const NLMSG_ERROR: u16 = 2;
        let answer = self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST)?;
        if u16::from_ne_bytes(part(&answer, 4)?) == NLMSG_ERROR {
            return match error(&answer)? {
                libc::ENOENT => Ok(Queues::default()),
                error => Err(io::Error::from_raw_os_error(error)),
            };
        }
        let [state] = part(&answer, HEADER + 1)?;
        let state = TcpState::from_number(state)?;
        // For a connection that has ended, the kernel answers with the listener that it came from.
        if matches!(state, TcpState::TimeWait | TcpState::Listen) {
            return Ok(Queues::default());
        }
        let mut outstanding = u32::from_ne_bytes(part(&answer, HEADER + 60)?);
        // For a remnant in FIN_WAIT2, there is no more in the answer.
        if outstanding == 0 {
            return Ok(Queues::default());
        }
        let mut unsent = not_sent(&answer)?.min(outstanding);
        // In these states, the last byte of the queue is a FIN.
        if state.sent_fin() && outstanding > 0 {
            outstanding -= 1;
            unsent = unsent.saturating_sub(1);
        }
        Ok(Queues {
            unsent: unsent.into(),
            unacked: (outstanding - unsent).into(),
            unread: 0,
        })
    }

    fn ask(self, message: u16, flags: u16) -> io::Result<Vec<u8>> {
        const AF_INET: u8 = 2;
        const IPPROTO_TCP: u8 = 6;
        /// Asks for `struct tcp_info`.
        const EXTENSIONS: u8 = 1 << (INET_DIAG_INFO - 1);
        const LENGTH: u32 = 16 + 56;
        // struct nlmsghdr
        let mut request = LENGTH.to_ne_bytes().to_vec();
        request.extend(message.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
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

fn part<const LENGTH: usize>(answer: &[u8], offset: usize) -> io::Result<[u8; LENGTH]> {
    let bytes = answer.get(offset..offset + LENGTH);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::Error::other("a short answer of sock_diag"))
}

/// The error code in an answer (`struct nlmsgerr`), positive; 0 for success.
fn error(answer: &[u8]) -> io::Result<i32> {
    Ok(-i32::from_ne_bytes(part(answer, HEADER)?))
}

/// `tcpi_notsent_bytes` of the answer.
fn not_sent(answer: &[u8]) -> io::Result<u32> {
    let mut offset = HEADER + ANSWER;
    loop {
        if offset >= answer.len() {
            return Err(io::Error::other(format!(
                "sock_diag tells no tcp_info, in {} bytes",
                answer.len()
            )));
        }
        // struct nlattr
        let length = usize::from(u16::from_ne_bytes(part(answer, offset)?));
        if u16::from_ne_bytes(part(answer, offset + 2)?) == INET_DIAG_INFO {
            let field = std::mem::offset_of!(libc::tcp_info, tcpi_notsent_bytes);
            return Ok(u32::from_ne_bytes(part(answer, offset + 4 + field)?));
        }
        offset += length.max(4).next_multiple_of(4);
    }
}
