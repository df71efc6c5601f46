//! SIGHUP: settings that a running daemon takes over from its file, and those that it does not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::config::DEFAULT_PATH;
use linger_daemon::exercise::tcp::{Loopback, Pair};
use linger_daemon::exercise::{self, tcp};
use linger_ebpf::{Fate, Plan};
use linger_testkit::exposition::Scrape;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::daemon::{Daemon, wait_until};
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("reload", reload).once()];

/// A daemon, and its configuration file.
struct Configured {
    daemon: Daemon,
    file: NamedTempFile,
}

impl Configured {
    fn start(lingerd: &Path, plan: Plan, text: &str) -> Result<Self> {
        let file = NamedTempFile::new()?;
        fs::write(&file, text)?;
        let path = file.path().to_str().context("a path of text")?;
        let daemon = Daemon::start(lingerd, plan, &["--config", path])?;
        Ok(Self { daemon, file })
    }

    /// Reloads the daemon with this configuration.
    fn reload(&self, text: &str) -> Result<()> {
        fs::write(&self.file, text)?;
        self.daemon.signal(Signal::SIGHUP)
    }
}

/// Returns whether an orphan of this process was given up.
fn is_given_up(scrape: &Scrape) -> Result<bool> {
    let comm = fs::read_to_string("/proc/thread-self/comm")?;
    Ok(scrape.of("linger_orphans_total").any(|sample| {
        sample.label("comm") == comm.trim_end()
            && sample.label("fate") == Fate::Unknown.name()
            && sample.value > 0.0
    }))
}

/// Returns the number of groups that fit.
fn group_capacity(scrape: &Scrape) -> Option<f64> {
    let mut rooms = scrape.of("linger_map_capacity");
    let groups = rooms.find(|sample| sample.label("map") == "groups");
    groups.map(|sample| sample.value)
}

fn reload(lingerd: &Path, plan: Plan) -> Result<()> {
    const PATIENT: &str = "orphan-ttl = \"1h\"\n";
    const HASTY: &str = "orphan-ttl = \"1s\"\nmax-groups = 10\n";
    let configured = Configured::start(lingerd, plan, PATIENT)?;
    let daemon = &configured.daemon;
    let capacity = group_capacity(&daemon.scrape()?);
    ensure!(capacity.is_some(), "there is no capacity of groups");
    let loopback = Loopback::new()?;
    let Pair { client, server } = exercise::pair_with_unacked(&loopback)?;
    tcp::close(client)?;

    // A mistake changes nothing.
    configured.reload("orphan-ttl = \"soon\"\nretire-after = \"1m\"\n")?;
    let place = format!("{}:1: orphan-ttl: ", configured.file.path().display());
    daemon.wait_for_log(&place, 1)?;
    daemon.wait_for_log("the settings stay as they are", 1)?;
    ensure!(
        !daemon.errors().contains("retire-after"),
        "it took over a part of a file with a mistake"
    );

    // By the new setting, the orphan has had its time; the map stays as it is.
    ensure!(!is_given_up(&daemon.scrape()?)?, "given up at once");
    configured.reload(HASTY)?;
    daemon.wait_for_log("orphan-ttl: \"1h\" -> \"1s\"", 1)?;
    daemon.wait_for_log("-> 10 needs a restart", 1)?;
    wait_until("the orphan to be given up", || {
        is_given_up(&daemon.scrape()?)
    })?;
    ensure!(
        group_capacity(&daemon.scrape()?) == capacity,
        "the capacity of groups changed"
    );

    // At level `error`, changes are not logged until the level is back at `info`.
    configured.reload(&format!("{HASTY}log-level = \"error\"\n"))?;
    daemon.wait_for_log("log-level: \"info\" -> \"error\"", 1)?;
    configured.reload(HASTY)?;
    daemon.wait_for_log("SIGHUP: read", 2)?;
    configured.reload(&format!("{HASTY}retire-after = \"7m\"\n"))?;
    daemon.wait_for_log("retire-after: \"15m\" -> \"7m\"", 1)?;
    ensure!(
        !daemon.errors().contains("\"error\" -> \"info\""),
        "the level did not change"
    );
    drop(server);
    configured.daemon.stop()?;

    let without_file = Daemon::start_keeping(lingerd, plan, &[])?;
    without_file.signal(Signal::SIGHUP)?;
    without_file.wait_for_log(&format!("SIGHUP: there is no {DEFAULT_PATH}"), 1)?;
    without_file.stop()
}
