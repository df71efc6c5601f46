//! What it costs to have `lingerd watch` running.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use linger_xtask::shell::{command, root};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::Extent;
use super::closes::{self, churn_loads};
use super::daemon::Daemon;
use super::process::Process;
use super::report::Report;
use super::rounds;
use super::tool::settle;
use super::ways::{Watcher, Way};

/// A name that no process has.
const NOTHING: &[&str] = &["--comm", "no-such-name"];

/// Measures in rounds, and reports what watching adds to a close.
pub(super) fn run(lingerd: &Path, plan: &str, extent: Extent, report: &mut Report) -> Result<()> {
    let name = |what| format!("lingerd, {plan}{what}");
    let ways = [
        Way::bare(),
        Way::lingerd(name(""), lingerd, plan, &[]),
        Way::watched(name(", watch of nothing"), lingerd, plan, NOTHING),
        Way::watched(name(", watch of all"), lingerd, plan, &[]),
    ];
    let loads = churn_loads(extent);
    let rounds = rounds::measure("watch", &ways, &loads, extent.few_rounds, report)?;
    closes::report_added("watch", &ways, &loads, &rounds, report);
    let text = format!(
        "`lingerd watch` beside a lingerd that keeps its programs in the kernel, told of all closes, with its \
         output to /dev/null, and of none, by a name that no process has. Microseconds added to a close, \
         of which each connection has two; medians of {} rounds, and what the middle half of them lies \
         between.",
        extent.few_rounds
    );
    let table = closes::added_table("watch", &ways, &loads, report);
    report.page("Watching", &text, &table);
    Ok(())
}

/// A daemon, and a `lingerd watch` beside it.
pub(super) struct Watched {
    watch: Process,
    /// Whether some closes are shown.
    shows: bool,
    daemon: Daemon,
    _kept: Kept,
}

impl Watched {
    /// Starts both, and waits until they watch.
    pub(super) fn start(lingerd: &Path, plan: &str, asked: &[&str]) -> Result<Self> {
        let kept = Kept::mount()?;
        let pins = kept.pins();
        let pins = pins.to_str().context("a path of text")?;
        let daemon = Daemon::start(lingerd, &["--plan", plan, "--persist", "--pins", pins])?;
        let mut watch = Process::start(
            command(lingerd)
                .args(["watch", "--pins", pins])
                .args(asked)
                .stdout(Stdio::null())
                .stderr(File::create(says())?),
        )?;
        settle(&mut watch).context("lingerd watch")?;
        Ok(Self {
            watch,
            shows: asked.is_empty(),
            daemon,
            _kept: kept,
        })
    }
}

impl Watcher for Watched {
    fn cpu_time(&mut self) -> Result<Duration> {
        Ok(self.watch.cpu_time()? + self.daemon.cpu_time()?)
    }

    fn check(&mut self, connections: u64, orphans: u64) -> Result<()> {
        self.daemon.check(connections, orphans)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let mut both = *self;
        both.watch
            .end(Signal::SIGINT)
            .context("end lingerd watch")?;
        both.daemon.stop()?;
        let said = fs::read_to_string(says())?;
        fs::remove_file(says())?;
        if said.contains("lingerd: 0 closes told") == both.shows {
            bail!("lingerd watch was not told what it asked for: {said}");
        }
        Ok(())
    }
}

/// Where `lingerd watch` says how many closes it was told of.
fn says() -> PathBuf {
    root().join("target/bench-watch.err")
}

/// A BPF file system of its own, in which a daemon keeps its programs; they go with it.
struct Kept(PathBuf);

impl Kept {
    fn mount() -> Result<Self> {
        let folder = root().join("target/bench-bpffs");
        fs::create_dir_all(&folder)?;
        // What a run left that was ended from outside: its programs would be attached for ever.
        while umount2(&folder, MntFlags::MNT_DETACH).is_ok() {}
        let none: Option<&str> = None;
        mount(none, &folder, Some("bpf"), MsFlags::empty(), none).context("mount bpf")?;
        Ok(Self(folder))
    }

    fn pins(&self) -> PathBuf {
        self.0.join("lingerd")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}
