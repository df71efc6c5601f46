//! Closes of listening sockets.

use std::io;
use std::net::Shutdown;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_daemon::exercise::{self, Kind, MESSAGE};
use linger_ebpf::{Cause, Outcome};

use crate::scenario::Scenario;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::connections("listener_empty", |_, _| Ok(())),
    Scenario::kind("listener_with_queued_children", Kind::Listener),
    Scenario::own("listener_with_unread_children", unread_children),
    Scenario::own("listener_shut_down", shut_down),
];

/// Data received for a connection that is never accepted is discarded unread with it.
fn unread_children(truth: &mut Truth) -> io::Result<()> {
    let loopback = Loopback::new()?;
    let client = loopback.connect()?;
    tcp::send(&client, MESSAGE)?;
    state::wait_for("the acknowledgement", || {
        Ok(state::queues(&client)?.unacked == 0)
    })?;
    loopback.wait_for_queued(1)?;
    truth
        .tally
        .close(loopback.into_listener(), Outcome::Listener)?;
    truth.tally.unread += MESSAGE as u64;
    truth.tally.reset(Cause::ListenerClosed, 1);
    exercise::close_reset(&mut truth.tally, client)
}

/// Shutting a listener down resets its children; the close finds nothing left.
fn shut_down(truth: &mut Truth) -> io::Result<()> {
    let loopback = Loopback::new()?;
    let client = loopback.connect()?;
    loopback.wait_for_queued(1)?;
    loopback.listener().shutdown(Shutdown::Read)?;
    truth.tally.reset(Cause::ListenerClosed, 1);
    exercise::close_reset(&mut truth.tally, client)?;
    let listener = loopback.into_listener();
    state::wait_for_state(&listener, TcpState::Close)?;
    truth.tally.close(listener, Outcome::NotConnected)?;
    Ok(())
}
