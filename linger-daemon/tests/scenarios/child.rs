//! The process of one scenario, with its own name and network namespace.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::parent_id;
use std::process::Command;

use anyhow::Context as _;
use linger_daemon::exercise::state;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};

use crate::scenario::{self, Scenario};
use crate::truth::{Counters, Truth};

/// Report of a scenario's process to its parent, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The scenario ran, and expects this to be counted.
    Ran(Box<Truth>),
    /// The scenario failed.
    Failed(String),
    /// A wait timed out for something that is only a matter of time.
    WaitedInVain(String),
}

/// Runs a scenario in a new process.
pub(crate) fn spawn(name: &str, settings: scenario::Settings) -> anyhow::Result<Report> {
    let output = Command::new(env::current_exe()?)
        .args(["child", name, &serde_json::to_string(&settings)?])
        .output()?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        format!(
            "its process ended with {}: {}",
            output.status,
            errors.trim()
        )
    })
}

/// Runs the scenario with this name in this process.
pub(crate) fn run(name: &str, settings: scenario::Settings) -> io::Result<()> {
    let all = scenario::all();
    let (number, scenario) = all
        .iter()
        .enumerate()
        .find(|(_, scenario)| scenario.name == name)
        .ok_or_else(|| io::Error::other(format!("there is no scenario {name}")))?;
    let comm = CString::new(scenario.comm(parent_id(), number, settings.attempt))?;
    nix::sys::prctl::set_name(&comm)?;

    let report = match perform(scenario, settings) {
        Ok(truth) => Report::Ran(Box::new(truth)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Report::WaitedInVain(error.to_string())
        }
        Err(error) => Report::Failed(error.to_string()),
    };
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

fn perform(scenario: &Scenario, settings: scenario::Settings) -> io::Result<Truth> {
    if !scenario.is_host_wide() {
        enter_network()?;
    }
    let mut truth = Truth::default();
    scenario.perform(settings, &mut truth)?;
    wait_for_orphans()?;
    // They began at zero with the new namespace.
    truth.counters = Counters::read()?;
    Ok(truth)
}

/// Moves the calling thread to a new network namespace and brings its loopback up.
pub(crate) fn enter_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    bring_up_loopback()?;
    // Tail loss probes send new data, which would change the queues after they were read.
    fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")?;
    // An RST that meets a gap is answered by a challenge ACK; lift the limit where it is per namespace.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_challenge_ack_limit", "2147483647");
    Ok(())
}

fn bring_up_loopback() -> io::Result<()> {
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);

    // SAFETY: `ifreq` consists of integers and pointers, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::empty(),
        None,
    )?;
    // SAFETY: the descriptor is open, and the ioctl reads an `ifreq`.
    unsafe { set_flags(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Waits until no closed socket of this network namespace has anything left to send.
pub(crate) fn wait_for_orphans() -> io::Result<()> {
    // FIN_WAIT1, LAST_ACK, CLOSING.
    const BUSY: [&str; 3] = ["04", "09", "0B"];
    state::wait_for("the orphans to end", || {
        for table in ["tcp", "tcp6"] {
            let Ok(sockets) = fs::read_to_string(format!("/proc/thread-self/net/{table}")) else {
                continue; // no IPv6
            };
            let mut states = sockets
                .lines()
                .filter_map(|line| line.split_ascii_whitespace().nth(3));
            if states.any(|state| BUSY.contains(&state)) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}
