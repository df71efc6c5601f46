//! A container that is killed and starts again: its daemon has process ID 1 again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use linger_ebpf::Plan;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::closes::whole;
use crate::daemon::{Daemon, wait_until};
use crate::persist::probes;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("container_restarted", restarted).by_plan_only()];

/// The kernel gives the inode number of a PID namespace that is gone to the next one: both daemons have the same
/// numbers. The remains of the killed one must not hinder the next, and what a third one uses must stay.
fn restarted(lingerd: &Path, plan: Plan) -> Result<()> {
    let beside = Daemon::start(lingerd, plan, &[])?;
    let mut first = in_container(lingerd, plan)?;
    first.wait_until_ready()?;
    let namespace = pid_namespace(first.id())?;
    first.kill()?;
    let left = || anyhow::Ok(probes()?.matches(&format!("lingerd_{namespace}_1")).count());
    if plan == Plan::Kprobe {
        ensure!(left()? > 0, "it left nothing");
    }
    let mut second = None;
    wait_until("a PID namespace with the same number", || {
        let daemon = in_container(lingerd, plan)?;
        let is_same = pid_namespace(daemon.id())? == namespace;
        second = is_same.then_some(daemon);
        Ok(is_same)
    })?;
    let mut second = second.context("a daemon")?;
    second.wait_until_ready()?;
    for daemon in [&second, &beside] {
        let scrape = daemon.scrape()?;
        let hooks: Vec<_> = scrape.of("linger_probe_attached").collect();
        let attached = hooks.iter().all(|hook| whole(hook.value) == 1);
        ensure!(attached && !hooks.is_empty(), "not attached: {hooks:?}");
    }
    second.stop()?;
    ensure!(left()? == 0, "left: {}", probes()?);
    beside.stop()
}

/// Starts the daemon as the first process of a PID namespace, with its own `/proc`.
fn in_container(lingerd: &Path, plan: Plan) -> Result<Daemon> {
    const NONE: Option<&str> = None;
    let mount_proc = || {
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(NONE, "/proc", Some("proc"), MsFlags::empty(), NONE)?;
        Ok(())
    };
    Daemon::spawn_by(lingerd, plan, &[], |command| {
        // SAFETY: `mount_proc` only makes system calls.
        unsafe { command.pre_exec(mount_proc) };
        // In a thread of its own, whose next child is the first process of the namespace.
        let start = || {
            unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
            command.spawn()
        };
        let started = thread::scope(|scope| scope.spawn(start).join());
        started.map_err(|_| io::Error::other("the thread panicked"))?
    })
}

fn pid_namespace(process: u32) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{process}/ns/pid"))?.ino())
}
