//! Makes each kind of close.
//!
//! Every function makes real closes on loopback, counts all of them, including the peers', and leaves no orphan behind
//! that has not ended.

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use linger_ebpf::{Cause, Fate, Outcome};
use socket2::Socket;

use super::linger_wait;
use super::orphan_limit::OrphanLimit;
use super::state::{self, Queues, TcpState};
use super::tally::{End, Tally};
use super::tcp::{self, Loopback, Pair};

/// Linger time of closes that wait until it is over.
pub const LINGER: Duration = Duration::from_secs(1);
/// Linger time of closes whose wait ends earlier.
const LONG_LINGER: Duration = Duration::from_secs(30);
/// More than a connection may send before the first acknowledgement, bytes.
pub(super) const SEND_BUFFER: usize = 1 << 17;
/// Payload of one small message, bytes.
pub const MESSAGE: usize = 1000;

type Result = io::Result<()>;

/// Closes the peer of a connection that was reset.
pub fn close_reset(tally: &mut Tally, peer: Socket) -> Result {
    state::wait_for_state(&peer, TcpState::Close)?;
    tally.close(peer, Outcome::AlreadyClosed).map(drop)
}

/// Closes both ends of a connection in which everything was read, first the client.
pub fn close_gracefully(tally: &mut Tally, pair: Pair) -> Result {
    tally.close(pair.client, Outcome::Graceful)?;
    close_after_fin(tally, pair.server)
}

/// Reads all and closes the peer of a connection whose other end sent its FIN.
pub fn close_after_fin(tally: &mut Tally, peer: Socket) -> Result {
    tcp::receive_all(&peer)?;
    tally.close(peer, Outcome::Graceful).map(drop)
}

/// Closes the peer of an orphan that still has data for it: with an RST, which ends the orphan.
pub fn close_and_end_orphan(tally: &mut Tally, peer: Socket) -> Result {
    peer.set_linger(Some(Duration::ZERO))?;
    tally.close(peer, Outcome::LingerAborted).map(drop)
}

/// Makes a pair whose server drops data, and whose client has sent a message.
pub fn pair_with_unacked(loopback: &Loopback) -> io::Result<Pair> {
    let pair = loopback.pair()?;
    tcp::drop_data(&pair.server)?;
    tcp::send(&pair.client, MESSAGE)?;
    Ok(pair)
}

/// Makes a pair whose server drops data, and whose client has sent as much as the congestion window allows and written
/// more.
pub fn pair_with_unsent(loopback: &Loopback) -> io::Result<Pair> {
    let pair = loopback.pair()?;
    tcp::drop_data(&pair.server)?;
    pair.client.set_send_buffer_size(SEND_BUFFER)?;
    tcp::fill(&pair.client)?;
    state::wait_for_rest(&pair.client)?;
    let queues = state::queues(&pair.client)?;
    if queues.unsent == 0 || queues.unacked == 0 {
        return Err(io::Error::other(format!(
            "nothing was held back: {queues:?}"
        )));
    }
    Ok(pair)
}

pub(super) fn lingered(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = pair_with_unacked(loopback)?;
    client.set_linger(Some(LONG_LINGER))?;
    linger_wait::close_while(tally, client, Outcome::Lingered, || {
        tcp::accept_data(&server)
    })?;
    close_after_fin(tally, server)
}

pub(super) fn linger_timeout(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = pair_with_unacked(loopback)?;
    client.set_linger(Some(LINGER))?;
    let left = state::queues(&client)?;
    tally.close(client, Outcome::LingerTimeout)?;
    deliver(tally, left, server)
}

pub(super) fn linger_interrupted(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = pair_with_unacked(loopback)?;
    client.set_linger(Some(LONG_LINGER))?;
    let left = state::queues(&client)?;
    linger_wait::close_interrupted(tally, client, Outcome::LingerInterrupted)?;
    deliver(tally, left, server)
}

/// Lets the peer receive, by retransmission, the data that a close has left to the kernel, and closes the peer.
fn deliver(tally: &mut Tally, left: Queues, peer: Socket) -> Result {
    tcp::accept_data(&peer)?;
    close_after_fin(tally, peer)?;
    tally.orphans.delivered(left);
    Ok(())
}

pub(super) fn linger_failed(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = pair_with_unacked(loopback)?;
    client.set_linger(Some(LONG_LINGER))?;
    let mut peer = Tally::default();
    linger_wait::close_while(tally, client, Outcome::LingerFailed, || {
        close_and_end_orphan(&mut peer, server)
    })?;
    tally.add(&peer);
    Ok(())
}

/// Closes the client with zero linger time.
pub fn abort(tally: &mut Tally, Pair { client, server }: Pair) -> Result {
    client.set_linger(Some(Duration::ZERO))?;
    tally.close(client, Outcome::LingerAborted)?;
    close_reset(tally, server)
}

pub(super) fn unread_aborted(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = loopback.pair()?;
    tcp::send(&server, MESSAGE)?;
    state::wait_for_unread(&client, MESSAGE as u64)?;
    tally.close(client, Outcome::UnreadAborted)?;
    close_reset(tally, server)
}

pub(super) fn linger2_aborted(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = loopback.pair()?;
    tcp::set_linger2(&client, -1)?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait2)?;
    tally.close(client, Outcome::Linger2Aborted)?;
    close_reset(tally, server)
}

pub(super) fn already_closed(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = loopback.pair()?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&server, TcpState::CloseWait)?;
    server.shutdown(Shutdown::Write)?;
    for socket in [client, server] {
        close_reset(tally, socket)?;
    }
    Ok(())
}

pub(super) fn connect_aborted(tally: &mut Tally) -> Result {
    let deaf = Loopback::new()?;
    let client = deaf.connecting()?;
    tally.close(client, Outcome::ConnectAborted)?;
    tally.close(deaf.into_listener(), Outcome::Listener)?;
    Ok(())
}

pub(super) fn listener(tally: &mut Tally) -> Result {
    const QUEUED: u32 = 3;
    let queue = Loopback::new()?;
    let clients: Vec<_> = (0..QUEUED)
        .map(|_| queue.connect())
        .collect::<io::Result<_>>()?;
    queue.wait_for_queued(QUEUED)?;
    tally.close(queue.into_listener(), Outcome::Listener)?;
    tally.reset(Cause::ListenerClosed, QUEUED.into());
    for client in clients {
        close_reset(tally, client)?;
    }
    Ok(())
}

pub(super) fn repaired(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = loopback.pair()?;
    let allowed = tcp::set_repair(&client);
    let end = if allowed.is_ok() {
        Outcome::Repaired
    } else {
        Outcome::Graceful
    };
    tally.close(client, end)?;
    // The silence leaves the peer open; its FIN meets no socket.
    tally.close(server, Outcome::Graceful)?;
    allowed
}

pub(super) fn disconnected(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = loopback.pair()?;
    tcp::disconnect(&client)?;
    tally.reset(Cause::Disconnected, 1);
    tally.close(client, Outcome::NotConnected)?;
    close_reset(tally, server)
}

/// Closes sockets by `close`, which returns how long it took, until the lack of orphan quota aborts one.
///
/// # Errors
///
/// Also if the kernel does not abort: it looks at the number of orphans only every 100 ms, and may be late.
pub fn memory_aborted_under(
    limit: &OrphanLimit,
    loopback: &Loopback,
    tally: &mut Tally,
    close: impl Fn(Socket) -> io::Result<Duration>,
) -> Result {
    until_aborted(loopback, tally, |tally| {
        close_under_limit(limit, loopback, tally, &close)
    })
}

/// Closes by `attempt`, while there is an orphan, until that returns that lack of orphan quota aborted the close.
///
/// # Errors
///
/// As [`memory_aborted_under`].
pub fn until_aborted(
    loopback: &Loopback,
    tally: &mut Tally,
    mut attempt: impl FnMut(&mut Tally) -> io::Result<bool>,
) -> Result {
    const ATTEMPTS: usize = 50;
    // An orphan that no timer ends, so that the quota is exceeded by one.
    let Pair { client, server } = loopback.pair()?;
    tcp::set_linger2(&client, 120)?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait2)?;
    tally.close(client, Outcome::Graceful)?;

    let mut attempts = (0..ATTEMPTS).map(|_| {
        thread::sleep(Duration::from_millis(200));
        attempt(tally)
    });
    let end = attempts.find(|aborted| !matches!(aborted, Ok(false)));
    close_after_fin(tally, server)?;
    end.unwrap_or_else(|| Err(io::Error::other("the kernel did not notice the orphan")))
        .map(drop)
}

/// Closes with data left while no orphan is allowed. Returns whether that aborted.
fn close_under_limit(
    limit: &OrphanLimit,
    loopback: &Loopback,
    tally: &mut Tally,
    close: impl Fn(Socket) -> io::Result<Duration>,
) -> io::Result<bool> {
    let Pair { client, server } = pair_with_unacked(loopback)?;
    let queues = state::queues(&client)?;
    let blocked = limit.while_none_is_allowed(|| close(client))??;
    // The RST, if any, was sent before close returned; only its reception may be late.
    thread::sleep(Duration::from_millis(20));
    let aborted = state::state(&server)? == TcpState::Close;
    if aborted {
        tally.count(Outcome::MemoryAborted, queues, blocked);
        close_reset(tally, server)?;
    } else {
        tally.count(End::silent(Outcome::Graceful), queues, blocked);
        close_and_end_orphan(tally, server)?;
        tally.orphans.lost(queues, Fate::PeerReset);
    }
    Ok(aborted)
}
