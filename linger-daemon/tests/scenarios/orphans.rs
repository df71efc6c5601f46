//! Orphans: data that a close leaves to the kernel, which delivers it or loses it to the peer.

use std::fs;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, LINGER, MESSAGE, close_window};
use linger_ebpf::{Fate, Outcome};
use socket2::Socket;

use crate::ends::Forked;
use crate::graceful::expect_bytes;
use crate::left::{Bound, UNACKED_MESSAGE};
use crate::netns;
use crate::scenario::Scenario;
use crate::toolkit;
use crate::truth::Truth;
use linger_daemon::exercise::diag::Endpoints;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("orphan_delivered", Kind::OrphanDelivered),
    Scenario::narrow("orphan_slow_reader", slow_reader),
    Scenario::kind("orphan_peer_reset", Kind::OrphanPeerReset),
    Scenario::narrow("orphan_partly_delivered", partly_delivered),
    Scenario::kind("orphan_late_data", Kind::OrphanLateData),
    Scenario::connections("orphan_after_linger_timeout_lost", after_linger_timeout),
    Scenario::connections("orphan_after_sigkill_delivered", after_sigkill_delivered),
    Scenario::connections("orphan_after_sigkill_lost", after_sigkill_lost),
    Scenario::connections("orphan_close_wait", close_wait),
    Scenario::connections("orphan_after_shutdown_write", after_shutdown_write),
    Scenario::connections("orphan_none_if_acked_in_close", acked_in_close),
    Scenario::connections(
        "orphan_none_if_acked_in_active_close",
        acked_in_active_close,
    ),
    Scenario::connections("orphan_none_if_lost_before", lost_before),
    Scenario::connections("orphan_dies_inside_close", dies_inside_close),
    Scenario::connections("orphan_none_of_a_fin", fin_only),
    Scenario::connections("orphan_timer_within_close", timer_within_close),
];

/// Closes a socket gracefully. Returns the queues that it leaves to the kernel.
pub(crate) fn leave(truth: &mut Truth, socket: Socket) -> io::Result<Queues> {
    let left = state::queues(&socket)?;
    truth.tally.close(socket, Outcome::Graceful)?;
    Ok(left)
}

/// Reads a little at a time: the window opens and closes many times after the close.
fn slow_reader(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let (Pair { client, mut server }, written) = close_window(loopback.pair()?)?;
    let left = leave(truth, client)?;
    truth.delivered(left);
    let mut received = 0;
    loop {
        match server.read(&mut [0; 100])? {
            0 => break,
            bytes => received += bytes as u64,
        }
    }
    truth.tally.close(server, Outcome::Graceful)?;
    expect_bytes(received, written)
}

/// Waits until the kernel can do no more for an orphan before its peer acts. Returns its send queue.
fn wait_for_rest(orphan: Endpoints) -> io::Result<Queues> {
    const LOOKS: u32 = 300;
    let (mut last, mut looks) = (toolkit::send_queue(orphan)?, 0);
    state::wait_for("the orphan to rest", || {
        let now = toolkit::send_queue(orphan)?;
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        Ok(looks > LOOKS)
    })?;
    Ok(last)
}

/// The peer takes some of the data that the close left, then resets the connection.
fn partly_delivered(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    /// Room for several times the peer's window.
    const SEND_BUFFER: usize = 16 << 10;
    let pair = loopback.pair()?;
    pair.client.set_send_buffer_size(SEND_BUFFER)?;
    let (Pair { client, server }, written) = close_window(pair)?;
    let orphan = Endpoints::of(&client)?;
    let left = leave(truth, client)?;
    if toolkit::send_queue(orphan)? != left {
        return Err(io::Error::other("the orphan has not what its close left"));
    }
    let unread = || Ok::<_, io::Error>(state::queues(&server)?.unread);
    // The window opens for some of it.
    let mut received = unread()?;
    toolkit::receive(
        &server,
        usize::try_from(received).map_err(io::Error::other)?,
    )?;
    state::wait_for("more data", || Ok(unread()? > 0))?;
    wait_for_rest(orphan)?;
    // The peer drops the rest, but the window opens again: what is sent stays unacknowledged.
    tcp::drop_data(&server)?;
    let more = unread()?;
    toolkit::receive(&server, usize::try_from(more).map_err(io::Error::other)?)?;
    received += more;
    let lost = wait_for_rest(orphan)?;
    if lost.outstanding() == 0 || lost.outstanding() >= left.outstanding() {
        return Err(io::Error::other(format!("of {left:?} was left {lost:?}")));
    }
    exercise::close_and_end_orphan(&mut truth.tally, server)?;
    truth.tally.orphans.count(left, Fate::PeerReset, lost);
    expect_bytes(received, written - lost.outstanding())
}

fn after_linger_timeout(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unsent(loopback)?;
    client.set_linger(Some(LINGER))?;
    let left = state::queues(&client)?;
    truth.tally.close(client, Outcome::LingerTimeout)?;
    truth.waited(LINGER);
    truth.lost(left, Fate::PeerReset);
    exercise::close_and_end_orphan(&mut truth.tally, server)
}

/// Kills a process that has sent a message to a server that drops it. Returns the server.
fn kill_sender(loopback: &Loopback, truth: &mut Truth) -> io::Result<Socket> {
    tcp::drop_data(loopback.listener())?;
    let forked = Forked::start(loopback, |client| tcp::send(client, MESSAGE))?;
    let server = loopback.accept()?;
    forked.kill(truth, Outcome::Graceful)?;
    Ok(server)
}

fn after_sigkill_delivered(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let server = kill_sender(loopback, truth)?;
    truth.delivered(UNACKED_MESSAGE);
    tcp::accept_data(&server)?;
    let received = tcp::receive_all(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    expect_bytes(received, MESSAGE as u64)
}

fn after_sigkill_lost(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let server = kill_sender(loopback, truth)?;
    truth.lost(UNACKED_MESSAGE, Fate::PeerReset);
    exercise::close_and_end_orphan(&mut truth.tally, server)
}

/// The peer's FIN came first: the orphan is in `LAST_ACK`.
fn close_wait(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unsent(loopback)?;
    server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::CloseWait)?;
    let left = leave(truth, client)?;
    truth.delivered(left);
    tcp::accept_data(&server)?;
    // Both FINs have arrived: the server is done.
    tcp::receive_all(&server)?;
    exercise::close_reset(&mut truth.tally, server)
}

/// The FIN, which is no payload, was in the queue before the close.
fn after_shutdown_write(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.shutdown(Shutdown::Write)?;
    let left = leave(truth, client)?;
    truth.lost(left, Fate::PeerReset);
    toolkit::wait_for_gap(&server)?;
    exercise::close_and_end_orphan(&mut truth.tally, server)
}

/// On loopback, data that the close itself sends is acknowledged while it runs.
fn acked_in_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let closed_by_peer = |pair: &Pair| {
        pair.server.shutdown(Shutdown::Write)?;
        state::wait_for_state(&pair.client, TcpState::CloseWait)
    };
    acked_while_closing(loopback, truth, closed_by_peer)
}

/// As [`acked_in_close`]; the socket outlives the acknowledgement, in `FIN_WAIT2`.
fn acked_in_active_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    // Otherwise the acknowledgement of data with a FIN is delayed for 40 ms.
    let route = "local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1";
    netns::run(&format!("ip route replace {route} quickack 1"))?;
    acked_while_closing(loopback, truth, |_| Ok(()))
}

fn acked_while_closing(
    loopback: &Loopback,
    truth: &mut Truth,
    prepare: fn(&Pair) -> io::Result<()>,
) -> io::Result<()> {
    const TIMES: u64 = 20;
    const BYTES: usize = 100;
    for _ in 0..TIMES {
        let pair = loopback.pair()?;
        prepare(&pair)?;
        let Pair { client, server } = pair;
        client.set_tcp_cork(true)?;
        tcp::send(&client, BYTES)?;
        let left = leave(truth, client)?;
        expect_bytes(left.unsent, BYTES as u64)?;
        truth.acked_in_close.count(left.unsent);
        tcp::receive_all(&server)?;
        close_unless_over(truth, server, Outcome::Graceful)?;
    }
    // A busy kernel may delay an acknowledgement.
    truth.chance.most = Bound {
        orphans: TIMES / 2,
        bytes: TIMES / 2 * BYTES as u64,
    };
    Ok(())
}

/// Closes the peer of an orphan, with this outcome unless its connection is over already.
pub(crate) fn close_unless_over(
    truth: &mut Truth,
    peer: Socket,
    outcome: Outcome,
) -> io::Result<()> {
    let outcome = match state::state(&peer)? {
        TcpState::Close => Outcome::AlreadyClosed,
        _ => outcome,
    };
    truth.tally.close(peer, outcome)?;
    Ok(())
}

/// The connection dies before the close, which has nothing left to lose.
fn lost_before(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unsent(loopback)?;
    exercise::close_and_end_orphan(&mut truth.tally, server)?;
    exercise::close_reset(&mut truth.tally, client)
}

/// The peer vanishes silently: an RST answers the data that the close sends, mostly before it returns.
fn dies_inside_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    for bytes in [1, 100, 4000] {
        let Pair { client, server } = loopback.pair()?;
        tcp::set_repair(&server)?;
        truth.tally.close(server, Outcome::Repaired)?;
        client.set_tcp_cork(true)?;
        tcp::send(&client, bytes)?;
        let left = leave(truth, client)?;
        // The close sends everything.
        let lost = Queues {
            unsent: 0,
            unacked: left.unsent,
            unread: 0,
        };
        truth.lost(lost, Fate::PeerReset);
    }
    Ok(())
}

/// A FIN that is never acknowledged is no payload of an orphan.
fn fin_only(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    client.set_tcp_user_timeout(Some(Duration::from_millis(500)))?;
    tcp::drop_all(&server)?;
    leave(truth, client)?;
    crate::child::wait_for_orphans()?;
    truth.late_timeouts += 1;
    tcp::accept_data(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    Ok(())
}

/// Closes while their retransmission timers run out. A timer that runs out while a close holds the lock is handled when
/// the lock is released: the close is over by then, though since Linux 6.7 the socket is still owned.
fn timer_within_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    /// How much later the next close comes, and the times until the first comes again.
    const LATER: Duration = Duration::from_micros(100);
    const TURNS: u32 = 200;
    // So often that some run out within a close. Before Linux 6.11 there is no such setting, and each turn takes long.
    let is_short = fs::write("/proc/sys/net/ipv4/tcp_rto_min_us", "1000").is_ok();
    let times = if is_short { 400 } else { 10 };
    fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")?;
    for turn in 0..times {
        let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
        thread::sleep(LATER * (turn % TURNS));
        truth.tally.close(client, Outcome::Graceful)?;
        truth.delivered(UNACKED_MESSAGE);
        tcp::accept_data(&server)?;
        exercise::close_after_fin(&mut truth.tally, server)?;
    }
    Ok(())
}
