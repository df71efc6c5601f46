//! `lingerd watch` that loses its place to another one, or finds no room for the closes it watches.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::exercise::OrphanLimit;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::{MAX_WATCHED, Plan};
use nix::sys::signal::Signal;

use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::Scenario;
use crate::watch::missed;
use crate::watching::{Watching, closes};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("watch_of_many_orphans", many_orphans).once(),
    Scenario::daemon("watch_replaced", replaced).once(),
];

/// Closes whose orphans are more than can be watched at a time are missed, and counted as such.
fn many_orphans(lingerd: &Path, plan: Plan) -> Result<()> {
    const CLOSES: u32 = MAX_WATCHED + 100;
    /// Limit of the closes of the rest of the host while there is no room. They are counted as missed as well: whether
    /// they are wanted is not known.
    const OF_OTHERS: u64 = 64;
    let limit = OrphanLimit::open()?;
    limit.allow(2 * CLOSES)?;
    netns::in_own(|| {
        fs::write("/proc/sys/net/core/somaxconn", CLOSES.to_string())?;
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
        // On a slow machine the first would be given up before the last is made.
        fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "15")?;
        let loopback = Loopback::new()?;
        tcp::drop_data(loopback.listener())?;
        // They are not accepted: that would take too many descriptors.
        loopback.listener().listen(CLOSES.try_into()?)?;
        let port = tcp::port(loopback.listener())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let port = port.to_string();
        let watching = Watching::start(lingerd, &["--plan", plan.name(), "--port", &port])?;
        for _ in 0..CLOSES {
            let client = loopback.socket()?;
            client.connect(&address)?;
            tcp::send(&client, 1)?;
            tcp::close(client)?;
        }
        watching.signal(Signal::SIGINT)?;
        let (status, told, errors) = watching.end()?;
        ensure!(status.success(), "{status}: {errors}");
        let told = closes(&told).count() as u64;
        let missed = missed(&errors).context("it does not say what it missed")?;
        let all = u64::from(CLOSES)..=u64::from(CLOSES) + OF_OTHERS;
        ensure!(
            missed > 0 && all.contains(&(told + missed)),
            "{told} told and {missed} missed of {CLOSES}: {errors}"
        );
        Ok(())
    })
}

/// A watch that was stopped for longer than its lease, while another took its place, ends with a message and leaves the
/// other alone.
fn replaced(lingerd: &Path, plan: Plan) -> Result<()> {
    /// A multiple of the lease.
    const STOPPED: Duration = Duration::from_secs(15);
    netns::in_own(|| {
        let pinned = Pinned::new()?;
        let daemon = pinned.start(lingerd, plan, &[])?;
        let path = pinned.path();
        let path = path.to_str().context("a path of text")?;
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let start = || Watching::start(lingerd, &["--pins", path, "--port", &port]);
        let mut stopped = start()?;
        stopped.signal(Signal::SIGSTOP)?;
        thread::sleep(STOPPED);
        let mut other = start()?;
        stopped.signal(Signal::SIGCONT)?;
        stopped.expect_end()?;
        let (status, _, errors) = stopped.end()?;
        ensure!(
            !status.success() && errors.contains("took its place"),
            "{status}: {errors}"
        );
        for _ in 0..5 {
            let pair = loopback.pair()?;
            tcp::close(pair.client)?;
            tcp::close(pair.server)?;
        }
        other.expect(|told| {
            let found = closes(told).count();
            ensure!(found == 10, "{found} closes told of 5 pairs");
            Ok(())
        })?;
        other.signal(Signal::SIGINT)?;
        let (status, _, errors) = other.end()?;
        ensure!(
            status.success() && !errors.contains("suspended"),
            "{status}: {errors}"
        );
        daemon.stop()
    })
}
