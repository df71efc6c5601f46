//! Servers in Python, each of which closes in one way and then in a better one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_daemon::exercise::{self, LINGER, Tally};
use linger_ebpf::{Cause, Fate, Outcome};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::client::{Client, ask_all_deaf, wait_for_servers};
use super::{PORT, unexpected, unit};
use crate::scenario::Settings;
use crate::service::{self, Service, ServiceName};
use crate::truth::Truth;

/// The servers.
const SERVERS: &str = include_str!("servers.py");
/// Request of the clients.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// Length of the answer, bytes.
const ANSWER: u64 = 20_019;

/// A running server.
pub(super) struct Server {
    service: Service,
    name: ServiceName,
    folder: TempDir,
}

/// A close as the server wrote it down.
#[derive(Deserialize)]
struct Line {
    outcome: String,
    unsent: u64,
    unacked: u64,
    unread: u64,
}

impl Server {
    /// Runs one of [`SERVERS`] in a unit, with these numbers, and waits until it runs and its port has a listener.
    fn start(unit: String, case: &str, numbers: &[u64]) -> io::Result<Self> {
        Self::start_in(tempfile::tempdir()?, unit, case, numbers)
    }

    /// As `start`, with `folder` for its files.
    pub(super) fn start_in(
        folder: TempDir,
        unit: String,
        case: &str,
        numbers: &[u64],
    ) -> io::Result<Self> {
        let program = service::find("python3")?;
        let script = folder.path().join("servers.py");
        fs::write(&script, SERVERS)?;
        let mut command = Command::new(program);
        command
            .args(["-I", "-S"])
            .arg(script)
            .arg(case)
            .arg(PORT.to_string());
        let closes = folder.path().join("closes");
        command.arg(&closes);
        command.args(numbers.iter().map(u64::to_string));
        let service = Service::start(&service::cgroup(&unit), PORT, &command)?;
        state::wait_for("the server to run", || Ok(closes.exists()))?;
        let comm = service.comm()?;
        Ok(Self {
            service,
            name: ServiceName { unit, comm },
            folder,
        })
    }

    /// Waits until it has everything that its case starts with.
    fn wait_until_ready(&self) -> io::Result<()> {
        let file = self.folder.path().join("closes.ready");
        state::wait_for("the server to be ready", || Ok(file.exists()))
    }

    /// Waits for its end. Returns its name, and the closes that it wrote down.
    pub(super) fn end(self) -> io::Result<(ServiceName, Tally)> {
        let life = self.service.wait()?;
        let mut tally = Tally::default();
        for line in fs::read_to_string(self.folder.path().join("closes"))?.lines() {
            let found: Line = serde_json::from_str(line)?;
            let outcome = Outcome::ALL
                .iter()
                .find(|outcome| outcome.name() == found.outcome);
            let outcome = *outcome.ok_or_else(|| unexpected(&found.outcome))?;
            let queues = Queues {
                unsent: found.unsent,
                unacked: found.unacked,
                unread: found.unread,
            };
            tally.count(outcome, queues, life);
        }
        Ok((self.name, tally))
    }
}

/// Left by a close when nothing of the answer was acknowledged.
const WHOLE_ANSWER: Queues = Queues {
    unsent: 0,
    unacked: ANSWER,
    unread: 0,
};

/// A server that answers an upload as soon as it has the head of the request.
pub(super) fn early_answer(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const CLIENTS: u64 = 20;
    const BODY: usize = 20_000;
    let mut request = format!("POST / HTTP/1.0\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
    let head = request.len() as u64;
    request.extend(vec![b'x'; BODY]);
    for (name, reads) in [("early", false), ("early-reads", true)] {
        let numbers = [CLIENTS, head, request.len() as u64, reads.into()];
        let server = Server::start(unit(name), "early_answer", &numbers)?;
        for _ in 0..CLIENTS {
            settings.pause();
            let client = Client::ask(&request)?;
            // The answer came before the RST, and Linux still lets the client read it.
            let got = if reads {
                client.read_whole(&mut truth.tally)?
            } else {
                client.read_reset(&mut truth.tally)?
            };
            if got == 0 {
                return Err(unexpected(got));
            }
        }
        let (name, tally) = server.end()?;
        truth.service(name, tally);
    }
    Ok(())
}

/// A service that sends each message over its own connection, and wants no `TIME_WAIT`.
pub(super) fn linger_zero(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const MESSAGES: u64 = 20;
    for (name, waits) in [("sender", false), ("sender-waits", true)] {
        let sink = Loopback::at(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))?;
        if !waits {
            // The path loses the first transmissions.
            tcp::drop_data(sink.listener())?;
        }
        let numbers = [MESSAGES, settings.pace, waits.into()];
        let sender = Server::start(unit(name), "linger_zero", &numbers)?;
        for _ in 0..MESSAGES {
            let connection = Client(sink.accept()?);
            let got = if waits {
                connection.read_whole(&mut truth.tally)?
            } else {
                connection.read_reset(&mut truth.tally)?
            };
            if got != if waits { ANSWER } else { 0 } {
                return Err(unexpected(got));
            }
        }
        let (name, tally) = sender.end()?;
        truth.service(name, tally);
        truth.tally.close(sink.into_listener(), Outcome::Listener)?;
    }
    Ok(())
}

/// A single-threaded server that lingers, with clients that receive nothing.
pub(super) fn event_loop(_: Settings, truth: &mut Truth) -> io::Result<()> {
    const CLIENTS: u64 = 4;
    for (name, seconds) in [("loop", LINGER.as_secs()), ("loop-unlingering", 0)] {
        let server = Server::start(unit(name), "event_loop", &[CLIENTS, seconds])?;
        let clients: io::Result<Vec<_>> = (0..CLIENTS).map(|_| Client::ask_deaf(REQUEST)).collect();
        let (name, tally) = server.end()?;
        truth.service(name, tally);
        for client in clients? {
            client.hear()?;
            let got = client.read_whole(&mut truth.tally)?;
            if got != ANSWER {
                return Err(unexpected(got));
            }
            truth.delivered(WHOLE_ANSWER);
            if seconds > 0 {
                truth.waited(LINGER);
            }
        }
    }
    Ok(())
}

/// A server that closes when it has answered: every other client takes the answer, the others reset.
pub(super) fn after_close(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const CLIENTS: u64 = 20;
    let takes = |number: u64| number.is_multiple_of(2);
    let server = Server::start(unit("answers"), "after_close", &[CLIENTS, 0])?;
    let clients = ask_all_deaf(settings, CLIENTS, REQUEST)?;
    wait_for_servers(TcpState::FinWait1, CLIENTS)?;
    let (name, tally) = server.end()?;
    truth.service(name, tally);
    // All at once, as the kernel retransmits at ever longer intervals.
    for (_, client) in (0..).zip(&clients).filter(|(number, _)| takes(*number)) {
        client.hear()?;
    }
    for (number, client) in (0..).zip(clients) {
        settings.pause();
        if takes(number) {
            take(truth, client)?;
            truth.delivered(WHOLE_ANSWER);
        } else {
            exercise::close_and_end_orphan(&mut truth.tally, client.0)?;
            truth.lost(WHOLE_ANSWER, Fate::PeerReset);
        }
    }

    let server = Server::start(unit("answers-waits"), "after_close", &[CLIENTS, 1])?;
    for number in 0..CLIENTS {
        settings.pause();
        let client = Client::ask_deaf(REQUEST)?;
        wait_for_servers(TcpState::FinWait1, 1)?;
        if takes(number) {
            take(truth, client)?;
        } else {
            exercise::close_and_end_orphan(&mut truth.tally, client.0)?;
        }
    }
    let (name, tally) = server.end()?;
    truth.service(name, tally);
    Ok(())
}

/// Takes the whole answer, late.
fn take(truth: &mut Truth, client: Client) -> io::Result<()> {
    client.hear()?;
    let got = client.read_whole(&mut truth.tally)?;
    if got == ANSWER {
        Ok(())
    } else {
        Err(unexpected(got))
    }
}

/// A server asked to end with work in hand: it exits at once, or finishes the work first.
pub(super) fn shutdown(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const BUSY: u64 = 12;
    const QUEUED: u64 = 8;
    let length = REQUEST.len() as u64;
    for (name, drains) in [("exits", false), ("drains", true)] {
        let numbers = [BUSY, QUEUED, length, drains.into()];
        let server = Server::start(unit(name), "shutdown", &numbers)?;
        let mut clients = Vec::new();
        for _ in 0..BUSY + QUEUED {
            settings.pause();
            let client = Client::ask(REQUEST)?;
            state::wait_for("the acknowledgement", || {
                Ok(state::queues(&client.0)?.outstanding() == 0)
            })?;
            clients.push(client);
        }
        server.wait_until_ready()?;
        server.service.ask_to_end(Signal::SIGTERM)?;
        for client in clients {
            let got = if drains {
                client.read_whole(&mut truth.tally)?
            } else {
                client.read_reset(&mut truth.tally)?
            };
            if got != if drains { ANSWER } else { 0 } {
                return Err(unexpected(got));
            }
        }
        let (name, mut tally) = server.end()?;
        if !drains {
            tally.reset(Cause::ListenerClosed, QUEUED);
            tally.unread += QUEUED * length;
        }
        truth.service(name, tally);
    }
    Ok(())
}

/// A server whose kernel sends keep-alive probes to silent peers.
pub(super) fn keepalive(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const CLIENTS: u64 = 10;
    let server = Server::start(unit("patient"), "keepalive", &[CLIENTS])?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        settings.pause();
        clients.push(Client::connect()?);
    }
    wait_for_servers(TcpState::Established, CLIENTS)?;
    for client in &clients {
        tcp::drop_all(&client.0)?;
    }
    let (name, tally) = server.end()?;
    // A timer resets: counted for the unit, and for no process.
    let mut by_timer = Tally::default();
    by_timer.reset(Cause::Keepalive, CLIENTS);
    let timer = ServiceName {
        unit: name.unit.clone(),
        comm: String::new(),
    };
    truth.service(timer, by_timer);
    truth.service(name, tally);
    truth.late_timeouts += CLIENTS;
    for client in clients {
        exercise::close_and_end_orphan(&mut truth.tally, client.0)?;
    }
    Ok(())
}
