//! Kretprobes with room for many threads inside the function.
//!
//! The kernel keeps a bounded number of places for returns that are due, by default twice the CPUs:
//! a few threads blocked in close would take them all, and every other close on the host would lose
//! its return. Only probes made through tracefs can ask for more, so these are made there, and the
//! program is put on the event like on any tracepoint.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use perf_event_open_sys as perf;
use tracing::{debug, warn};

use crate::sys;

/// Threads that may be inside the function at once; the kernel's maximum (`KRETPROBE_MAXACTIVE_MAX`).
const MAX_ACTIVE: u32 = 4096;

/// The file in tracefs where kprobes are defined.
const EVENTS: &str = "kprobe_events";

/// Where tracefs may be mounted.
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A program on the return of a function. Dropping it detaches the program and removes the probe.
#[derive(Debug)]
pub(super) struct Kretprobe {
    /// Keeps the program attached; closed before the definition is removed.
    event: Option<OwnedFd>,
    definition: Definition,
    /// It stays when this is dropped.
    is_kept: bool,
}

impl Kretprobe {
    /// Puts a loaded program on the return of a kernel function.
    pub(super) fn attach(program: BorrowedFd<'_>, name: &str, function: &str) -> io::Result<Self> {
        let (mut kretprobe, event) = Self::define(name, function)?;
        // SAFETY: both are open; the request takes a program's descriptor.
        check(unsafe {
            perf::ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd().cast_unsigned())
        })?;
        enable(&event)?;
        kretprobe.event = Some(event);
        Ok(kretprobe)
    }

    /// As [`Kretprobe::attach`], by a link that can be pinned. Once that is gone, [`forget`] removes the
    /// probe.
    pub(super) fn link(program: BorrowedFd<'_>, name: &str, function: &str) -> io::Result<OwnedFd> {
        let (mut kretprobe, event) = Self::define(name, function)?;
        let link = sys::link_to_event(&program, &event)?;
        enable(&event)?;
        // The link keeps the event, and that the definition.
        kretprobe.is_kept = true;
        Ok(link)
    }

    /// Makes a probe, and opens its event.
    fn define(name: &str, function: &str) -> io::Result<(Self, OwnedFd)> {
        let tracefs = tracefs().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no kprobe_events in tracefs: if it is not mounted, \
                 mount -t tracefs tracefs /sys/kernel/tracing",
            )
        })?;
        let definition = Definition::new(&tracefs, name, function)?;
        let flags = perf::bindings::PERF_FLAG_FD_CLOEXEC.into();
        let tracepoint = perf::bindings::PERF_TYPE_TRACEPOINT;
        let event = sys::open_event(tracepoint, definition.id(&tracefs)?, flags)?;
        let kretprobe = Self {
            event: None,
            definition,
            is_kept: false,
        };
        Ok((kretprobe, event))
    }
}

fn tracefs() -> Option<PathBuf> {
    let mut places = TRACEFS.into_iter().map(PathBuf::from);
    places.find(|path| path.join(EVENTS).exists())
}

/// Removes the probes of every lingerd that no longer runs, and of the one with this process id; those in
/// use stay. Returns whether none of the latter is left.
pub(super) fn forget(pid: Option<u32>) -> bool {
    let Some(path) = tracefs().map(|tracefs| tracefs.join(EVENTS)) else {
        return true;
    };
    let Ok(definitions) = fs::read_to_string(&path) else {
        return true;
    };
    let mut is_clear = true;
    for (owner, event) in events(&definitions) {
        let is_asked_for = Some(owner) == pid;
        if !is_asked_for && is_running(owner) {
            continue;
        }
        debug!("removing the kretprobe {event}");
        // Opened to append: to truncate it would remove the probes of others.
        let file = OpenOptions::new().append(true).open(&path);
        let removed = file.and_then(|mut file| file.write_all(format!("-:{event}\n").as_bytes()));
        is_clear &= removed.is_ok() || !is_asked_for;
    }
    is_clear
}

impl Drop for Kretprobe {
    fn drop(&mut self) {
        // An event in use cannot be removed.
        self.event = None;
        if self.is_kept {
            return;
        }
        if let Err(error) = self.definition.remove() {
            warn!(
                "cannot remove the kretprobe {}: {error}",
                self.definition.event
            );
        }
    }
}

/// The line in `kprobe_events` that makes a probe.
#[derive(Debug)]
struct Definition {
    /// Open from the start: later the privileges to open it are gone.
    file: File,
    /// The event, as `group/name`.
    event: String,
}

impl Definition {
    fn new(tracefs: &Path, name: &str, function: &str) -> io::Result<Self> {
        let path = tracefs.join(EVENTS);
        // Opened to append: to truncate it would remove the probes of others.
        let mut file = OpenOptions::new().append(true).open(&path)?;
        forget(None);
        let event = format!("{}{}/{name}", GROUP, process::id());
        file.write_all(format!("r{MAX_ACTIVE}:{event} {function}\n").as_bytes())?;
        Ok(Self { file, event })
    }

    /// The number that stands for the event.
    fn id(&self, tracefs: &Path) -> io::Result<u64> {
        let text = fs::read_to_string(tracefs.join("events").join(&self.event).join("id"))?;
        text.trim()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn remove(&mut self) -> io::Result<()> {
        self.file
            .write_all(format!("-:{}\n", self.event).as_bytes())
    }
}

/// What the names of our event groups begin with; the process id follows.
const GROUP: &str = "lingerd_";

/// The events in `kprobe_events` that a lingerd defined, with its process id.
fn events(definitions: &str) -> impl Iterator<Item = (u32, &str)> {
    definitions.lines().filter_map(|line| {
        let (_, event) = line.split(' ').next()?.split_once(':')?;
        let (pid, _) = event.strip_prefix(GROUP)?.split_once('/')?;
        Some((pid.parse().ok()?, event))
    })
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn enable(event: &OwnedFd) -> io::Result<()> {
    // SAFETY: it is open; the request takes no argument.
    check(unsafe { perf::ioctls::ENABLE(event.as_raw_fd(), 0) })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_of_a_lingerd_are_ours() {
        let own = process::id();
        let definitions = format!(
            "r4096:lingerd_{own}/kretprobe_tcp_close tcp_close\n\
             r4096:lingerd_4194999/kretprobe_tcp_close tcp_close\n\
             p:kprobes/lingerd_4194999 tcp_close\n\
             r16:other/kretprobe_tcp_close tcp_close\n\
             garbage\n"
        );
        let owners: Vec<_> = events(&definitions).map(|(owner, _)| owner).collect();
        assert_eq!(owners, [own, 4_194_999]);
        assert!(is_running(own) && !is_running(4_194_999));
    }
}
