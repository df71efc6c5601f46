//! Closes under `SO_LINGER` with zero time.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{Loopback, Pair};
use linger_daemon::exercise::{self, End, Kind, close_window};
use linger_ebpf::Outcome;
use socket2::Socket;

use crate::scenario::{self, Scenario};
use crate::toolkit;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("linger0_empty", Kind::LingerAborted),
    Scenario::narrow("linger0_unsent", unsent),
    Scenario::connections("linger0_unacked", unacked),
    Scenario::kind("linger0_unsent_and_unacked", Kind::LingerAbortedData),
    Scenario::connections("linger0_close_wait", close_wait),
    Scenario::connections("linger0_fin_wait1", fin_wait1),
    Scenario::connections("linger0_fin_wait2", fin_wait2),
    Scenario::connections("linger0_last_ack", last_ack),
    Scenario::connections("linger0_last_ack_unsent", last_ack_unsent),
    Scenario::connections("linger0_closing", closing),
    Scenario::own("linger0_syn_sent", syn_sent),
    Scenario::connections("linger0_never_connected", never_connected),
    Scenario::connections("linger0_already_closed", already_closed),
    Scenario::connections("linger0_inherited", inherited),
    Scenario::kind("connect_given_up", Kind::ConnectAborted),
];

/// Closes the client with an RST; the peer must see it.
fn close_with_reset(truth: &mut Truth, client: Socket, server: Socket) -> io::Result<()> {
    exercise::abort(&mut truth.tally, Pair { client, server })
}

/// Closes the client without an RST; the peer stays as it is, and closes too.
fn close_silently(truth: &mut Truth, client: Socket, server: Socket) -> io::Result<()> {
    let peer_state = state::state(&server)?;
    client.set_linger(Some(Duration::ZERO))?;
    truth
        .tally
        .close(client, End::silent(Outcome::LingerAborted))?;
    let after = state::state(&server)?;
    if after != peer_state {
        let message = format!("the peer went from {peer_state:?} to {after:?}");
        return Err(io::Error::other(message));
    }
    truth.tally.close(server, Outcome::Graceful)?;
    Ok(())
}

fn unsent(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let (pair, _) = close_window(loopback.pair()?)?;
    exercise::abort(&mut truth.tally, pair)
}

fn unacked(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = exercise::pair_with_unacked(loopback)?;
    exercise::abort(&mut truth.tally, pair)
}

fn close_wait(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::CloseWait)?;
    close_with_reset(truth, client, server)
}

fn fin_wait1(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait1)?;
    close_with_reset(truth, client, server)
}

fn fin_wait2(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait2)?;
    close_with_reset(truth, client, server)
}

/// Returns a pair in `LAST_ACK`: the server's FIN came first, and the client's data and FIN get no acknowledgement.
fn pair_in_last_ack(
    loopback: &Loopback,
    write: fn(&Loopback) -> io::Result<Pair>,
) -> io::Result<Pair> {
    let pair = write(loopback)?;
    pair.server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&pair.client, TcpState::CloseWait)?;
    pair.client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&pair.client, TcpState::LastAck)?;
    if state::queues(&pair.client)?.unsent == 0 {
        toolkit::wait_for_gap(&pair.server)?;
    }
    Ok(pair)
}

fn last_ack(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = pair_in_last_ack(loopback, exercise::pair_with_unacked)?;
    close_silently(truth, client, server)
}

fn last_ack_unsent(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = pair_in_last_ack(loopback, exercise::pair_with_unsent)?;
    close_with_reset(truth, client, server)
}

fn closing(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.shutdown(Shutdown::Write)?;
    toolkit::wait_for_gap(&server)?;
    server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::Closing)?;
    close_silently(truth, client, server)
}

fn syn_sent(truth: &mut Truth) -> io::Result<()> {
    let deaf = Loopback::new()?;
    let client = deaf.connecting()?;
    client.set_linger(Some(Duration::ZERO))?;
    truth
        .tally
        .close(client, End::silent(Outcome::LingerAborted))?;
    scenario::over(deaf, truth, |_, _| Ok(()))
}

fn never_connected(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let socket = loopback.socket()?;
    socket.set_linger(Some(Duration::ZERO))?;
    truth.tally.close(socket, Outcome::NotConnected)?;
    Ok(())
}

fn already_closed(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = loopback.pair()?;
    pair.server.set_linger(Some(Duration::ZERO))?;
    exercise::abort(&mut truth.tally, pair)
}

/// An accepted socket has the linger time of its listener.
fn inherited(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    loopback.listener().set_linger(Some(Duration::ZERO))?;
    let Pair { client, server } = loopback.pair()?;
    truth.tally.close(server, Outcome::LingerAborted)?;
    exercise::close_reset(&mut truth.tally, client)
}
