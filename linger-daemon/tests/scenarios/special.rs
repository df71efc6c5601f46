//! Closes by rarer interfaces, and ends that are no close.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Family, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, MESSAGE, OrphanLimit};
use linger_ebpf::{Cause, Outcome};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::child::{self, not_run};
use crate::scenario::{self, Script};
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[(&str, Script)] = &[
    ("connect_af_unspec", Script::Kind(Kind::Disconnected)),
    ("sock_destroy", Script::Connections(sock_destroy)),
    ("linger2_negative", Script::Kind(Kind::Linger2Aborted)),
    (
        "linger2_negative_after_close",
        Script::Connections(linger2_after_close),
    ),
    ("tcp_repair", Script::Kind(Kind::Repaired)),
    ("orphan_quota_exceeded", Script::HostWide(orphan_quota)),
    ("mptcp_graceful", Script::HostWide(mptcp_graceful)),
    ("mptcp_linger0", Script::HostWide(mptcp_linger0)),
];

fn sock_destroy(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    destroy(&client)?;
    truth.tally.reset(Cause::Destroyed, 1);
    for socket in [client, server] {
        exercise::close_reset(&mut truth.tally, socket)?;
    }
    Ok(())
}

/// Asks the kernel to end a connection of IPv4, as `ss -K` does.
fn destroy(socket: &Socket) -> io::Result<()> {
    const SOCK_DESTROY: u16 = 21;
    const AF_INET: u8 = 2;
    const IPPROTO_TCP: u8 = 6;
    const HEADER: usize = 16;
    const LENGTH: usize = HEADER + 56;
    let (local, remote) = (ipv4(&socket.local_addr()?)?, ipv4(&socket.peer_addr()?)?);

    // struct nlmsghdr
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut request = Vec::with_capacity(LENGTH);
    request.extend(
        u32::try_from(LENGTH)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    request.extend(SOCK_DESTROY.to_ne_bytes());
    request.extend(
        u16::try_from(flags)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    request.extend([0; 8]);
    // struct inet_diag_req_v2: family, protocol, no extensions, padding, every state, then the id:
    // ports, addresses of 16 bytes, any interface, any cookie.
    request.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    request.extend([0xff; 4]);
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
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
    let mut answer = [0; 1024];
    let length = diag.read(&mut answer)?;
    // struct nlmsgerr: the negative error follows the header.
    let error = answer[..length].get(HEADER..HEADER + 4);
    let error = error.and_then(|bytes| bytes.try_into().ok());
    let error = error.ok_or_else(|| io::Error::other("a short answer of sock_diag"))?;
    match -i32::from_ne_bytes(error) {
        0 => Ok(()),
        libc::ENOENT => Err(not_run("the kernel lacks inet_diag and tcp_diag")),
        libc::EOPNOTSUPP => Err(not_run("the kernel lacks CONFIG_INET_DIAG_DESTROY")),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn ipv4(address: &socket2::SockAddr) -> io::Result<std::net::SocketAddrV4> {
    match address.as_socket() {
        Some(SocketAddr::V4(address)) => Ok(address),
        _ => Err(io::Error::other("not an IPv4 socket")),
    }
}

/// The FIN is acknowledged only after the close: the kernel ends the orphan, with no RST of its
/// own will.
fn linger2_after_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    tcp::set_linger2(&client, -1)?;
    truth.tally.close(client, Outcome::Graceful)?;
    tcp::accept_data(&server)?;
    truth.late_aborts += 1;
    exercise::close_reset(&mut truth.tally, server)
}

fn orphan_quota(truth: &mut Truth) -> io::Result<()> {
    let limit = OrphanLimit::open()
        .map_err(|error| not_run(format!("net.ipv4.tcp_max_orphans: {error}")))?;
    child::enter_network()?;
    scenario::over(Loopback::new(Family::V4)?, truth, |loopback, truth| {
        exercise::memory_aborted_under(&limit, loopback, &mut truth.tally)
    })
}

/// Both ends of an MPTCP connection, and the listener.
fn mptcp() -> io::Result<[Socket; 3]> {
    child::enter_network()?;
    let new = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let listener = new().map_err(|error| not_run(format!("no MPTCP: {error}")))?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(1)?;
    let client = new()?;
    client.connect(&listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for (mut from, mut to) in [(&client, &server), (&server, &client)] {
        from.write_all(&[b'x'; MESSAGE])?;
        to.read_exact(&mut [0; MESSAGE])?;
    }
    Ok([client, server, listener])
}

/// Each of the three has one subflow, which the kernel closes when MPTCP is done with it.
const SUBFLOWS: u64 = 3;

fn mptcp_graceful(truth: &mut Truth) -> io::Result<()> {
    for socket in mptcp()? {
        tcp::close(socket)?;
    }
    truth.any_outcome += SUBFLOWS;
    Ok(())
}

fn mptcp_linger0(truth: &mut Truth) -> io::Result<()> {
    let [client, server, listener] = mptcp()?;
    client.set_linger(Some(std::time::Duration::ZERO))?;
    tcp::close(client)?;
    truth.tally.reset(Cause::Mptcp, 1);
    // The fast close ends the peer as well.
    state::wait_for("the fast close", || {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match server.recv_with_flags(&mut byte, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            _ => Ok(true),
        }
    })?;
    for socket in [server, listener] {
        tcp::close(socket)?;
    }
    truth.any_outcome += SUBFLOWS;
    Ok(())
}
