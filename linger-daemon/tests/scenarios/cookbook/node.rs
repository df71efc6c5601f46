//! Node: `keepAliveTimeout`.

use std::fs;
use std::io;
use std::process::Command;

use linger_daemon::exercise::Tally;
use linger_ebpf::Outcome;
use nix::sys::signal::Signal;

use super::{PORT, keepalive, unit};
use crate::attribution::closes;
use crate::scenario::Settings;
use crate::service::{self, Service, ServiceName};
use crate::truth::Truth;

/// Listens on a port, and keeps idle connections for this many milliseconds.
const SCRIPT: &str = "
const http = require('http');
const [port, timeout] = process.argv.slice(2).map(Number);
const server = http.createServer((request, response) => response.end('x'));
server.keepAliveTimeout = timeout;
process.on('SIGTERM', () => server.close());
server.listen(port, '127.0.0.1');
";

/// A running [`SCRIPT`].
struct Server {
    service: Service,
    name: ServiceName,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Runs it in a unit.
    fn start(unit: &str, timeout: u32) -> io::Result<Self> {
        let program = service::find("node")?;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("server.js");
        fs::write(&script, SCRIPT)?;
        let mut command = Command::new(program);
        command.arg(script);
        command.args([u32::from(PORT), timeout].map(|number| number.to_string()));
        let (service, name) = Service::start_unit(unit, PORT, &command)?;
        Ok(Self {
            service,
            name,
            _folder: folder,
        })
    }

    /// Has it exit once no connection is left. Returns its name and its closes: connections with this outcome, and the
    /// listener.
    fn end(self, outcome: Outcome) -> io::Result<(ServiceName, Tally)> {
        self.service.ask_to_end(Signal::SIGTERM)?;
        let life = self.service.wait()?;
        let numbers = [(outcome, keepalive::CLIENTS), (Outcome::Listener, 1)];
        Ok((self.name, closes(life, &numbers)))
    }
}

/// Clients that reuse a connection just after Node has closed it as idle: an RST answers, counted for the service that
/// closed.
pub(super) fn keepalive_timeout(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let node = Server::start(&unit("node"), 1_000)?;
    keepalive::server_closes(settings, truth)?;
    let (name, mut tally) = node.end(Outcome::Graceful)?;
    Truth::late_data_to_remnants(&mut tally, keepalive::CLIENTS);
    truth.service(name, tally);

    let node = Server::start(&unit("node-longer"), 75_000)?;
    keepalive::clients_close(settings, truth)?;
    // It answers a FIN with its own before it closes.
    let (name, tally) = node.end(Outcome::AlreadyClosed)?;
    truth.service(name, tally);
    Ok(())
}
