//! A daemon that is not scraped sleeps, however many closes there are.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::Plan;

use crate::daemon::{Daemon, wait_until};
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon(
    "closes_do_not_wake_the_daemon",
    closes_do_not_wake_the_daemon,
)
.once()];

/// Connections, of two closes each. One in eight loses data, so that the daemon lists it as recent.
const CONNECTIONS: u64 = 2000;
const LOST: usize = 100;

/// Interval at which the daemon maintains its ledger by itself, and how often its threads may go to sleep each time: a
/// few times are usual.
const TIMER: Duration = Duration::from_secs(10);
const SLEEPS: u64 = 20;

fn closes_do_not_wake_the_daemon(lingerd: &Path, plan: Plan) -> Result<()> {
    let daemon = Daemon::start(lingerd, plan, &[])?;
    let before = closes(&daemon)?;
    // The threads that answered the scrape may still be running.
    let mut last = 0;
    wait_until("a daemon that is done with its answer", || {
        let before = std::mem::replace(&mut last, sleeps(daemon.id())?);
        Ok(before == last)
    })?;
    let started = Instant::now();
    close_many()?;
    let slept = sleeps(daemon.id())?.saturating_sub(last);
    let timers = started.elapsed().as_secs() / TIMER.as_secs() + 1;
    let counted = closes(&daemon)?.saturating_sub(before);
    ensure!(
        counted >= 2 * CONNECTIONS,
        "{counted} closes of {CONNECTIONS} connections were counted"
    );
    ensure!(
        slept <= timers * SLEEPS,
        "while {CONNECTIONS} connections ended it went to sleep {slept} times, with {timers} times to \
         look at the ledger"
    );
    daemon.stop()
}

/// Returns how often the threads of a process went to sleep.
fn sleeps(process: u32) -> io::Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    let status = tasks.map(|task| fs::read_to_string(task?.path().join("status")));
    // A thread may end meanwhile.
    let status = status.filter_map(Result::ok);
    let of_thread = |status: String| {
        let mut lines = status.lines();
        let sleeps = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps.and_then(|sleeps| sleeps.trim().parse::<u64>().ok())
    };
    Ok(status.filter_map(of_thread).sum())
}

/// Returns how many closes the daemon counted on the whole host.
fn closes(daemon: &Daemon) -> Result<u64> {
    let scrape = daemon.scrape()?;
    let closes = scrape.of("linger_closes_total");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count far below 2^52"
    )]
    Ok(closes.map(|sample| sample.value).sum::<f64>() as u64)
}

fn close_many() -> io::Result<()> {
    let loopback = Loopback::new()?;
    for number in 0..CONNECTIONS {
        let Pair { client, server } = loopback.pair()?;
        if number.is_multiple_of(8) {
            tcp::send(&server, LOST)?;
            state::wait_for_unread(&client, LOST as u64)?;
        }
        // The RST leaves no TIME_WAIT behind.
        client.set_linger(Some(Duration::ZERO))?;
        tcp::close(client)?;
        tcp::close(server)?;
    }
    Ok(())
}
