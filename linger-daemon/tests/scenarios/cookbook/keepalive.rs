//! The keep-alive race: clients reuse a connection just after the server has closed it as idle.

use std::io::{self, ErrorKind};

use linger_daemon::exercise::state::{self, TcpState};
use linger_ebpf::Outcome;

use super::client::{Client, wait_for_servers};
use super::{expect_resets, unexpected};
use crate::left::Bound;
use crate::scenario::Settings;
use crate::truth::{Counters, Truth};

/// Clients of each server.
pub(super) const CLIENTS: u64 = 20;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// The server closes, then each client sends its next request: an RST answers, for which a proxy would return 502.
pub(super) fn server_closes(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let clients = ask(settings, truth)?;
    let before = Counters::read()?.out_resets;
    wait_for_servers(TcpState::FinWait2, CLIENTS)?;
    for client in clients {
        client.send(REQUEST)?;
        // The RST causes no ECONNRESET here, as the FIN came before.
        state::wait_for_state(&client.0, TcpState::Close)?;
        let again = client.send(REQUEST).map_err(|error| error.kind());
        if again != Err(ErrorKind::BrokenPipe) {
            return Err(unexpected(again));
        }
        truth.tally.close(client.0, Outcome::AlreadyClosed)?;
    }
    expect_resets(before, CLIENTS, true)
}

/// The clients close first.
pub(super) fn clients_close(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let before = Counters::read()?.out_resets;
    for client in ask(settings, truth)? {
        truth.tally.close(client.0, Outcome::Graceful)?;
    }
    // The server follows.
    for state in [
        TcpState::Established,
        TcpState::CloseWait,
        TcpState::LastAck,
    ] {
        wait_for_servers(state, 0)?;
    }
    expect_resets(before, CLIENTS, false)
}

/// Returns clients that have an answer, `x`, and keep their connections.
fn ask(settings: Settings, truth: &mut Truth) -> io::Result<Vec<Client>> {
    let mut answered = Bound::default();
    let clients = (0..CLIENTS).map(|_| {
        settings.pause();
        let client = Client::ask(REQUEST)?;
        let length = client.read_until(b"\r\n\r\nx")?;
        // The kernel may delay the acknowledgement until after the close.
        answered.count(length);
        Ok(client)
    });
    let clients = clients.collect();
    truth.chance.most.add(answered);
    clients
}
