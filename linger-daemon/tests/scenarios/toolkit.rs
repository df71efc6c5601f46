//! Operations on sockets that only scenarios need, besides those of the exercise.

use std::io::{self, Read as _};
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use linger_daemon::exercise::diag::Endpoints;
use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp::Loopback;
use nix::libc;
use socket2::Socket;

/// How a connection is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 through an IPv6 socket (`::ffff:127.0.0.1`).
    Mapped,
}

impl Family {
    pub(crate) const ALL: &[Self] = &[Self::V4, Self::V6, Self::Mapped];

    /// Listens on loopback.
    pub(crate) fn listen(self) -> io::Result<Loopback> {
        Loopback::at(match self {
            Self::V4 => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Self::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into(),
        })
    }
}

/// Reads exactly `bytes` bytes.
pub(crate) fn receive(mut socket: &Socket, bytes: usize) -> io::Result<()> {
    socket.read_exact(&mut vec![0; bytes])
}

/// Waits until a segment has arrived out of order: at a socket that drops data, the FIN behind the data.
///
/// Close the socket only then: a FIN that arrives later counts as late data.
pub(crate) fn wait_for_gap(socket: &Socket) -> io::Result<()> {
    state::wait_for("a FIN behind lost data", || {
        Ok(state::info(socket)?.tcpi_rcv_ooopack > 0)
    })
}

/// Returns the connection of a socket, as its peer on this host sees it.
pub(crate) fn peer_of(socket: &Socket) -> io::Result<Endpoints> {
    let Endpoints { local, remote } = Endpoints::of(socket)?;
    Ok(Endpoints {
        local: remote,
        remote: local,
    })
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_msg`.
const ANSWER: usize = 72;

/// Returns the payload in the send queue of this end, in this network namespace; zero if the connection has ended.
pub(crate) fn send_queue(connection: Endpoints) -> io::Result<Queues> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLMSG_ERROR: u16 = 2;
    let answer = connection.ask(SOCK_DIAG_BY_FAMILY, 0)?;
    if u16::from_ne_bytes(part(&answer, 4)?) == NLMSG_ERROR {
        return match -i32::from_ne_bytes(part(&answer, HEADER)?) {
            libc::ENOENT => Ok(Queues::default()),
            error => Err(io::Error::from_raw_os_error(error)),
        };
    }
    let [state] = part(&answer, HEADER + 1)?;
    let state = state::state_of(state)?;
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
    if state::sent_fin(&state) && outstanding > 0 {
        outstanding -= 1;
        unsent = unsent.saturating_sub(1);
    }
    Ok(Queues {
        unsent: unsent.into(),
        unacked: (outstanding - unsent).into(),
        unread: 0,
    })
}

fn part<const LENGTH: usize>(answer: &[u8], offset: usize) -> io::Result<[u8; LENGTH]> {
    let bytes = answer.get(offset..offset + LENGTH);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::Error::other("a short answer of sock_diag"))
}

/// Returns `tcpi_notsent_bytes` of the answer.
fn not_sent(answer: &[u8]) -> io::Result<u32> {
    const INET_DIAG_INFO: u16 = 2;
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
            let field = offset_of!(libc::tcp_info, tcpi_notsent_bytes);
            return Ok(u32::from_ne_bytes(part(answer, offset + 4 + field)?));
        }
        offset += length.max(4).next_multiple_of(4);
    }
}
