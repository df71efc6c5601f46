//! All labels at once: closes of each family, for connections accepted at a port with a label value of its own, at
//! another port, and for connections that were opened.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::path::Path;
use std::process;

use anyhow::{Context as _, Result};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::Plan;

use crate::born::{self, Cgroup};
use crate::closes::{self, Closes};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::Scenario;
use crate::toolkit::Family;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("dimensions", dimensions)];

const LABELS: &str = "unit,slice,comm,exe,port,family";

/// A listener, and the closes over it.
struct Place {
    loopback: Loopback,
    family: Family,
    /// Its port, if it is one of `--ports`.
    told: Option<u16>,
    /// Connections that the client aborts; the number differs for each listener.
    by_client: u64,
    /// Connections that the server aborts.
    by_server: u64,
}

impl Place {
    /// Makes all closes, including those of the listener and of a socket without a connection. Does not allocate, see
    /// [`Cgroup::bear`].
    fn close_all(&self) -> io::Result<()> {
        for _ in 0..self.by_client {
            let Pair { client, server } = self.loopback.pair()?;
            born::abort(client, server)?;
        }
        for _ in 0..self.by_server {
            let Pair { client, server } = self.loopback.pair()?;
            born::abort(server, client)?;
        }
        tcp::close(self.loopback.socket()?)?;
        Ok(nix::unistd::close(self.loopback.listener().as_raw_fd())?)
    }

    /// Returns what must be counted: port, family, outcome and number.
    fn expected(&self) -> [(String, &'static str, &'static str, u64); 6] {
        // The family of a connection is the one on the wire.
        let (connection, socket) = match self.family {
            Family::V4 => ("ipv4", "ipv4"),
            Family::Mapped => ("ipv4", "ipv6"),
            Family::V6 => ("ipv6", "ipv6"),
        };
        let told = self.told.map_or_else(String::new, |port| port.to_string());
        // For sockets that were not accepted.
        let none = String::new;
        [
            (none(), connection, "linger_aborted", self.by_client),
            (told.clone(), connection, "already_closed", self.by_client),
            (told, connection, "linger_aborted", self.by_server),
            (none(), connection, "already_closed", self.by_server),
            (none(), socket, "not_connected", 1),
            (none(), socket, "listener", 1),
        ]
    }
}

/// Returns a listener of each family at a port in `--ports`, and one at another port.
fn places() -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    let mut ports = BTreeSet::new();
    let mut number = 1;
    for is_told in [true, false] {
        for &family in Family::ALL {
            let mut loopback = family.listen()?;
            // Different families may have the same port.
            while !ports.insert(tcp::port(loopback.listener())?) {
                loopback = family.listen()?;
            }
            let port = tcp::port(loopback.listener())?;
            places.push(Place {
                loopback,
                family,
                told: is_told.then_some(port),
                by_client: number,
                by_server: 10 * number,
            });
            number += 1;
        }
    }
    Ok(places)
}

fn dimensions(lingerd: &Path, plan: Plan) -> Result<()> {
    let comm = format!("{:x}-dims", process::id());
    let exe = env::current_exe()?.canonicalize()?;
    let exe = exe.to_str().context("a path of text")?;
    netns::in_own(|| {
        let places = places()?;
        let told = places.iter().filter_map(|place| place.told);
        let told: Vec<_> = told.map(|port| port.to_string()).collect();
        let told = told.join(",");
        let options = ["--labels", LABELS, "--ports", &told, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("dimensions.service")?;
        // SAFETY: `close_all` only makes system calls.
        unsafe {
            cgroup.bear(comm.as_str(), || {
                places.iter().try_for_each(Place::close_all)
            })
        }?;

        let slice = Cgroup::slice();
        let mut expected = Closes::new();
        for place in places {
            for (port, family, outcome, number) in place.expected() {
                let labels = [cgroup.unit(), &slice, &comm, exe, &port, family, outcome];
                let labels = labels.map(str::to_owned).into();
                *expected.entry(labels).or_default() += number;
            }
            // The process has closed this descriptor, which both share.
            let _ = place.loopback.into_listener().into_raw_fd();
        }
        let labels: Vec<_> = LABELS.split(',').chain(["outcome"]).collect();
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &labels, |sample| sample.label("comm") == comm)
        })?;
        cgroup.remove()?;
        daemon.stop()
    })
}
