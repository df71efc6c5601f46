//! Clients of the cases' servers, which know what they received and how their connection ended.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::{Tally, tcp};
use linger_ebpf::Outcome;
use socket2::{Domain, Socket, Type};

use super::PORT;
use crate::scenario::Settings;
use crate::toolkit;

/// Time after which a read fails: the kernel takes seconds to retransmit what was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the server ended a connection, as seen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a FIN.
    Fin,
    /// By an RST: the client's read fails with `ECONNRESET`.
    Reset,
}

/// A client's connection.
pub(super) struct Client(pub(super) Socket);

impl Client {
    /// Connects to the server.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into())?;
        Ok(Self(socket))
    }

    /// Connects and sends a request.
    pub(super) fn ask(request: &[u8]) -> io::Result<Self> {
        let client = Self::connect()?;
        client.send(request)?;
        Ok(client)
    }

    /// As [`Client::ask`], but drops all data until [`Client::hear`], like a slow path or one with a gap.
    pub(super) fn ask_deaf(request: &[u8]) -> io::Result<Self> {
        let client = Self::connect()?;
        tcp::drop_data(&client.0)?;
        client.send(request)?;
        Ok(client)
    }

    pub(super) fn send(&self, request: &[u8]) -> io::Result<()> {
        (&self.0).write_all(request)
    }

    /// Lets data through from now on.
    pub(super) fn hear(&self) -> io::Result<()> {
        tcp::accept_data(&self.0)
    }

    /// Reads until `end` has arrived. Returns the number of bytes read.
    pub(super) fn read_until(&self, end: &[u8]) -> io::Result<u64> {
        let mut answer = Vec::new();
        while !answer.ends_with(end) {
            let mut byte = [0];
            (&self.0).read_exact(&mut byte)?;
            answer.extend(byte);
        }
        Ok(answer.len() as u64)
    }

    /// Reads to the end of the connection. Returns the number of bytes, and how it ended.
    pub(super) fn read(&self) -> io::Result<(u64, End)> {
        let mut part = [0; 16384];
        let mut bytes = 0;
        loop {
            match (&self.0).read(&mut part) {
                Ok(0) => return Ok((bytes, End::Fin)),
                Ok(length) => bytes += length as u64,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok((bytes, End::Reset));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads up to the FIN, which must end it, and closes. Returns the number of bytes.
    pub(super) fn read_whole(self, tally: &mut Tally) -> io::Result<u64> {
        let (bytes, end) = self.read()?;
        if end != End::Fin {
            return Err(io::Error::other(format!("reset after {bytes} bytes")));
        }
        tally.close(self.0, Outcome::Graceful)?;
        Ok(bytes)
    }

    /// Waits for the RST, which must end it, reads what came before, and closes. Returns the number of bytes.
    pub(super) fn read_reset(self, tally: &mut Tally) -> io::Result<u64> {
        state::wait_for_state(&self.0, TcpState::Close)?;
        let (bytes, end) = self.read()?;
        if end != End::Reset {
            return Err(io::Error::other(format!("no reset after {bytes} bytes")));
        }
        tally.close(self.0, Outcome::AlreadyClosed)?;
        Ok(bytes)
    }
}

/// Sends the request from `clients` clients, one after another, as [`Client::ask_deaf`] does.
pub(super) fn ask_all_deaf(
    settings: Settings,
    clients: u64,
    request: &[u8],
) -> io::Result<Vec<Client>> {
    let ask = |_| {
        settings.pause();
        Client::ask_deaf(request)
    };
    (0..clients).map(ask).collect()
}

/// Waits until `number` sockets of the server's port are in the state.
pub(super) fn wait_for_servers(state: TcpState, number: u64) -> io::Result<()> {
    state::wait_for(&format!("{number} servers in {state:?}"), move || {
        let states = state::states_of_port(PORT)?;
        Ok(states.filter(|found| *found == state).count() as u64 == number)
    })
}

/// Lets data through to all clients. Returns each with the send queue of its closed server.
///
/// All at once, as the kernel retransmits at ever longer intervals.
pub(super) fn hear_all(clients: Vec<Client>) -> io::Result<Vec<(Client, Queues)>> {
    let queues = clients
        .iter()
        .map(|client| toolkit::send_queue(toolkit::peer_of(&client.0)?));
    let queues = queues.collect::<io::Result<Vec<_>>>()?;
    clients.iter().try_for_each(Client::hear)?;
    Ok(clients.into_iter().zip(queues).collect())
}
