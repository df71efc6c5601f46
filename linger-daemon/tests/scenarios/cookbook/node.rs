//! Node: `keepAliveTimeout`.

use std::fs;
use std::io;
use std::process::Command;

use linger_ebpf::Outcome;
use nix::sys::signal::Signal;

use super::{PORT, ServerUnit, keepalive, unit};
use crate::scenario::Settings;
use crate::service;
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

/// Runs [`SCRIPT`] in a unit.
fn start(unit: &str, timeout: u32) -> io::Result<ServerUnit> {
    let program = service::find("node")?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("server.js");
    fs::write(&script, SCRIPT)?;
    let mut command = Command::new(program);
    command.arg(script);
    command.args([u32::from(PORT), timeout].map(|number| number.to_string()));
    ServerUnit::start(unit, &command, Signal::SIGTERM, folder)
}

/// Clients that reuse a connection just after Node has closed it as idle: an RST answers, counted for the service that
/// closed.
pub(super) fn keepalive_timeout(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let node = start(&unit("node"), 1_000)?;
    keepalive::server_closes(settings, truth)?;
    let (name, mut tally) = node.end(&[(Outcome::Graceful, keepalive::CLIENTS)])?;
    Truth::late_data_to_remnants(&mut tally, keepalive::CLIENTS);
    truth.service(name, tally);

    let node = start(&unit("node-longer"), 75_000)?;
    keepalive::clients_close(settings, truth)?;
    // It answers a FIN with its own before it closes.
    let (name, tally) = node.end(&[(Outcome::AlreadyClosed, keepalive::CLIENTS)])?;
    truth.service(name, tally);
    Ok(())
}
