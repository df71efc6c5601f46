//! Kprobes and kretprobes, defined through tracefs.
//!
//! The kernel has a limited number of slots for pending returns, by default twice the number of CPUs: a few
//! threads blocked in close would take them all, and every other close on the host would lose its return.
//! Only probes defined through tracefs can ask for more slots, and only these report their missed hits. So
//! probes are defined there, and each program is attached to the probe's event as to any tracepoint.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_attach_type;
use perf_event_open_sys as perf;
use tracing::{debug, warn};

use super::hooks::{Hook, Point};
use super::owner::Owner;
use crate::sys;

/// Maximum number of threads inside the function at once; the kernel's limit (`KRETPROBE_MAXACTIVE_MAX`).
const MAX_ACTIVE: u32 = 4096;

const EVENTS: &str = "kprobe_events";

/// The file in tracefs with the number of hits and misses of each kprobe.
const PROFILE: &str = "kprobe_profile";

/// Prefix of our event groups, followed by the [`Owner`]. Event names end with the owner too, because
/// `kprobe_profile` does not show groups.
const GROUP: &str = "lingerd_";

/// Maximum number of attempts to define a probe that is removed before it is open.
const ATTEMPTS: u32 = 5;

/// Possible mount points of tracefs.
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Attaches a loaded program to its hook until the returned descriptor is closed: a link if that is to be pinned, else
/// the event itself, which the kernel releases at once. After that, dropping the definition removes the probe or, if
/// the definition is kept, [`remove_stale`] does.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    hook: Hook,
    is_pinnable: bool,
) -> io::Result<(OwnedFd, Definition)> {
    let (definition, event) = define(hook)?;
    let link = if is_pinnable {
        Some(sys::link(
            &program,
            &event,
            bpf_attach_type::BPF_PERF_EVENT,
        )?)
    } else {
        // SAFETY: both are open; the request takes a program's descriptor.
        sys::check(unsafe {
            perf::ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd().cast_unsigned())
        })?;
        None
    };
    // SAFETY: it is open; the request takes no argument.
    sys::check(unsafe { perf::ioctls::ENABLE(event.as_raw_fd(), 0) })?;
    Ok((link.unwrap_or(event), definition))
}

/// Defines a probe and opens its event. A lingerd in another pid namespace that starts at the same time may take the
/// probe for abandoned and remove it before it is open; then it is defined again.
fn define(hook: Hook) -> io::Result<(Definition, OwnedFd)> {
    let tracefs = tracefs().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no kprobe_events in tracefs: if it is not mounted, \
             mount -t tracefs tracefs /sys/kernel/tracing",
        )
    })?;
    let mut attempt = 1;
    loop {
        let definition = Definition::new(&tracefs, hook)?;
        match definition.open(&tracefs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                attempt += 1;
            }
            event => return Ok((definition, event?)),
        }
    }
}

fn tracefs() -> Option<PathBuf> {
    let mut places = TRACEFS.into_iter().map(PathBuf::from);
    places.find(|path| path.join(EVENTS).exists())
}

/// Removes the probes of every lingerd that no longer runs, and of this `owner`. Probes in use stay. Returns
/// whether none of the owner's is left.
pub(super) fn remove_stale(owner: Option<Owner>) -> bool {
    let Some(path) = tracefs().map(|tracefs| tracefs.join(EVENTS)) else {
        return true;
    };
    let Ok(definitions) = fs::read_to_string(&path) else {
        return true;
    };
    let mut is_clear = true;
    let here = Owner::here();
    for (found, event) in events(&definitions) {
        let is_asked_for = Some(found) == owner;
        if !is_asked_for && found.is_running(here) {
            continue;
        }
        debug!("removing the kprobe {event}");
        let removed = open_to_append(&path).and_then(|file| remove(&file, event));
        is_clear &= removed.is_ok() || !is_asked_for;
    }
    is_clear
}

/// Opens `kprobe_events`. Truncating it would remove the probes of others.
fn open_to_append(path: &Path) -> io::Result<File> {
    File::options().append(true).open(path)
}

/// Removes a probe, by its line in `kprobe_events`.
fn remove(mut events: &File, event: &str) -> io::Result<()> {
    events.write_all(format!("-:{event}\n").as_bytes())
}

/// The line in `kprobe_events` that defines a probe. Dropping it removes the probe, unless `is_kept`.
#[derive(Debug)]
pub(super) struct Definition {
    /// `kprobe_events`, kept open because the daemon gives up the privileges to open it.
    file: File,
    /// The event, as `group/name`.
    event: String,
    /// The probe stays when this is dropped.
    pub(super) is_kept: bool,
}

impl Drop for Definition {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.file, &self.event)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot remove the kprobe {}: {error}", self.event);
        }
    }
}

impl Definition {
    fn new(tracefs: &Path, hook: Hook) -> io::Result<Self> {
        let (kind, function) = match hook.point {
            Point::Kprobe(function) => ("p".to_owned(), function),
            Point::Kretprobe(function) => (format!("r{MAX_ACTIVE}"), function),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut file = open_to_append(&tracefs.join(EVENTS))?;
        remove_stale(None);
        let owner = Owner::here();
        let event = format!("{GROUP}{owner}/{}_{owner}", hook.program);
        file.write_all(format!("{kind}:{event} {function}\n").as_bytes())?;
        Ok(Self {
            file,
            event,
            is_kept: false,
        })
    }

    fn open(&self, tracefs: &Path) -> io::Result<OwnedFd> {
        let id = fs::read_to_string(tracefs.join("events").join(&self.event).join("id"))?;
        let id = id.trim().parse().map_err(io::Error::other)?;
        let flags = perf::bindings::PERF_FLAG_FD_CLOEXEC.into();
        sys::open_event(perf::bindings::PERF_TYPE_TRACEPOINT, id, flags)
    }
}

/// Missed hits of the kprobes of a lingerd.
pub(super) struct Profile {
    /// Kept open, like [`Definition::file`].
    file: File,
    owner: Owner,
}

impl Profile {
    pub(super) fn open(owner: Owner) -> io::Result<Self> {
        let tracefs = tracefs().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            file: File::open(tracefs.join(PROFILE))?,
            owner,
        })
    }

    /// Missed hits by program: another kprobe was running on the CPU or, for a return, all slots were taken.
    ///
    /// kernel: v2.6.33.. `kernel/trace/trace_kprobe.c`: `probes_profile_seq_show`
    pub(super) fn missed(&self) -> io::Result<HashMap<String, u64>> {
        let mut text = String::new();
        let mut file = &self.file;
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(missed(&text, self.owner))
    }
}

/// Parses `kprobe_profile` for one lingerd: a line has the event, its hits, and its misses.
fn missed(profile: &str, owner: Owner) -> HashMap<String, u64> {
    let ending = format!("_{owner}");
    let lines = profile.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (event, _, missed) = (words.next()?, words.next()?, words.next()?);
        let program = event.strip_suffix(&ending)?;
        Some((program.to_owned(), missed.parse().ok()?))
    });
    lines.collect()
}

/// The events in `kprobe_events` that any lingerd defined, with their owners.
fn events(definitions: &str) -> impl Iterator<Item = (Owner, &str)> {
    definitions.lines().filter_map(|line| {
        let (_, event) = line.split(' ').next()?.split_once(':')?;
        let (owner, _) = event.strip_prefix(GROUP)?.split_once('/')?;
        Some((Owner::parse(owner)?, event))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_of_one_lingerd() {
        let profile = "  kprobe_inner_close_4_7_9     12      3\n  \
                       kprobe_inner_close_4_7_99    12      4\n  \
                       kprobe_inner_close_5_7_9     12      6\n  \
                       another                    12      5\n\
                       garbage\n";
        let ours = HashMap::from([("kprobe_inner_close".to_owned(), 3)]);
        let owner = Owner::parse("4_7_9").unwrap();
        assert_eq!(missed(profile, owner), ours);
    }

    #[test]
    fn only_probes_of_a_lingerd_are_ours() {
        let own = Owner::here();
        let gone = Owner {
            pid: 4_194_999,
            ..own
        };
        let predecessor = Owner {
            started: own.started - 1,
            ..own
        };
        let elsewhere = Owner {
            namespace: 1,
            ..own
        };
        let definitions = format!(
            "r4096:lingerd_{own}/kretprobe_tcp_close_{own} tcp_close\n\
             r4096:lingerd_{gone}/kretprobe_tcp_close_{gone} tcp_close\n\
             p:lingerd_{predecessor}/kprobe_tcp_close_{predecessor} tcp_close\n\
             p:lingerd_1_1/kprobe_tcp_close_1_1 tcp_close\n\
             p:lingerd_{elsewhere}/kretprobe_tcp_close_{elsewhere} tcp_close\n\
             p:kprobes/lingerd_{gone} tcp_close\n\
             r16:other/kretprobe_tcp_close tcp_close\n\
             garbage\n"
        );
        let found = events(&definitions).map(|(owner, _)| (owner, owner.is_running(own)));
        let older = Owner {
            namespace: 1,
            pid: 1,
            started: 0,
        };
        let others = [gone, predecessor, older, elsewhere].map(|owner| (owner, false));
        let expected = [&[(own, true)][..], &others].concat();
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
