//! `lingerd watch` that loses its place to another one.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::exercise::tcp::{self, Family, Loopback};
use linger_ebpf::Plan;
use nix::sys::signal::Signal;

use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::{Scenario, Script};
use crate::watching::{Watching, closes};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::new("watch_replaced", Script::Daemon(replaced)).once()];

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
        let loopback = Loopback::new(Family::V4)?;
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
            status.success() && !errors.contains("held up"),
            "{status}: {errors}"
        );
        daemon.stop()
    })
}
