//! `HAProxy`: `option nolinger`, and its effect on the connections that it opened itself.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use linger_daemon::exercise::Tally;
use linger_daemon::exercise::state::{Queues, TcpState};
use linger_ebpf::Outcome;
use nix::sys::signal::Signal;
use socket2::Socket;

use super::client::{Client, ask_all_deaf, hear_all, wait_for_servers};
use super::{PORT, ServerUnit, discard, unexpected, unit};
use crate::scenario::Settings;
use crate::service::{self, ServiceName};
use crate::truth::Truth;

/// Connections in each phase.
const CLIENTS: u64 = 20;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A running `HAProxy`.
struct Proxy(ServerUnit);

impl Proxy {
    /// Runs it in a unit, with `config` below its defaults.
    fn start(unit: &str, config: &str) -> io::Result<Self> {
        let program = service::find("haproxy")?;
        let folder = tempfile::tempdir()?;
        let page = folder.path().join("page");
        fs::write(&page, vec![b'x'; 10_000])?;
        let file = folder.path().join("haproxy.cfg");
        let config = config.replace("PAGE", &page.display().to_string());
        fs::write(
            &file,
            format!(
                "defaults
    mode http
    timeout connect 60s
    timeout server 60s
    timeout client 60s
    timeout http-keep-alive 500ms
{config}"
            ),
        )?;
        let mut command = Command::new(program);
        command.args(["-db", "-q", "-f"]).arg(file);
        ServerUnit::start(unit, &command, Signal::SIGUSR1, folder).map(Self)
    }

    /// Has it exit once no connection is left. Returns its name and its closes.
    fn end(self, numbers: &[(Outcome, u64)]) -> io::Result<(ServiceName, Tally)> {
        // At its start it tries out a socket of each available family.
        let families = ["/proc/net/tcp", "/proc/net/tcp6"];
        let tried = families.iter().filter(|table| Path::new(table).exists());
        let tried = tried.count() as u64;
        let numbers = [numbers, &[(Outcome::NotConnected, tried)]].concat();
        self.0.end(&numbers)
    }
}

/// Clients that have received none of the answer when their connection times out as idle.
pub(super) fn nolinger(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let config = |option| {
        format!(
            "frontend web
    bind 127.0.0.1:{PORT}
    {option}
    http-request return status 200 content-type text/plain file PAGE\n"
        )
    };
    let ask = || ask_all_deaf(settings, CLIENTS, REQUEST);

    let proxy = Proxy::start(&unit("proxy"), &config(""))?;
    let clients = ask()?;
    wait_for_servers(TcpState::FinWait1, CLIENTS)?;
    let mut answer = 0;
    for (client, left) in hear_all(clients)? {
        answer = client.read_whole(&mut truth.tally)?;
        if answer != left.unacked {
            return Err(unexpected((answer, left)));
        }
        truth.delivered(left);
    }
    let (name, tally) = proxy.end(&[(Outcome::Graceful, CLIENTS)])?;
    truth.service(name, tally);

    let proxy = Proxy::start(&unit("proxy-nolinger"), &config("option nolinger"))?;
    for client in ask()? {
        let arrived = client.read_reset(&mut truth.tally)?;
        if arrived > 0 {
            return Err(unexpected(arrived));
        }
    }
    let (name, mut tally) = proxy.end(&[(Outcome::LingerAborted, CLIENTS)])?;
    let lost = Queues {
        unacked: CLIENTS * answer,
        ..Queues::default()
    };
    discard(&mut tally, Outcome::LingerAborted, lost);
    truth.service(name, tally);
    Ok(())
}

/// A server behind `HAProxy` that lets it close first: `HAProxy` resets, whatever the options, which spares it the
/// `TIME_WAIT`.
pub(super) fn server_side(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let config = format!(
        "    option http-server-close
frontend web
    bind 127.0.0.1:{PORT}
    default_backend servers
backend servers
    server one {}\n",
        listener.local_addr()?
    );
    let proxy = Proxy::start(&unit("proxy-closes"), &config)?;
    for _ in 0..CLIENTS {
        settings.pause();
        let client = Client::ask(REQUEST)?;
        let (connection, _) = listener.accept()?;
        let server = Client(Socket::from(connection));
        server.read_until(b"\r\n\r\n")?;
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        server.read_reset(&mut truth.tally)?;
        // The answer may be acknowledged after the close.
        truth.chance.most.count(client.read_until(b"ok")?);
        truth.tally.close(client.0, Outcome::Graceful)?;
    }
    let to_both = [
        (Outcome::LingerAborted, CLIENTS),
        (Outcome::Graceful, CLIENTS),
    ];
    let (name, tally) = proxy.end(&to_both)?;
    truth.service(name, tally);
    let listener = Socket::from(listener);
    truth.tally.close(listener, Outcome::Listener)?;
    Ok(())
}
