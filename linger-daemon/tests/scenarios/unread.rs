//! Closes that leave received data unread.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::time::Duration;

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, MESSAGE};
use linger_ebpf::Outcome;

use crate::scenario::Scenario;
use crate::toolkit;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("unread_data", Kind::UnreadAborted),
    Scenario::connections("unread_fin_only", fin_only),
    Scenario::connections("unread_data_and_fin", data_and_fin),
    Scenario::connections("unread_rest", rest),
    Scenario::connections("unread_with_linger0", with_linger0),
    Scenario::connections("unread_with_linger", with_linger),
    Scenario::connections("unread_with_data_to_send", with_data_to_send),
    Scenario::connections("unread_after_shutdown_write", after_shutdown_write),
    Scenario::connections("unread_urgent_byte", urgent_byte),
    Scenario::connections("unread_after_reset", after_reset),
];

/// Returns a pair whose client has an unread message.
fn pair_with_unread(loopback: &Loopback) -> io::Result<Pair> {
    let pair = loopback.pair()?;
    tcp::send(&pair.server, MESSAGE)?;
    state::wait_for_unread(&pair.client, MESSAGE as u64)?;
    Ok(pair)
}

fn abort(truth: &mut Truth, Pair { client, server }: Pair) -> io::Result<()> {
    truth.tally.close(client, Outcome::UnreadAborted)?;
    exercise::close_reset(&mut truth.tally, server)
}

/// A FIN is not data.
fn fin_only(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    truth.tally.close(server, Outcome::Graceful)?;
    state::wait_for_state(&client, TcpState::CloseWait)?;
    truth.tally.close(client, Outcome::Graceful)?;
    Ok(())
}

fn data_and_fin(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = pair_with_unread(loopback)?;
    pair.server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&pair.client, TcpState::CloseWait)?;
    abort(truth, pair)
}

fn rest(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = pair_with_unread(loopback)?;
    toolkit::receive(&pair.client, MESSAGE - 1)?;
    abort(truth, pair)
}

fn with_linger0(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = pair_with_unread(loopback)?;
    pair.client.set_linger(Some(Duration::ZERO))?;
    abort(truth, pair)
}

fn with_linger(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = pair_with_unread(loopback)?;
    pair.client.set_linger(Some(Duration::from_secs(60)))?;
    abort(truth, pair)
}

fn with_data_to_send(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = exercise::pair_with_unsent(loopback)?;
    tcp::send(&pair.server, MESSAGE)?;
    state::wait_for_unread(&pair.client, MESSAGE as u64)?;
    abort(truth, pair)
}

fn after_shutdown_write(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = pair_with_unread(loopback)?;
    pair.client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&pair.client, TcpState::FinWait2)?;
    abort(truth, pair)
}

/// A byte read only out of band still counts as unread, although no ioctl reports it.
fn urgent_byte(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    server.send_out_of_band(b"!")?;
    let mut byte = [MaybeUninit::uninit()];
    state::wait_for("the urgent byte", || {
        match client.recv_out_of_band(&mut byte) {
            Ok(bytes) => Ok(bytes == 1),
            // It has not arrived yet.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    })?;
    let blocked = tcp::close(client)?;
    let queues = Queues {
        unread: 1,
        ..Queues::default()
    };
    truth.tally.count(Outcome::UnreadAborted, queues, blocked);
    exercise::close_reset(&mut truth.tally, server)
}

/// The peer's RST leaves the data before it readable; the close discards it.
fn after_reset(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = pair_with_unread(loopback)?;
    exercise::abort(
        &mut truth.tally,
        Pair {
            client: server,
            server: client,
        },
    )
}
