//! Processes without a group of their own: by the lists of the configuration, and for lack of series.
//!
//! The closers are the daemon's binary under other names, whose `exercise` makes a known number of closes. Where the
//! configuration excludes others as well, it may exclude the rest of the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::attribution;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::{MAX_COMMS, Plan};
use linger_testkit::exposition::{Sample, Scrape};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::closes::{is_other, sum};
use crate::daemon::{Daemon, MAINTENANCE};
use crate::scenario::Scenario;
use crate::service::Slice;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("left_out_by_comm", by_comm).once(),
    Scenario::daemon("left_out_by_unit", by_unit).once(),
    Scenario::daemon("left_out_by_port", by_port).once(),
    Scenario::daemon("left_out_for_want_of_series", by_series).once(),
];

const CLOSES: &str = "linger_closes_total";

/// A program that closes, with its own name.
struct Closer {
    comm: String,
    program: PathBuf,
}

/// Symbolic links to the binary, removed when dropped.
struct Closers {
    lingerd: PathBuf,
    folder: TempDir,
}

impl Closers {
    fn new(lingerd: &Path) -> Result<Self> {
        Ok(Self {
            lingerd: fs::canonicalize(lingerd)?,
            folder: TempDir::new()?,
        })
    }

    /// Returns a closer whose name is unique to this run; `name` is at most 7 bytes.
    fn named(&self, name: &str) -> Result<Closer> {
        let comm = format!("{name}.{:x}", std::process::id());
        let program = self.folder.path().join(&comm);
        if !program.exists() {
            symlink(&self.lingerd, &program)?;
        }
        Ok(Closer { comm, program })
    }
}

impl Closer {
    /// Has it abort `count` connections with a linger time of zero, in this cgroup if any.
    fn close(&self, count: u64, cgroup: Option<&Path>) -> Result<()> {
        let enter = r#"if [ -n "$0" ]; then echo $$ > "$0/cgroup.procs"; fi && exec "$@""#;
        let status = Command::new("sh")
            .args(["-c", enter])
            .arg(cgroup.unwrap_or(Path::new("")))
            .arg(&self.program)
            .args(["exercise", "--kind", "linger_aborted", "--count"])
            .arg(count.to_string())
            .stdout(Stdio::null())
            // Its progress, if that is a terminal.
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "{} ended: {status}", self.comm);
        Ok(())
    }
}

/// Returns the connections aborted by the selected groups.
fn aborted(scrape: &Scrape, select: impl Fn(&Sample) -> bool) -> u64 {
    sum(scrape, CLOSES, |sample| {
        sample.label("outcome") == "linger_aborted" && select(sample)
    })
}

fn other(scrape: &Scrape) -> u64 {
    aborted(scrape, is_other)
}

fn of(scrape: &Scrape, comm: &str) -> u64 {
    aborted(scrape, |sample| sample.label("comm") == comm)
}

/// Fails unless `others` aborts are under `other`, and `own` under this name.
fn expect(scrape: &Scrape, others: u64, comm: &str, own: u64) -> Result<()> {
    let found = (other(scrape), of(scrape, comm));
    ensure!(
        found == (others, own),
        "counted {} under other and {} under {comm}, expected {others} and {own}",
        found.0,
        found.1
    );
    Ok(())
}

/// As [`expect`], where the rest of the host may be left out.
fn expect_with_host(scrape: &Scrape, others: u64, comm: &str, own: u64) -> Result<()> {
    let found = other(scrape);
    ensure!(found >= others, "counted {found} under other, not {others}");
    expect(scrape, found, comm, own)
}

/// Starts a daemon with a configuration file.
fn start(lingerd: &Path, plan: Plan, file: &Path, text: &str) -> Result<Daemon> {
    fs::write(file, text)?;
    let path = file.to_str().context("a path of text")?;
    Daemon::start(lingerd, plan, &["--config", path])
}

/// Reloads the daemon with this configuration, and waits until it has reloaded `times` times.
fn reload(daemon: &Daemon, file: &Path, text: &str, times: usize) -> Result<()> {
    fs::write(file, text)?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.wait_for_log("SIGHUP: read", times)
}

fn by_comm(lingerd: &Path, plan: Plan) -> Result<()> {
    let closers = Closers::new(lingerd)?;
    let (out, own) = (closers.named("out")?, closers.named("own")?);
    let file = closers.folder.path().join("config");
    let deny = format!("[deny]\ncomms = [\"{}\"]\n", out.comm);
    let daemon = start(lingerd, plan, &file, &deny)?;
    out.close(7, None)?;
    own.close(5, None)?;
    expect(&daemon.scrape()?, 7, &own.comm, 5)?;
    expect(&daemon.scrape()?, 7, &out.comm, 0)?;

    // Counts under `other` stay there. From now on the only name that is allowed counts for itself, and all others
    // under `other`.
    let allow = format!("[allow]\ncomms = [\"{}\"]\n", out.comm);
    reload(&daemon, &file, &allow, 1)?;
    out.close(3, None)?;
    expect_with_host(&daemon.scrape()?, 7 + 5, &out.comm, 3)?;
    own.close(2, None)?;
    expect_with_host(&daemon.scrape()?, 7 + 5 + 2, &out.comm, 3)?;

    // It gets back what it had counted for itself.
    reload(&daemon, &file, "", 2)?;
    own.close(1, None)?;
    expect_with_host(&daemon.scrape()?, 7 + 2, &own.comm, 5 + 1)?;

    // A full list replaces another.
    for (name, closer, times) in [("a", &out, 3), ("b", &own, 4)] {
        let names = (1..MAX_COMMS).map(|number| format!("\"{name}{number}\", "));
        let names: String = names.collect();
        let deny = format!("[deny]\ncomms = [{names}\"{}\"]\n", closer.comm);
        reload(&daemon, &file, &deny, times)?;
    }
    own.close(4, None)?;
    expect(&daemon.scrape()?, 7 + 2 + 5 + 1 + 4, &own.comm, 0)?;
    daemon.stop()
}

fn by_unit(lingerd: &Path, plan: Plan) -> Result<()> {
    let closers = Closers::new(lingerd)?;
    let closer = closers.named("unit")?;
    let unit = |name: &str| format!("{name}-{}.service", std::process::id());
    let slice = Slice::of_run(std::process::id())?;
    let root = attribution::cgroup_root()?;
    let folder = |name: &str| root.join(slice.name()).join(unit(name));
    for name in ["left", "kept"] {
        fs::create_dir_all(folder(name))?;
    }
    let file = closers.folder.path().join("config");
    let deny = "[deny]\nunits = [\"left-*.service\"]\n";
    let daemon = start(lingerd, plan, &file, deny)?;
    let kept = |scrape: &Scrape| aborted(scrape, |sample| sample.label("unit") == unit("kept"));

    // The first closes of the cgroup come before the programs know it.
    closer.close(4, Some(&folder("left")))?;
    expect(&daemon.scrape()?, 4, &closer.comm, 0)?;
    thread::sleep(MAINTENANCE);
    closer.close(2, Some(&folder("left")))?;
    closer.close(3, Some(&folder("kept")))?;
    let scrape = daemon.scrape()?;
    expect(&scrape, 6, &closer.comm, 3)?;
    ensure!(kept(&scrape) == 3, "not for the unit that is kept");

    // It gets back what was counted before the programs knew, and its later closes.
    reload(&daemon, &file, "", 1)?;
    closer.close(1, Some(&folder("left")))?;
    expect(&daemon.scrape()?, 2, &closer.comm, 4 + 1 + 3)?;
    daemon.stop()
}

fn by_port(lingerd: &Path, plan: Plan) -> Result<()> {
    let loopback = Loopback::new()?;
    let port = tcp::port(loopback.listener())?;
    let port_text = port.to_string();
    let options = [
        "--allow-port",
        &port_text,
        "--labels",
        "comm,port",
        "--ports",
        &port_text,
    ];
    let daemon = Daemon::start(lingerd, plan, &options)?;
    let before = accepted_at(&daemon.scrape()?, port);
    for _ in 0..6 {
        let pair = loopback.pair()?;
        // Only this one was accepted.
        tcp::close(pair.server)?;
        tcp::close(pair.client)?;
    }
    let scrape = daemon.scrape()?;
    let closed = accepted_at(&scrape, port) - before;
    ensure!(closed == 6, "{closed} accepted connections counted, not 6");
    let elsewhere = scrape.of("linger_closes_total").find(|sample| {
        sample.label("port") != port_text && !["other", "retired"].contains(&sample.label("comm"))
    });
    ensure!(elsewhere.is_none(), "not left out: {elsewhere:?}");
    daemon.stop()
}

/// Returns the closes of connections that were accepted at this port.
fn accepted_at(scrape: &Scrape, port: u16) -> u64 {
    sum(scrape, CLOSES, |sample| {
        sample.label("port") == port.to_string()
    })
}

fn by_series(lingerd: &Path, plan: Plan) -> Result<()> {
    /// Of these, 182 are reserved for `other` and `retired`; a closer here has between 14 and 30.
    const MOST: usize = 4096;
    const CLOSERS: u64 = 320;
    /// Closers that came long before the first was left out.
    const FIRST: usize = 20;
    let closers = Closers::new(lingerd)?;
    // As many groups as it takes for some to have slots.
    let options = ["--max-series", "4096", "--max-groups", "4096"];
    let daemon = Daemon::start(lingerd, plan, &options)?;
    let mut names: Vec<String> = Vec::new();
    let mut left_out: BTreeSet<String> = BTreeSet::new();
    for number in 1..=CLOSERS {
        let closer = closers.named(&format!("c{number}"))?;
        closer.close(2, None)?;
        names.push(closer.comm);
        let scrape = daemon.scrape()?;
        let series = scrape.0.iter();
        let series = series.filter(|sample| sample.get("comm").is_some());
        let series = series.count();
        ensure!(series <= MOST, "{series} series of groups");
        let ours = aborted(&scrape, |sample| sample.label("comm").ends_with(&suffix()));
        let all = ours + other(&scrape);
        ensure!(all >= 2 * number, "{all} aborts of {number} closers");
        // A closer that is left out stays so. The first ones stay: of those that came between two maintenances, any may
        // be left out.
        let (shown, hidden): (BTreeSet<_>, BTreeSet<_>) = names
            .iter()
            .cloned()
            .partition(|comm| of(&scrape, comm) == 2);
        ensure!(
            hidden.is_superset(&left_out)
                && names.iter().take(FIRST).all(|comm| shown.contains(comm)),
            "of {names:?} {hidden:?} are hidden, and were {left_out:?}"
        );
        left_out = hidden;
    }
    ensure!(!left_out.is_empty(), "all of {names:?} are shown");
    ensure!(
        daemon.errors().contains("see max-series"),
        "it does not say so"
    );
    daemon.stop()
}

/// Returns the suffix of the names of all closers.
fn suffix() -> String {
    format!(".{:x}", std::process::id())
}
