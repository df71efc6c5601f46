//! A server that starts again at the same port: what its closes leave there, and where `SO_REUSEADDR` helps.

use std::io;

use linger_daemon::exercise::tcp::{Loopback, Pair};
use linger_daemon::exercise::{self, close_after_fin};
use linger_ebpf::Outcome;
use socket2::{SockAddr, Socket, Type};

use crate::scenario::Scenario;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::own("restart_in_time_wait", in_time_wait),
    Scenario::own("restart_after_linger0", after_linger_zero),
    Scenario::own("restart_after_peers", after_peers),
];

/// Whether the old listener, and so its connections, had `SO_REUSEADDR`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Reuses,
    DoesNot,
}

/// A server that closes first keeps `TIME_WAIT`, which holds the port unless both the old and the new listener have
/// `SO_REUSEADDR`.
fn in_time_wait(truth: &mut Truth) -> io::Result<()> {
    let closes_first = |Pair { client, server }, truth: &mut Truth| {
        truth.tally.close(server, Outcome::Graceful)?;
        close_after_fin(&mut truth.tally, client)
    };
    let address = serve(Old::DoesNot, truth, closes_first)?;
    expect(&address, [false, false], truth)?;
    let address = serve(Old::Reuses, truth, closes_first)?;
    expect(&address, [false, true], truth)
}

/// An abort leaves no `TIME_WAIT`.
fn after_linger_zero(truth: &mut Truth) -> io::Result<()> {
    let address = serve(Old::DoesNot, truth, |Pair { client, server }, truth| {
        let pair = Pair {
            client: server,
            server: client,
        };
        exercise::abort(&mut truth.tally, pair)
    })?;
    expect(&address, [true, true], truth)
}

/// `TIME_WAIT` is on the side that closes first.
fn after_peers(truth: &mut Truth) -> io::Result<()> {
    let address = serve(Old::DoesNot, truth, |pair, truth| {
        exercise::close_gracefully(&mut truth.tally, pair)
    })?;
    expect(&address, [true, true], truth)
}

/// Runs a server that ends one connection, then itself. Returns the address it listened on.
fn serve(
    old: Old,
    truth: &mut Truth,
    end: impl FnOnce(Pair, &mut Truth) -> io::Result<()>,
) -> io::Result<SockAddr> {
    let loopback = Loopback::new()?;
    loopback.listener().set_reuse_address(old == Old::Reuses)?;
    let address = loopback.listener().local_addr()?;
    end(loopback.pair()?, truth)?;
    let listener = loopback.into_listener();
    truth.tally.close(listener, Outcome::Listener)?;
    Ok(address)
}

/// Binds the port without `SO_REUSEADDR` and with it, and expects each to succeed or to fail.
fn expect(address: &SockAddr, expected: [bool; 2], truth: &mut Truth) -> io::Result<()> {
    for (reuses, expected) in [false, true].into_iter().zip(expected) {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_reuse_address(reuses)?;
        let bound = match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
            result => result.map(|()| true)?,
        };
        truth.tally.close(socket, Outcome::NotConnected)?;
        if bound != expected {
            let message = format!("SO_REUSEADDR {reuses}: bind succeeds: {bound}");
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}
