//! A close that waits for long, while the daemon's `/proc` hides the processes of others (`hidepid`).

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, state};
use linger_ebpf::{Outcome, Plan};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::closes::{expect, lost, sum};
use crate::daemon::{Daemon, MAINTENANCE};
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("waits_long_in_a_hidden_process", waits_long).once()];

/// Age at which the daemon looks whether the thread of a close still exists, and some more.
const LONG: Duration = Duration::from_secs(61);
const LINGER: Duration = Duration::from_secs(65);

fn waits_long(lingerd: &Path, plan: Plan) -> Result<()> {
    let daemon = Daemon::start_by(lingerd, plan, &[], |command| {
        // SAFETY: it only makes system calls.
        unsafe { command.pre_exec(hide_processes) };
        Command::spawn(command)
    })?;
    let comm = fs::read_to_string("/proc/self/comm")?;
    let timed_out = |scrape: &_| {
        sum(scrape, "linger_closes_total", |sample| {
            sample.label("comm") == comm.trim_end()
                && sample.label("outcome") == Outcome::LingerTimeout.name()
        })
    };
    let before = timed_out(&daemon.scrape()?);
    let loopback = Loopback::new()?;
    let Pair { client, server } = exercise::pair_with_unacked(&loopback)?;
    client.set_linger(Some(LINGER))?;
    let port = tcp::port(&client)?;
    thread::scope(|scope| {
        let closer = scope.spawn(|| tcp::close(client));
        state::wait_for_port_state(port, state::TcpState::FinWait1)?;
        thread::sleep(LONG);
        daemon.scrape()?;
        thread::sleep(MAINTENANCE);
        ensure!(!closer.is_finished(), "it did not wait long enough");
        closer.join().expect("a close")?;
        anyhow::Ok(())
    })?;
    // Where the return of close(2) is not seen, the close counts when its socket ends.
    server.set_linger(Some(Duration::ZERO))?;
    drop(server);
    expect(&daemon, &(before + 1, 0), |scrape| {
        (timed_out(scrape), lost(scrape, "close"))
    })?;
    daemon.stop()
}

/// Mounts a `/proc` that shows only processes that this one may trace, once it has dropped its capabilities. By default,
/// root's group sees all.
fn hide_processes() -> std::io::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let hidden = Some("hidepid=2,gid=65534");
    mount(NONE, "/proc", Some("proc"), MsFlags::empty(), hidden)?;
    Ok(())
}
