//! Orphans that the kernel gives up, or that rare settings make.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, close_window};
use linger_ebpf::{Cause, Fate, Outcome};
use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::child::wait_for_orphans;
use crate::graceful::expect_bytes;
use crate::orphans::{close_unless_over, leave};
use crate::scenario::Scenario;
use crate::special::{destroy, under_orphan_limit};
use crate::truth::Truth;
use linger_daemon::exercise::diag::Endpoints;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::connections("orphan_retries_exhausted", unheard),
    Scenario::connections("orphan_retries_exhausted_unsent", unheard_unsent),
    Scenario::kind("orphan_user_timeout", Kind::OrphanTimedOut),
    Scenario::narrow("orphan_zero_window", zero_window),
    Scenario::connections("orphan_sock_destroy", sock_destroy),
    Scenario::own("orphan_wrap_delivered", wrap_delivered),
    Scenario::own("orphan_wrap_lost", wrap_lost),
    Scenario::host_wide("orphan_resources", resources),
];

/// Has this network namespace give an orphan up soon.
pub(crate) fn few_retries() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1")
}

/// Leaves a client's data for a server that drops it, until the kernel gives up.
fn time_out(truth: &mut Truth, Pair { client, server }: Pair) -> io::Result<()> {
    let left = leave(truth, client)?;
    wait_for_orphans()?;
    truth.lost(left, Fate::TimedOut);
    // The server gets no notice.
    state::wait_for_state(&server, state::TcpState::Established)?;
    tcp::accept_data(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    Ok(())
}

fn unheard(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    few_retries()?;
    time_out(truth, exercise::pair_with_unacked(loopback)?)
}

fn unheard_unsent(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    few_retries()?;
    time_out(truth, exercise::pair_with_unsent(loopback)?)
}

/// Soon enough for a test, and later than the first retransmission.
const USER_TIMEOUT: Duration = Duration::from_millis(500);

/// The peer answers each window probe, and never opens its window.
fn zero_window(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let (Pair { client, server }, _) = close_window(loopback.pair()?)?;
    // Otherwise, how long such a peer is probed depends on the kernel's longest pause: minutes in all.
    client.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let left = leave(truth, client)?;
    wait_for_orphans()?;
    truth.lost(left, Fate::TimedOut);
    // On a busy host the answer to the last probe may come when nobody takes it any more: an RST ends the server then.
    close_unless_over(truth, server, Outcome::UnreadAborted)
}

fn sock_destroy(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unsent(loopback)?;
    let orphan = Endpoints::of(&client)?;
    let left = leave(truth, client)?;
    destroy(orphan)?;
    truth.lost(left, Fate::Destroyed);
    truth.tally.reset(Cause::Destroyed, 1);
    exercise::close_reset(&mut truth.tally, server)
}

/// The limit of orphans is exceeded while one lives.
fn resources(truth: &mut Truth) -> io::Result<()> {
    under_orphan_limit(truth, |limit, loopback, truth| {
        let Pair { client, server } = exercise::pair_with_unsent(loopback)?;
        let left = leave(truth, client)?;
        // The limit is checked whenever the orphan sends again.
        limit.allow(0)?;
        let closed = state::wait_for_state(&server, state::TcpState::Close);
        drop(limit);
        closed?;
        truth.lost(left, Fate::OrphanResources);
        // A timer sends the RST, which counts for no process.
        exercise::close_reset(&mut truth.tally, server)
    })
}

/// Payload around the wrap of sequence numbers, bytes.
const AROUND_WRAP: u32 = 3000;

/// Returns a pair whose client is about to send the last sequence number, and the first.
fn pair_before_wrap() -> io::Result<Pair> {
    const CLIENTS: u32 = u32::MAX - AROUND_WRAP / 2;
    const SERVERS: u32 = 1000;
    let (client, server) = (repaired(CLIENTS, SERVERS)?, repaired(SERVERS, CLIENTS)?);
    // Under repair, connect sends nothing and takes the other end for granted.
    client.connect(&server.local_addr()?)?;
    server.connect(&client.local_addr()?)?;
    for socket in [&client, &server] {
        // struct tcp_repair_opt: as if agreed on by SYNs.
        const TCPOPT_MSS: u32 = 2;
        const TCPOPT_WINDOW: u32 = 3;
        set_option(socket, libc::TCP_REPAIR_OPTIONS, &[TCPOPT_MSS, 1460])?;
        set_option(
            socket,
            libc::TCP_REPAIR_OPTIONS,
            &[TCPOPT_WINDOW, 7 | 7 << 16],
        )?;
    }
    for socket in [&client, &server] {
        // Leaving repair mode sends a window probe to the peer.
        set_option(socket, libc::TCP_REPAIR, &[0])?;
    }
    state::wait_for("the repaired client to know its window", || {
        Ok(state::info(&client)?.tcpi_snd_wnd > AROUND_WRAP)
    })?;
    Ok(Pair { client, server })
}

/// Returns a socket under repair with these next sequence numbers to send and to receive.
fn repaired(send: u32, receive: u32) -> io::Result<Socket> {
    const TCP_RECV_QUEUE: u32 = 1;
    const TCP_SEND_QUEUE: u32 = 2;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    tcp::set_repair(&socket)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    for (queue, sequence) in [(TCP_SEND_QUEUE, send), (TCP_RECV_QUEUE, receive)] {
        set_option(&socket, libc::TCP_REPAIR_QUEUE, &[queue])?;
        set_option(&socket, libc::TCP_QUEUE_SEQ, &[sequence])?;
    }
    Ok(socket)
}

fn set_option(socket: &Socket, option: libc::c_int, value: &[u32]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, the size of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            value.as_ptr().cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Leaves an orphan with payload on both sides of the wrap.
fn leave_around_wrap(truth: &mut Truth) -> io::Result<(state::Queues, Socket)> {
    let Pair { client, server } = pair_before_wrap()?;
    tcp::drop_data(&server)?;
    tcp::send(&client, AROUND_WRAP as usize)?;
    let left = leave(truth, client)?;
    expect_bytes(left.outstanding(), AROUND_WRAP.into())?;
    Ok((left, server))
}

fn wrap_delivered(truth: &mut Truth) -> io::Result<()> {
    let (left, server) = leave_around_wrap(truth)?;
    truth.delivered(left);
    tcp::accept_data(&server)?;
    let received = tcp::receive_all(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    expect_bytes(received, AROUND_WRAP.into())
}

fn wrap_lost(truth: &mut Truth) -> io::Result<()> {
    let (left, server) = leave_around_wrap(truth)?;
    truth.lost(left, Fate::PeerReset);
    exercise::close_and_end_orphan(&mut truth.tally, server)
}
