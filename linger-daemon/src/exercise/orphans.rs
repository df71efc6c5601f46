//! Makes and ends each kind of orphan.
//!
//! A close leaves data behind, and its peer or another actor decides the fate of that. IPv4 only: the wait for the end
//! looks at no other sockets.

use std::io;
use std::time::Duration;

use linger_ebpf::{Cause, Fate, Outcome};
use socket2::Socket;

use super::diag::Endpoints;
use super::kinds;
use super::state::{self, Queues};
use super::tally::Tally;
use super::tcp::{self, Loopback, Pair};

/// Maximum time of an orphan without an acknowledgement. The kernel checks it when a retransmission is due, 200 ms
/// after the last.
const USER_TIMEOUT: Duration = Duration::from_millis(100);

type Result = io::Result<()>;

struct Left {
    port: u16,
    queues: Queues,
}

impl Left {
    fn by_close_of(socket: Socket, tally: &mut Tally) -> io::Result<Self> {
        let (port, queues) = (tcp::port(&socket)?, state::queues(&socket)?);
        tally.close(socket, Outcome::Graceful)?;
        Ok(Self { port, queues })
    }

    /// Waits for its end, and counts all of its payload as lost.
    fn lost(self, tally: &mut Tally, fate: Fate) -> Result {
        state::wait_for_end_of_orphan(self.port)?;
        tally.orphans.lost(self.queues, fate);
        Ok(())
    }
}

/// Fills a pair that has no data yet, and whose server does not read, until its window closes. Returns it with the
/// number of bytes written: those that the server's buffer does not hold are unsent, and none are unacknowledged.
pub fn close_window(pair: Pair) -> io::Result<(Pair, u64)> {
    let written = tcp::fill(&pair.client)?;
    state::wait_for("the window to close", || {
        let queues = state::queues(&pair.client)?;
        let window = state::info(&pair.client)?.tcpi_snd_wnd;
        Ok(window == 0 && queues.unacked == 0 && queues.unsent > 0)
    })?;
    let held = state::queues(&pair.server)?.unread + state::queues(&pair.client)?.unsent;
    expect_all(written, held, "are held")?;
    Ok((pair, written))
}

fn expect_all(written: u64, found: u64, what: &str) -> Result {
    if found == written {
        return Ok(());
    }
    let message = format!("{written} bytes were written, {found} {what}");
    Err(io::Error::other(message))
}

pub(super) fn delivered(loopback: &Loopback, tally: &mut Tally) -> Result {
    let (Pair { client, server }, written) = close_window(loopback.pair()?)?;
    let left = Left::by_close_of(client, tally)?;
    let received = tcp::receive_all(&server)?;
    state::wait_for_end_of_orphan(left.port)?;
    tally.orphans.delivered(left.queues);
    tally.close(server, Outcome::Graceful)?;
    expect_all(written, received, "came")
}

pub(super) fn peer_reset(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = kinds::pair_with_unsent(loopback)?;
    let left = Left::by_close_of(client, tally)?;
    kinds::close_and_end_orphan(tally, server)?;
    left.lost(tally, Fate::PeerReset)
}

pub(super) fn late_data(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = kinds::pair_with_unsent(loopback)?;
    let left = Left::by_close_of(client, tally)?;
    tcp::send(&server, kinds::MESSAGE)?;
    left.lost(tally, Fate::LateData)?;
    tally.reset(Cause::LateData, 1);
    kinds::close_reset(tally, server)
}

pub(super) fn timed_out(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = kinds::pair_with_unacked(loopback)?;
    client.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let left = Left::by_close_of(client, tally)?;
    left.lost(tally, Fate::TimedOut)?;
    // The peer was sent no RST; its FIN meets no socket.
    tally.close(server, Outcome::Graceful).map(drop)
}

pub(super) fn destroyed(loopback: &Loopback, tally: &mut Tally) -> Result {
    let Pair { client, server } = kinds::pair_with_unsent(loopback)?;
    let connection = Endpoints::of(&client)?;
    let left = Left::by_close_of(client, tally)?;
    let destroyed = connection.destroy();
    if destroyed.is_ok() {
        tally.reset(Cause::Destroyed, 1);
        left.lost(tally, Fate::Destroyed)?;
        kinds::close_reset(tally, server)?;
    } else {
        kinds::close_and_end_orphan(tally, server)?;
        left.lost(tally, Fate::PeerReset)?;
    }
    destroyed
}
