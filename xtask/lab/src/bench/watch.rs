//! The cost of a running `lingerd watch`.

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

/// A filter by a name that no process has.
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
        "`lingerd watch` beside a lingerd that keeps its programs in the kernel: printing every close to \
         /dev/null, and printing none, because it filters by a name that no process has. Microseconds added to a \
         close, of which each connection has two; medians of {} rounds, with the middle half of the rounds in \
         brackets.",
        extent.few_rounds
    );
    let table = closes::added_table("watch", &ways, &loads, report);
    report.page("Watching", &text, &table);
    Ok(())
}

/// A daemon, with a `lingerd watch` beside it.
pub(super) struct Watched {
    watch: Process,
    /// Whether `lingerd watch` shows closes.
    shows: bool,
    daemon: Daemon,
    _bpffs: BpfFs,
}

impl Watched {
    /// Starts both, and waits until they are attached.
    pub(super) fn start(lingerd: &Path, plan: &str, options: &[&str]) -> Result<Self> {
        let bpffs = BpfFs::mount()?;
        let pins = bpffs.pins();
        let pins = pins.to_str().context("a path of text")?;
        let daemon = Daemon::start(lingerd, &["--plan", plan, "--persist", "--pins", pins])?;
        let mut watch = Process::start(
            command(lingerd)
                .args(["watch", "--pins", pins])
                .args(options)
                .stdout(Stdio::null())
                .stderr(File::create(error_output())?),
        )?;
        settle(&mut watch).context("lingerd watch")?;
        Ok(Self {
            watch,
            shows: options.is_empty(),
            daemon,
            _bpffs: bpffs,
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
        let errors = fs::read_to_string(error_output())?;
        fs::remove_file(error_output())?;
        if errors.contains("lingerd: 0 closes shown") == both.shows {
            bail!("lingerd watch was not told what it asked for: {errors}");
        }
        Ok(())
    }
}

/// Returns the file to which `lingerd watch` writes its number of closes.
fn error_output() -> PathBuf {
    root().join("target/bench-watch.err")
}

/// A separate BPF file system for the pins of a daemon, which vanish with it.
struct BpfFs(PathBuf);

impl BpfFs {
    fn mount() -> Result<Self> {
        let folder = root().join("target/bench-bpffs");
        fs::create_dir_all(&folder)?;
        // A killed run leaves a mount, which would keep its programs attached for ever.
        while umount2(&folder, MntFlags::MNT_DETACH).is_ok() {}
        let none: Option<&str> = None;
        mount(none, &folder, Some("bpf"), MsFlags::empty(), none).context("mount bpf")?;
        Ok(Self(folder))
    }

    fn pins(&self) -> PathBuf {
        self.0.join("lingerd")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}
