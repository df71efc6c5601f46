//! The executable that a close is counted for, whatever has become of process and file.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

use crate::born::Cgroup;
use crate::closer::{Closer, Way};
use crate::closes::{self, Closes};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("exe_at_exit", at_exit).once(),
    Scenario::daemon("exe_deleted_or_replaced", deleted).once(),
    Scenario::daemon("exe_mounted", mounted).once(),
    Scenario::daemon("exe_memfd", memfd).once(),
];

/// A daemon that distinguishes executables, and processes that run copies of this program.
struct Copies {
    daemon: Daemon,
    cgroup: Cgroup,
    folder: TempDir,
    /// Name of the processes.
    name: String,
    expected: Closes,
}

impl Copies {
    /// Does the work with its own daemon and network namespace, then compares the counts.
    fn with(
        lingerd: &Path,
        plan: Plan,
        work: impl FnOnce(&mut Self) -> io::Result<()> + Send,
    ) -> Result<()> {
        let name = format!("{:x}-exe", process::id());
        let options = ["--labels", "unit,comm,exe", "--allow-comm", &name];
        let mut copies = Self {
            daemon: Daemon::start(lingerd, plan, &options)?,
            cgroup: Cgroup::new("exe.service")?,
            folder: tempfile::tempdir()?,
            name,
            expected: Closes::new(),
        };
        netns::in_own(|| Ok(work(&mut copies)?))?;
        let Self {
            daemon,
            cgroup,
            name,
            expected,
            ..
        } = copies;
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["exe", "unit", "outcome"], |sample| {
                sample.label("comm") == name
            })
        })?;
        cgroup.remove()?;
        daemon.stop()
    }

    /// Makes a copy of this program with this name.
    fn copy(&self, name: &str) -> io::Result<PathBuf> {
        copy_to(self.folder.path().join(name))
    }

    fn start(&self, file: &Path, way: Way) -> io::Result<Closer> {
        Closer::start(file, &self.name, way, &self.cgroup.processes())
    }

    /// States that a closer counts for this path.
    fn expect(&mut self, path: &str) {
        for outcome in ["graceful", "linger_aborted"] {
            let unit = self.cgroup.unit();
            let labels = [path, unit, outcome].map(str::to_owned);
            *self.expected.entry(labels.into()).or_default() += 1;
        }
    }

    /// Runs a file, whose closes count for this path.
    fn run(&mut self, file: &Path, way: Way, path: &str) -> io::Result<()> {
        self.start(file, way)?.end()?;
        self.expect(path);
        Ok(())
    }
}

fn copy_to(path: PathBuf) -> io::Result<PathBuf> {
    fs::copy(env::current_exe()?, &path)?;
    Ok(path)
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::Error::other("a path that is no text"))
}

/// Sockets that a process leaves open are closed after it has released its executable.
fn at_exit(lingerd: &Path, plan: Plan) -> Result<()> {
    /// Which of the threads closes is a matter of chance.
    const TIMES: usize = 20;
    Copies::with(lingerd, plan, |copies| {
        let ways = [
            ("exits", Way::Exit, 1),
            ("killed", Way::Wait, 1),
            ("threads", Way::ExitWithThreads, TIMES),
        ];
        for (name, way, times) in ways {
            let file = copies.copy(name)?;
            for _ in 0..times {
                copies.run(&file, way, text(&file)?)?;
            }
        }
        Ok(())
    })
}

/// A deleted file keeps its name, and the old and the new version of a program share one.
fn deleted(lingerd: &Path, plan: Plan) -> Result<()> {
    Copies::with(lingerd, plan, |copies| {
        let file = copies.copy("deleted")?;
        // While it is open, its inode number is not reused.
        let _open = File::open(&file)?;
        let closer = copies.start(&file, Way::Exit)?;
        fs::remove_file(&file)?;
        closer.end()?;
        copies.expect(text(&file)?);

        let file = copies.copy("replaced")?;
        let closer = copies.start(&file, Way::Exit)?;
        fs::rename(copies.copy("new")?, &file)?;
        copies.run(&file, Way::Exit, text(&file)?)?;
        closer.end()?;
        copies.expect(text(&file)?);
        Ok(())
    })
}

/// A path goes through the mounts of the process's own namespace.
fn mounted(lingerd: &Path, plan: Plan) -> Result<()> {
    Copies::with(lingerd, plan, |copies| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let folder = copies.folder.path().join("mounted");
        fs::create_dir(&folder)?;
        mount(none, &folder, Some("tmpfs"), MsFlags::empty(), none)?;
        let inner = folder.join("deep/deeper");
        fs::create_dir_all(&inner)?;
        let file = copy_to(inner.join("in-tmpfs"))?;
        copies.run(&file, Way::Exit, text(&file)?)?;

        // A directory of the tmpfs, mounted at another path.
        let bound = copies.folder.path().join("bound");
        fs::create_dir(&bound)?;
        mount(Some(&inner), &bound, none, MsFlags::MS_BIND, none)?;
        copy_to(inner.join("in-bound"))?;
        let file = bound.join("in-bound");
        copies.run(&file, Way::Exit, text(&file)?)?;

        // One file over another.
        let source = copies.copy("source")?;
        let file = copies.copy("over")?;
        mount(Some(&source), &file, none, MsFlags::MS_BIND, none)?;
        copies.run(&file, Way::Exit, text(&file)?)?;
        umount(&file)?;
        umount(&bound)?;
        umount(&folder)?;
        Ok(())
    })
}

/// A memfd has a name but no path.
fn memfd(lingerd: &Path, plan: Plan) -> Result<()> {
    Copies::with(lingerd, plan, |copies| {
        // Stays open until exec(2), which finds it by its number.
        let file = memfd_create(c"runs", MFdFlags::empty())?;
        let program = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
        fs::copy(env::current_exe()?, &program)?;
        copies.run(Path::new(&program), Way::Exit, "/memfd:runs")
    })
    .context("a memfd")
}
