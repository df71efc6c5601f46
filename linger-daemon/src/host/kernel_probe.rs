//! Probes the kernel with harmless system calls.

use std::io;
use std::os::fd::OwnedFd;

use aya_obj::generated::{bpf_cmd, bpf_map_type};
use caps::Capability;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use perf_event_open_sys as perf;

use crate::privileges;
use crate::sys;

/// The answers of the kernel to this process.
#[derive(Clone, Default)]
pub(super) struct KernelProbe {
    pub(super) missing: Vec<Capability>,
    pub(super) files: u64,
    /// The error with which bpf(2) refuses even an unknown command; `None` if it only calls the command unknown.
    pub(super) bpf_refused: Option<Errno>,
    /// Like `bpf_refused`, for `perf_event_open(2)` and an unknown flag.
    pub(super) perf_refused: Option<Errno>,
    /// The error of creating a map, if it fails.
    pub(super) map: Option<Errno>,
    /// The error of opening an event of the whole host, if it fails.
    pub(super) event: Option<Errno>,
}

impl KernelProbe {
    pub(super) fn now() -> Self {
        Self {
            missing: privileges::missing(),
            files: raise_open_files(),
            bpf_refused: refusal(bpf(i32::MAX.cast_unsigned())),
            perf_refused: refusal(open_event(libc::c_ulong::MAX)),
            map: errno(bpf(bpf_cmd::BPF_MAP_CREATE as u32)),
            event: errno(open_event(0)),
        }
    }
}

/// Raises the number of files that this process may open as far as it may, and returns it.
pub(super) fn raise_open_files() -> u64 {
    const FILES: Resource = Resource::RLIMIT_NOFILE;
    let raised = |(limit, most)| setrlimit(FILES, most, most).map_or(limit, |()| most);
    getrlimit(FILES).map_or(u64::MAX, raised)
}

fn refusal(answer: io::Result<OwnedFd>) -> Option<Errno> {
    let refused = |errno: &Errno| [Errno::EPERM, Errno::ENOSYS].contains(errno);
    errno(answer).filter(refused)
}

fn errno(answer: io::Result<OwnedFd>) -> Option<Errno> {
    answer.err()?.try_into().ok()
}

/// Calls bpf(2) with the attributes of an array of one number.
fn bpf(command: u32) -> io::Result<OwnedFd> {
    let mut call = sys::attributes();
    call.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    call.__bindgen_anon_1.key_size = 4;
    call.__bindgen_anon_1.value_size = 4;
    call.__bindgen_anon_1.max_entries = 1;
    // SAFETY: these are the attributes for creating a map, without pointers.
    sys::owned(unsafe { sys::bpf(command, &mut call) }?)
}

fn open_event(flags: libc::c_ulong) -> io::Result<OwnedFd> {
    use perf::bindings::{PERF_COUNT_SW_DUMMY, PERF_TYPE_SOFTWARE};
    sys::open_event(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY.into(), flags)
}
