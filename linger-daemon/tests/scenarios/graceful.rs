//! Closes that lose nothing.

use std::io;
use std::net::Shutdown;
use std::thread;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind};
use linger_ebpf::Outcome;

use crate::child;
use crate::left::UNACKED_MESSAGE;
use crate::scenario::{self, Scenario};
use crate::toolkit::{self, Family};
use crate::truth::{Counters, Truth};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("graceful_active_and_passive", Kind::Graceful),
    Scenario::connections("graceful_after_data", after_data),
    Scenario::connections("graceful_with_data_left", with_data_left),
    Scenario::connections("graceful_after_shutdown_write", after_shutdown_write),
    Scenario::connections("graceful_after_shutdown_both", after_shutdown_both),
    Scenario::kind("already_closed_by_both_fins", Kind::AlreadyClosed),
    Scenario::connections("already_closed_safe_pattern", safe_pattern),
    Scenario::own("already_closed_refused_connect", refused_nonblocking),
    Scenario::own("not_connected_refused_connect", refused_blocking),
    Scenario::kind("not_connected_never", Kind::NotConnected),
    Scenario::own("ipv6", ipv6),
    Scenario::own("ipv4_mapped", mapped),
    Scenario::own("other_network_namespace", other_network_namespace),
];

fn after_data(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = loopback.pair()?;
    for (from, to) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        tcp::send(from, exercise::MESSAGE)?;
        toolkit::receive(to, exercise::MESSAGE)?;
    }
    exercise::close_gracefully(&mut truth.tally, pair)
}

/// The close leaves the data to the kernel, which delivers it.
fn with_data_left(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    truth.tally.close(client, Outcome::Graceful)?;
    tcp::accept_data(&server)?;
    let received = tcp::receive_all(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    truth.delivered(UNACKED_MESSAGE);
    expect_bytes(received, exercise::MESSAGE as u64)
}

fn after_shutdown_write(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = loopback.pair()?;
    pair.client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&pair.client, TcpState::FinWait2)?;
    exercise::close_gracefully(&mut truth.tally, pair)
}

fn after_shutdown_both(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = loopback.pair()?;
    pair.client.shutdown(Shutdown::Both)?;
    state::wait_for_state(&pair.client, TcpState::FinWait2)?;
    exercise::close_gracefully(&mut truth.tally, pair)
}

/// Shut down, read up to the peer's FIN, close.
fn safe_pattern(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    tcp::send(&client, exercise::MESSAGE)?;
    client.shutdown(Shutdown::Write)?;
    exercise::close_after_fin(&mut truth.tally, server)?;
    tcp::receive_all(&client)?;
    exercise::close_reset(&mut truth.tally, client)
}

/// Returns the address of a port without a listener, and a listener at another, in this network namespace.
fn closed_port(truth: &mut Truth) -> io::Result<(Loopback, socket2::SockAddr)> {
    let gone = Loopback::new()?;
    let address = gone.listener().local_addr()?;
    truth.tally.close(gone.into_listener(), Outcome::Listener)?;
    Ok((Loopback::new()?, address))
}

fn refused_nonblocking(truth: &mut Truth) -> io::Result<()> {
    let (loopback, address) = closed_port(truth)?;
    let socket = loopback.socket()?;
    socket.set_nonblocking(true)?;
    // Whether this call or a later one reports the refusal depends on when the RST arrives.
    let _ = socket.connect(&address);
    state::wait_for_state(&socket, TcpState::Close)?;
    truth.tally.close(socket, Outcome::AlreadyClosed)?;
    scenario::over(loopback, truth, |_, _| Ok(()))
}

/// A blocking connect disconnects the socket when it fails.
fn refused_blocking(truth: &mut Truth) -> io::Result<()> {
    let (loopback, address) = closed_port(truth)?;
    let socket = loopback.socket()?;
    if socket.connect(&address).is_ok() {
        return Err(io::Error::other("connected to a closed port"));
    }
    truth.tally.close(socket, Outcome::NotConnected)?;
    scenario::over(loopback, truth, |_, _| Ok(()))
}

/// Closes in the main ways, over another family.
fn main_ways(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    for kind in [
        Kind::Graceful,
        Kind::LingerAbortedData,
        Kind::UnreadAborted,
        Kind::Linger2Aborted,
        Kind::AlreadyClosed,
        Kind::NotConnected,
    ] {
        kind.perform(loopback, &mut truth.tally)?;
    }
    Ok(())
}

fn ipv6(truth: &mut Truth) -> io::Result<()> {
    let loopback = Family::V6.listen()?;
    scenario::over(loopback, truth, main_ways)
}

fn mapped(truth: &mut Truth) -> io::Result<()> {
    let loopback = Family::Mapped.listen()?;
    scenario::over(loopback, truth, main_ways)
}

/// The sockets belong to one network namespace, the thread that closes them to another.
fn other_network_namespace(truth: &mut Truth) -> io::Result<()> {
    let loopback = Loopback::new()?;
    let Pair { client, server } = loopback.pair()?;
    tcp::send(&server, exercise::MESSAGE)?;
    state::wait_for_unread(&client, exercise::MESSAGE as u64)?;
    let closes = || -> io::Result<Truth> {
        let mut truth = Truth::default();
        child::enter_network()?;
        truth.tally.close(client, Outcome::UnreadAborted)?;
        exercise::close_reset(&mut truth.tally, server)?;
        truth
            .tally
            .close(loopback.into_listener(), Outcome::Listener)?;
        if Counters::read()? != Counters::default() {
            return Err(io::Error::other("counted in the wrong namespace"));
        }
        Ok(truth)
    };
    let elsewhere = thread::scope(|scope| scope.spawn(closes).join());
    let elsewhere = elsewhere.map_err(|_| io::Error::other("the closing thread panicked"))??;
    truth.tally.add(&elsewhere.tally);
    Ok(())
}

/// Fails unless the peer received the expected number of bytes.
pub(crate) fn expect_bytes(received: u64, expected: u64) -> io::Result<()> {
    if received == expected {
        Ok(())
    } else {
        let message = format!("the peer received {received} bytes, not {expected}");
        Err(io::Error::other(message))
    }
}
