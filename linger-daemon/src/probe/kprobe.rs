//! Kprobes and kretprobes, made through tracefs.
//!
//! The kernel keeps a bounded number of places for returns that are due, by default twice the CPUs:
//! a few threads blocked in close would take them all, and every other close on the host would lose
//! its return. Only probes made through tracefs can ask for more, and only of these it tells how many
//! hits it missed. So they are made there, and the program is put on the event like on any tracepoint.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use perf_event_open_sys as perf;
use tracing::{debug, warn};

use super::hooks::{Hook, Point};
use crate::sys;

/// Threads that may be inside the function at once; the kernel's maximum (`KRETPROBE_MAXACTIVE_MAX`).
const MAX_ACTIVE: u32 = 4096;

/// The file in tracefs where kprobes are defined.
const EVENTS: &str = "kprobe_events";

/// The file in tracefs that tells how often each was hit, and missed.
const PROFILE: &str = "kprobe_profile";

/// Where tracefs may be mounted.
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A program on a function or its return. Dropping it detaches the program and removes the probe.
#[derive(Debug)]
pub(super) struct Kprobe {
    /// Keeps the program attached; closed before the definition is removed.
    event: Option<OwnedFd>,
    definition: Definition,
    /// It stays when this is dropped.
    is_kept: bool,
}

impl Kprobe {
    /// Puts a loaded program on its hook.
    pub(super) fn attach(program: BorrowedFd<'_>, hook: Hook) -> io::Result<Self> {
        let (mut kprobe, event) = Self::define(hook)?;
        // SAFETY: both are open; the request takes a program's descriptor.
        check(unsafe {
            perf::ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd().cast_unsigned())
        })?;
        enable(&event)?;
        kprobe.event = Some(event);
        Ok(kprobe)
    }

    /// As [`Kprobe::attach`], by a link that can be pinned. Once that is gone, [`forget`] removes the
    /// probe.
    pub(super) fn link(program: BorrowedFd<'_>, hook: Hook) -> io::Result<OwnedFd> {
        let (mut kprobe, event) = Self::define(hook)?;
        let link = sys::link_to_event(&program, &event)?;
        enable(&event)?;
        // The link keeps the event, and that the definition.
        kprobe.is_kept = true;
        Ok(link)
    }

    /// Makes a probe, and opens its event.
    fn define(hook: Hook) -> io::Result<(Self, OwnedFd)> {
        let tracefs = tracefs().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no kprobe_events in tracefs: if it is not mounted, \
                 mount -t tracefs tracefs /sys/kernel/tracing",
            )
        })?;
        let definition = Definition::new(&tracefs, hook)?;
        let flags = perf::bindings::PERF_FLAG_FD_CLOEXEC.into();
        let tracepoint = perf::bindings::PERF_TYPE_TRACEPOINT;
        let event = sys::open_event(tracepoint, definition.id(&tracefs)?, flags)?;
        let kprobe = Self {
            event: None,
            definition,
            is_kept: false,
        };
        Ok((kprobe, event))
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
        debug!("removing the kprobe {event}");
        // Opened to append: to truncate it would remove the probes of others.
        let file = OpenOptions::new().append(true).open(&path);
        let removed = file.and_then(|mut file| file.write_all(format!("-:{event}\n").as_bytes()));
        is_clear &= removed.is_ok() || !is_asked_for;
    }
    is_clear
}

impl Drop for Kprobe {
    fn drop(&mut self) {
        // An event in use cannot be removed.
        self.event = None;
        if self.is_kept {
            return;
        }
        if let Err(error) = self.definition.remove() {
            warn!(
                "cannot remove the kprobe {}: {error}",
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
    fn new(tracefs: &Path, hook: Hook) -> io::Result<Self> {
        let (kind, function) = match hook.point {
            Point::Kprobe(function) => ("p".to_owned(), function),
            Point::Kretprobe(function) => (format!("r{MAX_ACTIVE}"), function),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let path = tracefs.join(EVENTS);
        // Opened to append: to truncate it would remove the probes of others.
        let mut file = OpenOptions::new().append(true).open(&path)?;
        forget(None);
        let pid = process::id();
        let event = format!("{GROUP}{pid}/{}{}", hook.program, ending(pid));
        file.write_all(format!("{kind}:{event} {function}\n").as_bytes())?;
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

/// How the names of the events of the lingerd with this process id end: `kprobe_profile` has no groups.
fn ending(pid: u32) -> String {
    format!("_{pid}")
}

/// How often the kernel hit the kprobes of a lingerd and did not run them.
pub(super) struct Profile {
    /// Open from the start, as [`Definition::file`] is.
    file: File,
    pid: u32,
}

impl Profile {
    /// Of the lingerd with this process id.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let tracefs = tracefs().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            file: File::open(tracefs.join(PROFILE))?,
            pid,
        })
    }

    /// By program, the hits that were missed: another kprobe was at work on the CPU, or of a return, all
    /// places were taken.
    ///
    /// kernel: v2.6.33.. `kernel/trace/trace_kprobe.c`: `probes_profile_seq_show`
    pub(super) fn missed(&self) -> io::Result<HashMap<String, u64>> {
        let mut text = String::new();
        let mut file = &self.file;
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(missed(&text, self.pid))
    }
}

/// What `kprobe_profile` says of a lingerd: a line has the event, its hits, and those that were missed.
fn missed(profile: &str, pid: u32) -> HashMap<String, u64> {
    let ending = ending(pid);
    let lines = profile.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (event, _, missed) = (words.next()?, words.next()?, words.next()?);
        let program = event.strip_suffix(&ending)?;
        Some((program.to_owned(), missed.parse().ok()?))
    });
    lines.collect()
}

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
    fn misses_are_of_one_lingerd() {
        let profile = "  kprobe_inner_close_7       12      3\n  \
                       kprobe_inner_close_77      12      4\n  \
                       another                    12      5\n\
                       garbage\n";
        let ours = HashMap::from([("kprobe_inner_close".to_owned(), 3)]);
        assert_eq!(missed(profile, 7), ours);
    }

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
