//! The cases of the cookbook (docs/cookbook): real servers close in the way that a recipe is about, and then in the
//! way that it advises. The counts are compared with what the clients saw and, for servers in Python, with what the
//! kernel told them just before each close.
//!
//! `cargo xtask lab cookbook` runs the same cases, at a pace to be watched, for the recipes' pictures.

mod client;
mod film;
mod haproxy;
mod keepalive;
mod nginx;
mod node;
mod python;
mod tls;

use std::fmt;
use std::io;
use std::process::Command;

use linger_daemon::exercise::Tally;
use linger_daemon::exercise::state::Queues;
use linger_ebpf::Outcome;
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(crate) use film::make;

use crate::attribution::{closes, unit};
use crate::needs::Need;
use crate::scenario::Scenario;
use crate::service::{Service, ServiceName};
use crate::truth::Counters;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::bulk("cookbook_nginx_lingering_close", nginx::lingering_close)
        .by_plan_only()
        .needs(&[Need::Nginx]),
    Scenario::bulk("cookbook_nginx_timed_out", nginx::timed_out)
        .by_plan_only()
        .needs(&[Need::Nginx]),
    Scenario::bulk("cookbook_nginx_keepalive", nginx::keepalive_timeout)
        .by_plan_only()
        .needs(&[Need::Nginx]),
    Scenario::bulk("cookbook_haproxy_nolinger", haproxy::nolinger)
        .by_plan_only()
        .needs(&[Need::Haproxy]),
    Scenario::bulk("cookbook_haproxy_backend", haproxy::server_side)
        .by_plan_only()
        .needs(&[Need::Haproxy]),
    Scenario::bulk("cookbook_early_answer", python::early_answer)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_linger_zero", python::linger_zero)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_event_loop", python::event_loop)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_after_close", python::after_close)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_shutdown", python::shutdown)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_keepalive", python::keepalive)
        .by_plan_only()
        .needs(&[Need::Python]),
    Scenario::bulk("cookbook_node_keepalive", node::keepalive_timeout)
        .by_plan_only()
        .needs(&[Need::Node]),
    Scenario::bulk("cookbook_close_notify", tls::close_notify)
        .by_plan_only()
        .needs(&[Need::Python]),
];

/// Free, as each case has its own network namespace.
const PORT: u16 = 8080;

/// A server that runs in a unit.
struct ServerUnit {
    service: Service,
    name: ServiceName,
    /// The signal that has it exit once no connection is left.
    ending: Signal,
    /// Its files.
    _folder: TempDir,
}

impl ServerUnit {
    fn start(unit: &str, command: &Command, ending: Signal, folder: TempDir) -> io::Result<Self> {
        let (service, name) = Service::start_unit(unit, PORT, command)?;
        Ok(Self {
            service,
            name,
            ending,
            _folder: folder,
        })
    }

    /// Has it exit once no connection is left. Returns its name and its closes: these, and that of its listener.
    fn end(self, numbers: &[(Outcome, u64)]) -> io::Result<(ServiceName, Tally)> {
        self.service.ask_to_end(self.ending)?;
        let life = self.service.wait()?;
        let numbers = [numbers, &[(Outcome::Listener, 1)]].concat();
        Ok((self.name, closes(life, &numbers)))
    }
}

/// States the total that the closes of an outcome discarded.
fn discard(tally: &mut Tally, outcome: Outcome, lost: Queues) {
    let closes = tally.closes.entry(outcome.name().into()).or_default();
    closes.unsent += lost.unsent;
    closes.unacked += lost.unacked;
}

/// Expects the kernel to have answered each client with an RST since `before`, or none of them.
///
/// A busy kernel may retransmit a segment, and answer that too.
fn expect_resets(before: u64, clients: u64, each: bool) -> io::Result<()> {
    let sent = Counters::read()?.out_resets - before;
    if (sent >= clients) == each {
        Ok(())
    } else {
        Err(io::Error::other(format!("the kernel sent {sent} RSTs")))
    }
}

/// Returns the error of a client that saw something other than the recipe says.
fn unexpected(what: impl fmt::Debug) -> io::Error {
    io::Error::other(format!("a client saw {what:?}"))
}
